//! WordPiece vocabularies (`tokenizer.ggml.model` = `bert`), from `tokenizer.json` or `vocab.txt`.

use serde_json::Value as Json;

use super::files::{TokenizerConfig, TokenizerJson};
use super::tokens::{Token, TokenList, TokenType};
use super::{Error, Request, byte_level};

/// Tokens in the runtime's spelling: `▁` begins a word, what continues one stands bare.
pub(super) fn tokens(
    tokenizer: &TokenizerJson,
    config: Option<&TokenizerConfig>,
    vocab_size: Option<u64>,
) -> Result<TokenList, Error> {
    let mut list = byte_level::tokens(tokenizer, config, vocab_size)?;
    for id in 0..list.len() as u64 {
        if let Some(token) = list.get(id)
            && token.kind != TokenType::Control
        {
            let token = Token::new(spelled(&token.text.to_string()), token.kind, token.score);
            list.set(id, token)?;
        }
    }
    // The reference spells places without a token as it does words.
    Ok(list.with_padding_mark("▁"))
}

fn spelled(text: &str) -> String {
    text.strip_prefix("##")
        .map_or_else(|| format!("▁{text}"), str::to_owned)
}

const VOCAB_TXT: &str = "vocab.txt";

/// A `tokenizer.json` in place of the `vocab.txt` of an older checkpoint.
pub(super) fn json_of_vocab_txt(
    request: &Request<'_>,
    config: Option<&TokenizerConfig>,
) -> Result<Option<Json>, Error> {
    let Some(text) = request.files.text(VOCAB_TXT)? else {
        return Ok(None);
    };
    let vocabulary: serde_json::Map<String, Json> = text
        .lines()
        .enumerate()
        .map(|(id, line)| (line.to_owned(), Json::from(id)))
        .collect();
    let special = |text: &str| {
        let id = vocabulary.get(text)?;
        Some(serde_json::json!({"id": id, "content": text, "special": true}))
    };
    let added: Vec<_> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        .into_iter()
        .filter_map(special)
        .collect();
    let lowercase = config.is_none_or(|config| config.0["do_lower_case"] != false);
    let template = |text: &str| serde_json::json!({"SpecialToken": {"id": text}});
    Ok(Some(serde_json::json!({
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "lowercase": lowercase, "strip_accents": null},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [template("[CLS]"), {"Sequence": {"id": "A"}}, template("[SEP]")],
        },
        "model": {"type": "WordPiece", "vocab": vocabulary},
    })))
}
