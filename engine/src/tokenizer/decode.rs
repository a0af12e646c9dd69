//! Token ids to text.

use super::byte_letters::bytes;
use super::vocabulary::TokenKind;
use super::{Algorithm, Tokenizer};

impl Tokenizer {
    /// The text of a sequence, special tokens spelled out. Bytes, since a sequence may end in the
    /// middle of a character, or hold bytes that form none.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        let mut out = Vec::with_capacity(ids.len() * 4);
        for (at, &id) in ids.iter().enumerate() {
            let bytes = self.token_bytes(id);
            // The space that encoding put before the text.
            let first = at == 0 && self.add_space_prefix && !self.is_byte_level();
            match bytes.strip_prefix(b" ") {
                Some(rest) if first => out.extend(rest),
                _ => out.extend(&bytes),
            }
        }
        if self.clean_spaces && !self.is_byte_level() {
            return clean(&out);
        }
        out
    }

    /// The text of one token as it stands inside a sequence.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let text = self.vocabulary.text(id);
        if let Algorithm::Rwkv(rwkv) = &self.algorithm {
            return rwkv.bytes(id).to_vec();
        }
        match self.vocabulary.kind(id) {
            TokenKind::Control | TokenKind::UserDefined | TokenKind::Unknown => text.to_vec(),
            TokenKind::Byte => self.vocabulary.byte(id).into_iter().collect(),
            TokenKind::Unused if !self.is_byte_level() => Vec::new(),
            _ if self.is_byte_level() => std::str::from_utf8(text)
                .ok()
                .and_then(bytes)
                .unwrap_or_else(|| text.to_vec()),
            _ => spaces(text),
        }
    }

    fn is_byte_level(&self) -> bool {
        use gristmill_gguf::schema::pretokenizer::Symbols;
        matches!(&self.algorithm, Algorithm::Bpe(_, rule) if rule.symbols == Symbols::Bytes)
    }
}

/// `▁` as spaces.
fn spaces(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(&byte) = rest.first() {
        match rest.strip_prefix("▁".as_bytes()) {
            Some(after) => {
                out.push(b' ');
                rest = after;
            }
            None => {
                out.push(byte);
                rest = &rest[1..];
            }
        }
    }
    out
}

/// Takes out the spaces before punctuation and around apostrophes that cutting into words put there.
fn clean(text: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    for (at, &byte) in text.iter().enumerate() {
        let before_mark =
            byte == b' ' && matches!(text.get(at + 1), Some(b'?' | b'!' | b'.' | b','));
        if !before_mark {
            out.push(byte);
        }
    }
    let mut text = out;
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with(b" ' ") {
            out.push(b'\'');
            at += 3;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    text = out;
    let mut out = Vec::with_capacity(text.len());
    for (at, &byte) in text.iter().enumerate() {
        let rest = &text[at + 1..];
        let joined = byte == b' '
            && (rest.starts_with(b"'m")
                || rest.starts_with(b"'s")
                || rest.starts_with(b"'re")
                || rest.starts_with(b"'ve"));
        if !joined {
            out.push(byte);
        }
    }
    out
}
