//! Unigram vocabularies (`tokenizer.ggml.model` = `t5`), from a sentencepiece model or from
//! `tokenizer.json`.

use serde_json::Value as Json;

use super::characters::added_tokens_json;
use super::files::{TOKENIZER_JSON, TokenizerJson, components};
use super::sentencepiece::{Piece, SentencePiece};
use super::tokens::{NO_SCORE, Token, TokenList, TokenType, looks_special};
use super::{Error, Request, family};

/// Names under which sentencepiece models of this kind are published.
pub(super) const MODEL_FILES: &[&str] =
    &["sentencepiece.bpe.model", "spiece.model", "tokenizer.model"];

/// What a unigram tokenizer is made of.
pub(super) struct Unigram {
    pub list: TokenList,
    pub charsmap: Vec<u8>,
    pub add_space_prefix: bool,
    pub remove_extra_whitespaces: bool,
}

/// Reads the sentencepiece model, realigned to the ids of `tokenizer.json` where they differ.
pub(super) fn from_model(
    model: SentencePiece,
    request: &Request<'_>,
    fairseq: bool,
) -> Result<Unigram, Error> {
    let SentencePiece {
        mut pieces,
        charsmap,
        add_dummy_prefix,
        remove_extra_whitespaces,
        ..
    } = model;
    if fairseq {
        pieces = realigned(pieces, request);
    }
    let size = request.vocab_size;
    let within = |id: u64| size.is_none_or(|size| id < size);
    // The reference fills the list before it shifts the pieces.
    let shift = usize::from(fairseq);
    let mut list = TokenList::new("spiece.model", None).with_padding_shift(shift);
    for (id, piece) in (0u64..).zip(pieces) {
        if within(id) {
            list.set(id, Token::new(piece.text, piece.kind, piece.score))?;
        }
    }
    let added = match fairseq {
        true => Vec::new(),
        false => added_tokens_json(request)?,
    };
    for token in added {
        if within(token.id) {
            let kind = TokenType::UserDefined;
            list.set(token.id, Token::new(token.text, kind, NO_SCORE))?;
        }
    }
    Ok(Unigram {
        list,
        charsmap,
        add_space_prefix: add_dummy_prefix,
        remove_extra_whitespaces,
    })
}

/// XLM-RoBERTa's ids: its own four control tokens first, then the pieces shifted by one. The place
/// of the mask, which comes last, stays a filling as the reference writes it.
fn realigned(pieces: Vec<Piece>, request: &Request<'_>) -> Vec<Piece> {
    let control = |text: &str, kind| Piece {
        text: text.into(),
        score: 0.0,
        kind,
    };
    let mut out = vec![
        control("<s>", TokenType::Control),
        control("<pad>", TokenType::Control),
        control("</s>", TokenType::Control),
        control("<unk>", TokenType::Unknown),
    ];
    out.extend(pieces.into_iter().skip(3));
    if family::appends_mask(request) {
        out.push(control("<mask>", TokenType::Control));
    }
    out
}

/// Reads `tokenizer.json` alone.
pub(super) fn from_json(tokenizer: &TokenizerJson, size: Option<u64>) -> Result<Unigram, Error> {
    let model = &tokenizer.json["model"];
    let unknown = model["unk_id"].as_u64();
    let mut list = TokenList::new(TOKENIZER_JSON, size);
    let vocabulary = model["vocab"]
        .as_array()
        .ok_or_else(|| Error::file(TOKENIZER_JSON, "`model.vocab` is no list"))?;
    for (id, entry) in (0u64..).zip(vocabulary) {
        let (Some(text), Some(score)) = (entry[0].as_str(), entry[1].as_f64()) else {
            return Err(Error::file(
                TOKENIZER_JSON,
                format!("`model.vocab[{id}]` is no pair of a text and a score"),
            ));
        };
        let kind = if Some(id) == unknown {
            TokenType::Unknown
        } else {
            TokenType::Normal
        };
        list.set(id, Token::new(text, kind, score as f32))?;
    }
    for token in &tokenizer.added {
        if Some(token.id) != unknown {
            let kind = if token.special || looks_special(&token.text) {
                TokenType::Control
            } else {
                TokenType::UserDefined
            };
            let score = list.get(token.id).map_or(0.0, |token| token.score);
            list.set(token.id, Token::new(token.text.as_str(), kind, score))?;
        }
    }
    let normalizers = components(&tokenizer.json["normalizer"]);
    let charsmap = normalizers
        .iter()
        .find_map(|part| part["precompiled_charsmap"].as_str())
        .map_or(Ok(Vec::new()), |text| {
            base64(text)
                .ok_or_else(|| Error::file(TOKENIZER_JSON, "`precompiled_charsmap` is not base64"))
        })?;
    let splits = components(&tokenizer.json["pre_tokenizer"]);
    let has = |kind: &str| splits.iter().any(|part| part["type"] == kind);
    let never = |part: &&Json| {
        part["type"] == "Metaspace"
            && (part["prepend_scheme"] == "never" || part["add_prefix_space"] == false)
    };
    let collapses = normalizers
        .iter()
        .any(|part| part["type"] == "Replace" && part["pattern"]["Regex"] == " {2,}");
    Ok(Unigram {
        list,
        charsmap,
        add_space_prefix: !splits.iter().any(never),
        remove_extra_whitespaces: has("WhitespaceSplit") || collapses,
    })
}

/// Decodes standard base64, with or without padding.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}
