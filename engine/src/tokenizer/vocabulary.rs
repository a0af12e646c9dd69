//! The token list: text, kind and score by id, and ids by text.

use std::collections::HashMap;

use bstr::{BString, ByteSlice};
use gristmill_gguf::{Array, Metadata};

use super::Error;

/// `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for what no token covers.
    Unknown,
    /// Structure rather than text (begin, end, roles).
    Control,
    /// A piece of text that is recognised before all others.
    UserDefined,
    /// A place that no text leads to.
    Unused,
    /// A single byte.
    Byte,
}

impl TokenKind {
    fn from_id(id: i64) -> Self {
        match id {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

pub(super) type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Tokens by id.
#[derive(Debug)]
pub(super) struct Vocabulary {
    texts: Vec<BString>,
    kinds: Vec<TokenKind>,
    scores: Vec<f32>,
    ids: FastMap<Box<[u8]>, u32>,
}

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";

impl Vocabulary {
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, Error> {
        let tokens = metadata.get(TOKENS).ok_or(Error::Missing {
            key: TOKENS,
            needed: "it is the vocabulary",
        })?;
        let texts = tokens
            .as_array()
            .and_then(Array::as_strings)
            .ok_or_else(|| Error::invalid(TOKENS, "expected an array of strings"))?;
        if u32::try_from(texts.len()).is_err() || texts.is_empty() {
            return Err(Error::invalid(
                TOKENS,
                format!("{} tokens are no vocabulary", texts.len()),
            ));
        }
        // An empty text would be found everywhere; llama.cpp renames it the same way.
        let texts: Vec<BString> = texts
            .iter()
            .enumerate()
            .map(|(id, text)| match text.is_empty() {
                true => format!("[EMPTY_{id}]").into(),
                false => text.clone(),
            })
            .collect();
        let kinds = match integers(metadata, TYPES, texts.len())? {
            Some(kinds) => kinds.into_iter().map(TokenKind::from_id).collect(),
            None => vec![TokenKind::Normal; texts.len()],
        };
        let scores = match metadata.get(SCORES).map(|value| value.as_array()) {
            None => vec![0.0; texts.len()],
            Some(Some(Array::F32(scores))) => scores.clone(),
            Some(_) => match integers(metadata, SCORES, texts.len())? {
                Some(scores) => scores.into_iter().map(|score| score as f32).collect(),
                None => vec![0.0; texts.len()],
            },
        };
        check_length(SCORES, scores.len(), texts.len())?;
        let mut ids = FastMap::with_capacity_and_hasher(texts.len(), Default::default());
        for (id, text) in (0u32..).zip(&texts) {
            ids.entry(text.as_slice().into()).or_insert(id);
        }
        Ok(Self {
            texts,
            kinds,
            scores,
            ids,
        })
    }

    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text as the file spells it; empty for an id beyond the vocabulary.
    pub fn text(&self, id: u32) -> &[u8] {
        self.texts
            .get(id as usize)
            .map_or(&[], |text| text.as_bytes())
    }

    pub fn kind(&self, id: u32) -> TokenKind {
        self.kinds
            .get(id as usize)
            .copied()
            .unwrap_or(TokenKind::Unused)
    }

    pub fn set_kind(&mut self, id: u32, kind: TokenKind) {
        if let Some(slot) = self.kinds.get_mut(id as usize) {
            *slot = kind;
        }
    }

    pub fn score(&self, id: u32) -> f32 {
        self.scores[id as usize]
    }

    /// The id of a text as the file spells it.
    pub fn id(&self, text: &[u8]) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// Ids and texts.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        (0u32..).zip(self.texts.iter().map(|text| text.as_bytes()))
    }

    /// The ids of the tokens `<0xXX>`, by byte.
    pub fn byte_tokens(&self) -> [Option<u32>; 256] {
        std::array::from_fn(|byte| self.id(format!("<0x{byte:02X}>").as_bytes()))
    }

    /// The byte that a token of kind [`TokenKind::Byte`] stands for.
    pub fn byte(&self, id: u32) -> Option<u8> {
        let digits = self.text(id).strip_prefix(b"<0x")?.strip_suffix(b">")?;
        u8::from_str_radix(digits.to_str().ok()?, 16).ok()
    }
}

fn check_length(key: &str, found: usize, expected: usize) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(Error::invalid(
        key,
        format!("expected one entry for each of {expected} tokens, found {found}"),
    ))
}

fn integers(metadata: &Metadata, key: &str, length: usize) -> Result<Option<Vec<i64>>, Error> {
    let Some(value) = metadata.get(key) else {
        return Ok(None);
    };
    let integers: Vec<i64> = match value.as_array() {
        Some(Array::I32(list)) => list.iter().map(|&v| v.into()).collect(),
        Some(Array::U32(list)) => list.iter().map(|&v| v.into()).collect(),
        Some(Array::I8(list)) => list.iter().map(|&v| v.into()).collect(),
        Some(Array::U8(list)) => list.iter().map(|&v| v.into()).collect(),
        Some(Array::I64(list)) => list.clone(),
        _ => return Err(Error::invalid(key, "expected an array of integers")),
    };
    check_length(key, integers.len(), length)?;
    Ok(Some(integers))
}
