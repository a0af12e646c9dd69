//! Byte-level byte-pair vocabularies (`tokenizer.ggml.model` = `gpt2`): tokens of `tokenizer.json`,
//! or of `vocab.json` and `merges.txt`.

use std::collections::HashSet;

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
        list.set(id, Token::new(text, TokenType::Normal, NO_SCORE))?;
    }
    for token in all_added(tokenizer, config, &vocabulary) {
        let (text, kind) = added(&token.text, token.special);
        list.set(token.id, Token::new(text, kind, NO_SCORE))?;
    }
    Ok(list)
}

/// Added tokens as transformers gathers them: those of `tokenizer.json`, those that only the
/// configuration declares, and tokens of the vocabulary that have a special role.
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

/// The merges of `tokenizer.json`, else of `merges.txt`.
pub(super) fn merges(
    tokenizer: &TokenizerJson,
    request: &Request<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, Error> {
    if let Some(merges) = tokenizer.merges()? {
        return Ok(merges);
    }
    const FILE: &str = "merges.txt";
    let text = request
        .files
        .text(FILE)?
        .ok_or_else(|| Error::file(TOKENIZER_JSON, "has no merges, and there is no merges.txt"))?;
    let lines = text.lines().enumerate();
    Ok(lines
        .filter(|(at, line)| !(line.is_empty() || *at == 0 && line.starts_with('#')))
        .filter_map(|(at, line)| {
            let whole = line.split_whitespace().count() == 2;
            if !whole {
                warnings.push(format!("{FILE}, line {}: not two parts; left out", at + 1));
            }
            whole.then(|| line.trim().to_owned())
        })
        .collect())
}
