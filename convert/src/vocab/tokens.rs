//! The token list: text, type and score by id.

use std::collections::HashMap;

use bstr::{BString, ByteSlice};
use gristmill_gguf::Value;

use super::Error;

/// `tokenizer.ggml.token_type` of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum TokenType {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// A token.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub text: BString,
    pub kind: TokenType,
    pub score: f32,
}

impl Token {
    pub fn new(text: impl Into<BString>, kind: TokenType, score: f32) -> Self {
        Self {
            text: text.into(),
            kind,
            score,
        }
    }
}

/// The score the reference gives to tokens that have none.
pub(super) const NO_SCORE: f32 = -1000.0;
/// The score of the places that no token fills.
const PADDING_SCORE: f32 = -10000.0;

/// Tokens by id; places without a token become `[PADn]`.
#[derive(Debug, Clone, Default)]
pub(super) struct TokenList {
    tokens: Vec<Option<Token>>,
    /// The file the tokens come from, for messages.
    file: String,
    /// Ids must stay below this.
    limit: Option<u64>,
    /// What stands before the `[PADn]` of a place without a token.
    padding_mark: &'static str,
    /// How far the n of `[PADn]` lies below the place.
    padding_shift: usize,
}

/// Ids beyond this are no vocabulary but a damaged file.
const LARGEST_ID: u64 = 1 << 24;

impl TokenList {
    pub fn new(file: &str, limit: Option<u64>) -> Self {
        Self {
            tokens: Vec::new(),
            file: file.into(),
            limit,
            padding_mark: "",
            padding_shift: 0,
        }
    }

    /// With this before every `[PADn]`.
    pub fn with_padding_mark(mut self, mark: &'static str) -> Self {
        self.padding_mark = mark;
        self
    }

    /// With the fillings numbered by as much less.
    pub fn with_padding_shift(mut self, shift: usize) -> Self {
        self.padding_shift = shift;
        self
    }

    /// Puts a token at an id, over what stood there.
    pub fn set(&mut self, id: u64, token: Token) -> Result<(), Error> {
        let size = self.limit.unwrap_or(LARGEST_ID);
        if id >= size.min(LARGEST_ID) {
            return Err(Error::BeyondVocabulary {
                file: self.file.clone(),
                token: token.text.to_string(),
                id,
                size,
            });
        }
        let at = id as usize;
        if at >= self.tokens.len() {
            self.tokens.resize(at + 1, None);
        }
        self.tokens[at] = Some(token);
        Ok(())
    }

    pub fn get(&self, id: u64) -> Option<&Token> {
        self.tokens.get(usize::try_from(id).ok()?)?.as_ref()
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Fills the gaps and appends places up to `size`.
    pub fn finish(mut self, size: Option<u64>) -> Result<Tokens, Error> {
        let own = self.tokens.len();
        let size = size.unwrap_or(0).min(LARGEST_ID) as usize;
        self.tokens.resize(own.max(size), None);
        let mut padding = 0;
        let mut seen: HashMap<BString, usize> = HashMap::with_capacity(self.tokens.len());
        let mut tokens = Vec::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.into_iter().enumerate() {
            let token = token.unwrap_or_else(|| {
                padding += 1;
                let number = id.saturating_sub(self.padding_shift);
                let text = format!("{}[PAD{number}]", self.padding_mark);
                Token::new(text, TokenType::Unused, PADDING_SCORE)
            });
            if let Some(first) = seen.insert(token.text.clone(), id) {
                return Err(Error::Duplicate {
                    file: self.file,
                    token: token.text.to_string(),
                    first,
                    second: id,
                });
            }
            tokens.push(token);
        }
        Ok(Tokens { tokens, padding })
    }
}

/// A complete token list.
#[derive(Debug)]
pub(super) struct Tokens {
    pub tokens: Vec<Token>,
    /// How many places were filled.
    pub padding: usize,
}

impl Tokens {
    pub fn texts(&self) -> Value {
        let texts: Vec<_> = self.tokens.iter().map(|token| token.text.clone()).collect();
        texts.into()
    }

    pub fn scores(&self) -> Value {
        let scores: Vec<_> = self.tokens.iter().map(|token| token.score).collect();
        scores.into()
    }

    pub fn types(&self) -> Value {
        let types: Vec<_> = self.tokens.iter().map(|token| token.kind as i32).collect();
        types.into()
    }

    pub fn find(&self, text: &str) -> Option<u32> {
        self.tokens
            .iter()
            .position(|token| token.text.as_bytes() == text.as_bytes())
            .and_then(|at| u32::try_from(at).ok())
    }
}

/// Whether a token that is not declared special reads like one.
pub(super) fn looks_special(text: &str) -> bool {
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || (text.starts_with("<|") && text.ends_with("|>"))
        || (text.starts_with("<｜") && text.ends_with("｜>"))
        || (text.starts_with("<unused") && text.ends_with('>'))
}

/// The type of an added token, and the text it has then: `▁` becomes a space in those that users type.
pub(super) fn added(text: &str, special: bool) -> (String, TokenType) {
    if special || looks_special(text) {
        (text.into(), TokenType::Control)
    } else {
        (text.replace('▁', " "), TokenType::UserDefined)
    }
}

/// The byte that a token `<0xXX>` stands for.
pub(super) fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}
