//! BERT's WordPiece: words cut greedily into the longest tokens.

use gristmill_gguf::Metadata;
use unicode_normalization::UnicodeNormalization;

use super::trie::Trie;
use super::unicode::{is_control, is_mark, is_punctuation};
use super::vocabulary::Vocabulary;

/// A WordPiece encoder.
#[derive(Debug)]
pub(super) struct WordPiece {
    tokens: Trie,
    unknown: u32,
    lowercase: bool,
    strip_accents: bool,
}

impl WordPiece {
    pub fn new(metadata: &Metadata, vocabulary: &Vocabulary, unknown: u32) -> Self {
        let lowercase = metadata
            .bool("tokenizer.ggml.normalizer.lowercase")
            .unwrap_or(true);
        let strip_accents = metadata
            .bool("tokenizer.ggml.normalizer.strip_accents")
            .unwrap_or(lowercase);
        Self {
            tokens: Trie::new(vocabulary.iter()),
            unknown,
            lowercase,
            strip_accents,
        }
    }

    /// Appends the tokens of a text. Bytes that are no UTF-8 are left out.
    pub fn encode(&self, text: &[u8], out: &mut Vec<u32>) {
        let mut word = String::new();
        for chunk in text.utf8_chunks() {
            for c in chunk.valid().chars() {
                self.read(c, &mut word, out);
            }
        }
        self.flush(&mut word, out);
    }

    fn read(&self, c: char, word: &mut String, out: &mut Vec<u32>) {
        // Of a decomposition llama.cpp keeps the base letter only.
        let c = match self.strip_accents {
            true => c.nfd().next().unwrap_or(c),
            false => c,
        };
        if c.is_whitespace() {
            self.flush(word, out);
            return;
        }
        if c == '\0'
            || c == char::REPLACEMENT_CHARACTER
            || is_control(c)
            || (self.strip_accents && is_mark(c))
        {
            return;
        }
        let alone = is_punctuation(c) || c.is_ascii_punctuation() || is_cjk(c);
        if alone {
            self.flush(word, out);
        }
        match self.lowercase {
            true => word.extend(lower(c)),
            false => word.push(c),
        }
        if alone {
            self.flush(word, out);
        }
    }

    /// Ends the word: cuts it into tokens; a word with a part that is no token is unknown as a whole.
    fn flush(&self, word: &mut String, out: &mut Vec<u32>) {
        if word.is_empty() {
            return;
        }
        let spelled = format!("▁{word}");
        word.clear();
        let before = out.len();
        let mut rest = spelled.as_bytes();
        while !rest.is_empty() {
            let Some((length, token)) = self.tokens.longest_prefix(rest) else {
                out.truncate(before);
                break;
            };
            out.push(token);
            rest = &rest[length..];
        }
        if out.len() == before {
            out.push(self.unknown);
        }
    }
}

/// The lower-case letter, where it is a single one.
fn lower(c: char) -> Option<char> {
    let mut lower = c.to_lowercase();
    let first = lower.next()?;
    Some(if lower.next().is_some() { c } else { first })
}

fn is_cjk(c: char) -> bool {
    matches!(c,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}' | '\u{2b740}'..='\u{2b81f}' | '\u{2b920}'..='\u{2ceaf}'
        | '\u{f900}'..='\u{faff}' | '\u{2f800}'..='\u{2fa1f}')
}
