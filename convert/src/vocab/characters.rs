//! Sentencepiece-like vocabularies (`tokenizer.ggml.model` = `llama`, and `gemma4`): tokens with
//! scores from `tokenizer.model`, or from a `tokenizer.json` whose merges work on characters.

use std::collections::HashSet;

use serde_json::Value as Json;

use super::byte_level::all_added;
use super::files::{AddedToken, TOKENIZER_JSON, TokenizerConfig, TokenizerJson};
use super::sentencepiece::SentencePiece;
use super::tokens::{NO_SCORE, Token, TokenList, TokenType, added, byte_token};
use super::{Error, Request, family};

/// Tokens of `tokenizer.model`, with what the JSON files add to it.
pub(super) fn from_model(
    model: &SentencePiece,
    request: &Request<'_>,
    config: Option<&TokenizerConfig>,
    warnings: &mut Vec<String>,
) -> Result<TokenList, Error> {
    let size = request.vocab_size;
    let mut list = pieces(model, size)?;
    let within = |id: u64| size.is_none_or(|size| id < size);
    for token in added_tokens_json(request)? {
        if within(token.id) {
            // Phi-3 publishes its own list of added tokens, in which all are control tokens.
            list.set(
                token.id,
                Token::new(token.text, TokenType::UserDefined, NO_SCORE),
            )?;
        } else {
            warnings.push(format!(
                "added_tokens.json: token `{}` has id {} beyond the vocabulary; left out",
                token.text, token.id
            ));
        }
    }
    let decoder = config.map_or_else(Vec::new, TokenizerConfig::added_tokens);
    for token in decoder.into_iter().filter(|token| within(token.id)) {
        let (text, kind) = added(&token.text, token.special);
        list.set(token.id, Token::new(text, kind, NO_SCORE))?;
    }
    Ok(list)
}

/// The pieces of a sentencepiece model that lie below `size`.
pub(super) fn pieces(model: &SentencePiece, size: Option<u64>) -> Result<TokenList, Error> {
    let mut list = TokenList::new("tokenizer.model", None);
    for (id, piece) in (0u64..).zip(&model.pieces) {
        if size.is_none_or(|size| id < size) {
            let token = Token::new(piece.text.clone(), piece.kind, piece.score);
            list.set(id, token)?;
        }
    }
    Ok(list)
}

/// Phi-3's reading of the same files: the type of an added token goes by its flag alone.
pub(super) fn from_model_by_flag(
    model: &SentencePiece,
    request: &Request<'_>,
    tokenizer: Option<&TokenizerJson>,
    config: Option<&TokenizerConfig>,
) -> Result<TokenList, Error> {
    let size = request.vocab_size;
    let mut list = pieces(model, size)?;
    let within = |token: &AddedToken| size.is_none_or(|size| token.id < size);
    let kind = |special| {
        if special {
            TokenType::Control
        } else {
            TokenType::UserDefined
        }
    };
    for token in added_tokens_json(request)?.into_iter().filter(within) {
        list.set(
            token.id,
            Token::new(token.text, TokenType::UserDefined, NO_SCORE),
        )?;
    }
    let decoder = config.map_or_else(Vec::new, TokenizerConfig::added_tokens);
    let added = tokenizer.map_or_else(Vec::new, |tokenizer| tokenizer.added.clone());
    for token in decoder.into_iter().chain(added).filter(within) {
        list.set(
            token.id,
            Token::new(token.text, kind(token.special), NO_SCORE),
        )?;
    }
    Ok(list)
}

/// `added_tokens.json`: a table of texts and ids.
pub(super) fn added_tokens_json(request: &Request<'_>) -> Result<Vec<AddedToken>, Error> {
    let json = request.files.json("added_tokens.json")?;
    let table = json.as_ref().and_then(Json::as_object);
    Ok(table
        .into_iter()
        .flatten()
        .filter_map(|(text, id)| {
            Some(AddedToken {
                id: id.as_u64()?,
                text: text.clone(),
                special: false,
            })
        })
        .collect())
}

/// Tokens of a `tokenizer.json` with merges on characters. Such a file holds no scores: the
/// reference gives all tokens the same one.
pub(super) fn from_json(
    tokenizer: &TokenizerJson,
    config: Option<&TokenizerConfig>,
    request: &Request<'_>,
) -> Result<TokenList, Error> {
    let mut list = TokenList::new(TOKENIZER_JSON, request.vocab_size);
    let vocabulary = tokenizer.vocabulary()?;
    let all = all_added(tokenizer, config, &vocabulary);
    // Of the tokens of the vocabulary itself those with a role are special.
    let special: HashSet<&str> = match config {
        Some(config) => config.special_texts().collect(),
        None => all
            .iter()
            .filter(|token| token.special)
            .map(|token| token.text.as_str())
            .collect(),
    };
    for &(text, id) in &vocabulary {
        let kind = if byte_token(text).is_some() {
            TokenType::Byte
        } else if family::is_visible(request, text) {
            TokenType::UserDefined
        } else if special.contains(text) {
            TokenType::Control
        } else {
            TokenType::Normal
        };
        list.set(id, Token::new(text, kind, NO_SCORE))?;
    }
    for token in &all {
        if list.get(token.id).is_none() {
            let text = token.text.as_str();
            let kind = if special.contains(text) && !family::is_visible(request, text) {
                TokenType::Control
            } else {
                TokenType::UserDefined
            };
            list.set(token.id, Token::new(text, kind, NO_SCORE))?;
        }
    }
    Ok(list)
}
