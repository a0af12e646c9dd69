//! Byte-level byte-pair vocabularies (`tokenizer.ggml.model` = `gpt2`): tokens of `tokenizer.json`,
//! or of `vocab.json` and `merges.txt`.

use std::collections::HashSet;

use gristmill_gguf::schema::pretokenizer::by_name;
use serde_json::{Value as Json, json};

use super::characters::added_tokens_json;
use super::files::{AddedToken, TOKENIZER_JSON, TokenizerConfig, TokenizerJson};
use super::tokens::{NO_SCORE, Token, TokenList, TokenType, added};
use super::{Error, Request};

/// Tokens of the vocabulary and those added to it.
pub(super) fn tokens(
    tokenizer: &TokenizerJson,
    config: Option<&TokenizerConfig>,
    vocab_size: Option<u64>,
) -> Result<TokenList, Error> {
    let mut list = TokenList::new(TOKENIZER_JSON, vocab_size);
    let vocabulary = tokenizer.vocabulary()?;
    for &(text, id) in &vocabulary {
        if let Some(first) = list.get(id) {
            let reason = format!(
                "`model.vocab`: `{}` and `{text}` have the same id {id}",
                first.text
            );
            return Err(Error::file(TOKENIZER_JSON, reason));
        }
        list.set(id, Token::new(text, TokenType::Normal, NO_SCORE))?;
    }
    for token in all_added(tokenizer, config, &vocabulary) {
        let (text, kind) = added(&token.text, token.special);
        list.set(token.id, Token::new(text, kind, NO_SCORE))?;
    }
    Ok(list)
}

/// Added tokens as transformers gathers them: those of `tokenizer.json`, those that only the
/// configuration declares, and tokens of the vocabulary that have a special role. A role makes
/// a token special, whatever its flag.
pub(super) fn all_added(
    tokenizer: &TokenizerJson,
    config: Option<&TokenizerConfig>,
    vocabulary: &[(&str, u64)],
) -> Vec<AddedToken> {
    let mut tokens = tokenizer.added.clone();
    let mut known: HashSet<String> = tokens.iter().map(|token| token.text.clone()).collect();
    let Some(config) = config else {
        return tokens;
    };
    for token in config.added_tokens() {
        if known.insert(token.text.clone()) {
            tokens.push(token);
        }
    }
    let roles: HashSet<&str> = config.role_texts().collect();
    for token in &mut tokens {
        token.special |= roles.contains(token.text.as_str());
    }
    for text in config.special_texts() {
        if !known.contains(text)
            && let Some(&(_, id)) = vocabulary.iter().find(|(known, _)| *known == text)
        {
            known.insert(text.to_owned());
            tokens.push(AddedToken {
                id,
                text: text.to_owned(),
                special: true,
            });
        }
    }
    tokens
}

const VOCAB_JSON: &str = "vocab.json";
const MERGES_TXT: &str = "merges.txt";

/// The merges of `tokenizer.json`, else of `merges.txt`.
pub(super) fn merges(
    tokenizer: &TokenizerJson,
    request: &Request<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, Error> {
    if let Some(merges) = tokenizer.merges()? {
        let known: HashSet<&str> = tokenizer
            .vocabulary()?
            .iter()
            .map(|(text, _)| *text)
            .collect();
        let fits = |merge: &String| {
            merge.split_once(' ').is_some_and(|(left, right)| {
                known.contains(left)
                    && known.contains(right)
                    && known.contains(format!("{left}{right}").as_str())
            })
        };
        // A prefix of inner tokens is no part of what they join to.
        let prefix = tokenizer.json["model"]["continuing_subword_prefix"].as_str();
        if prefix.unwrap_or_default().is_empty()
            && let Some(at) = merges.iter().position(|merge| !fits(merge))
        {
            let reason = format!(
                "`model.merges[{at}]`: `{}` does not join two tokens of the vocabulary to a third",
                merges[at]
            );
            return Err(Error::file(TOKENIZER_JSON, reason));
        }
        return Ok(merges);
    }
    merges_txt(request, warnings)?
        .ok_or_else(|| Error::file(TOKENIZER_JSON, "has no merges, and there is no merges.txt"))
}

fn merges_txt(
    request: &Request<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Vec<String>>, Error> {
    let Some(text) = request.files.text(MERGES_TXT)? else {
        return Ok(None);
    };
    let lines = text.lines().enumerate();
    let merges = lines
        .filter(|(at, line)| !(line.is_empty() || *at == 0 && line.starts_with('#')))
        .filter_map(|(at, line)| {
            let whole = line.split_whitespace().count() == 2;
            if !whole {
                let line = at + 1;
                warnings.push(format!(
                    "{MERGES_TXT}, line {line}: not two parts; left out"
                ));
            }
            whole.then(|| line.trim().to_owned())
        });
    Ok(Some(merges.collect()))
}

/// A `tokenizer.json` in place of the `vocab.json` and `merges.txt` of an older checkpoint. How
/// text is split follows from the tokenizer's class; all but Qwen's split as GPT-2's.
pub(super) fn json_of_files(
    request: &Request<'_>,
    config: Option<&TokenizerConfig>,
    warnings: &mut Vec<String>,
) -> Result<Option<Json>, Error> {
    let Some(vocabulary) = request.files.json(VOCAB_JSON)? else {
        return Ok(None);
    };
    let Some(merges) = merges_txt(request, warnings)? else {
        return Ok(None);
    };
    let mut added = config.map_or_else(Vec::new, TokenizerConfig::added_tokens);
    for token in added_tokens_json(request)? {
        if !added.iter().any(|known| known.text == token.text) {
            added.push(token);
        }
    }
    let added = added.iter().map(|token| {
        json!({
            "id": token.id, "content": token.text, "special": token.special, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": !token.special
        })
    });
    let class = config.and_then(|config| config.0["tokenizer_class"].as_str());
    let qwen = class.is_some_and(|class| class.starts_with("Qwen2"));
    let bytes = |use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": use_regex
        })
    };
    let split = by_name("qwen2").filter(|_| qwen).map(|rule| {
        let splits = rule.splits.iter().map(|regex| {
            let pattern = json!({"Regex": regex});
            json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false})
        });
        json!({"type": "Sequence", "pretokenizers": splits.chain([bytes(false)]).collect::<Vec<_>>()})
    });
    Ok(Some(json!({
        "version": "1.0",
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": if qwen { json!({"type": "NFC"}) } else { Json::Null },
        "pre_tokenizer": split.unwrap_or_else(|| bytes(true)),
        "decoder": bytes(true),
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    })))
}
