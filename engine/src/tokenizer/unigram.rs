//! Sentencepiece's unigram model: the sequence of tokens with the highest sum of scores.

use gristmill_gguf::{Array, Metadata};

use super::Error;
use super::spm::utf8_length;
use super::trie::Trie;
use super::vocabulary::{TokenKind, Vocabulary};

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// How far below the worst token an unknown character scores.
const UNKNOWN_PENALTY: f64 = 10.0;

/// A unigram encoder.
#[derive(Debug)]
pub(super) struct Unigram {
    tokens: Trie,
    user_defined: Trie,
    charsmap: Option<CharsMap>,
    unknown: u32,
    unknown_score: f64,
    add_space_prefix: bool,
    remove_extra_whitespaces: bool,
}

/// The best way to a place in the text.
#[derive(Clone, Copy)]
struct Step {
    token: u32,
    from: usize,
    score: f64,
}

impl Unigram {
    pub fn new(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        unknown: u32,
        add_space_prefix: bool,
    ) -> Result<Self, Error> {
        let of = |kinds: &'static [TokenKind]| {
            Trie::new(
                vocabulary
                    .iter()
                    .filter(move |&(id, _)| kinds.contains(&vocabulary.kind(id))),
            )
        };
        let worst = vocabulary
            .iter()
            .filter(|&(id, _)| vocabulary.kind(id) == TokenKind::Normal)
            .map(|(id, _)| f64::from(vocabulary.score(id)))
            .fold(f64::INFINITY, f64::min);
        Ok(Self {
            tokens: of(&[TokenKind::Normal, TokenKind::UserDefined, TokenKind::Unused]),
            user_defined: of(&[TokenKind::UserDefined]),
            charsmap: CharsMap::from_metadata(metadata)?,
            unknown,
            unknown_score: if worst.is_finite() { worst } else { 0.0 } - UNKNOWN_PENALTY,
            add_space_prefix,
            remove_extra_whitespaces: metadata
                .bool("tokenizer.ggml.remove_extra_whitespaces")
                .unwrap_or(false),
        })
    }

    /// Appends the tokens of a text.
    pub fn encode(&self, text: &[u8], vocabulary: &Vocabulary, out: &mut Vec<u32>) {
        let text = self.normalized(text);
        if text.is_empty() {
            return;
        }
        let unreached = Step {
            token: self.unknown,
            from: 0,
            score: f64::MIN,
        };
        let mut best = vec![unreached; text.len() + 1];
        best[0].score = 0.0;
        let mut at = 0;
        while at < text.len() {
            let character = utf8_length(text[at]).min(text.len() - at);
            let reached = best[at].score;
            let mut offer = |length: usize, token: u32, score: f64| {
                let step = &mut best[at + length];
                // Of equal sums the one found first stays.
                if reached + score > step.score {
                    *step = Step {
                        token,
                        from: at,
                        score: reached + score,
                    };
                }
            };
            let mut covered = false;
            for (length, token) in self.tokens.prefixes(&text[at..]) {
                covered |= length == character;
                let score = match vocabulary.kind(token) {
                    TokenKind::UserDefined => 0.0,
                    _ => f64::from(vocabulary.score(token)),
                };
                offer(length, token, score);
            }
            if !covered {
                offer(character, self.unknown, self.unknown_score);
            }
            at += character;
        }
        let from = out.len();
        let mut at = text.len();
        while at > 0 {
            let Step { token, from, .. } = best[at];
            // A run of unknown characters is one token.
            if token != self.unknown || out.last() != Some(&token) || at == text.len() {
                out.push(token);
            }
            at = from;
        }
        out[from..].reverse();
    }

    /// Characters mapped, spaces spelled `▁`, their runs shortened.
    fn normalized(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + text.len() / 4 + 4);
        let mut prefixed = false;
        let mut in_word = false;
        let mut at = 0;
        while at < text.len() {
            let (replacement, taken) = self.normalized_prefix(&text[at..]);
            for &byte in replacement {
                if byte != b' ' {
                    if !in_word {
                        in_word = true;
                        if (self.add_space_prefix && !prefixed) || self.remove_extra_whitespaces {
                            out.extend("▁".as_bytes());
                            prefixed = true;
                        }
                    }
                    out.push(byte);
                } else {
                    in_word = false;
                    if !self.remove_extra_whitespaces {
                        out.extend("▁".as_bytes());
                    }
                }
            }
            at += taken;
        }
        out
    }

    /// What the text begins with, normalized, and how many bytes of it that was.
    fn normalized_prefix<'a>(&'a self, text: &'a [u8]) -> (&'a [u8], usize) {
        if let Some((length, _)) = self.user_defined.longest_prefix(text) {
            return (&text[..length], length);
        }
        if let Some((replacement, length)) = self.charsmap.as_ref().and_then(|map| map.find(text)) {
            return (replacement, length);
        }
        let length = utf8_length(text[0]).min(text.len());
        match std::str::from_utf8(&text[..length]) {
            Ok(_) => (&text[..length], length),
            Err(_) => ("\u{fffd}".as_bytes(), 1),
        }
    }
}

/// Sentencepiece's precompiled map of characters: a double array (darts-clone) whose leaves give
/// the offset of a replacement.
#[derive(Debug)]
struct CharsMap {
    units: Vec<u32>,
    replacements: Vec<u8>,
}

impl CharsMap {
    fn from_metadata(metadata: &Metadata) -> Result<Option<Self>, Error> {
        let bytes: Vec<u8> = match metadata.get(CHARSMAP).map(|value| value.as_array()) {
            None => return Ok(None),
            Some(Some(Array::U8(bytes))) => bytes.clone(),
            Some(Some(Array::I8(bytes))) => bytes.iter().map(|&byte| byte as u8).collect(),
            Some(_) => return Err(Error::invalid(CHARSMAP, "expected an array of bytes")),
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        let size = bytes
            .first_chunk()
            .map(|size| u32::from_le_bytes(*size) as usize);
        let parts = size.and_then(|size| bytes[4..].split_at_checked(size));
        let Some((units, replacements)) = parts else {
            return Err(Error::invalid(
                CHARSMAP,
                format!("{} bytes do not hold the table they announce", bytes.len()),
            ));
        };
        let units = units
            .chunks_exact(4)
            .map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]]))
            .collect();
        Ok(Some(Self {
            units,
            replacements: replacements.to_vec(),
        }))
    }

    /// The replacement for the longest mapped beginning of the text, and that beginning's length.
    fn find(&self, text: &[u8]) -> Option<(&[u8], usize)> {
        let base = |unit: u32| (unit >> 10) << ((unit & (1 << 9)) >> 6);
        let unit = |at: u32| self.units.get(at as usize).copied();
        let mut node = base(unit(0)?);
        let mut longest = None;
        for (at, &byte) in text.iter().enumerate() {
            if byte == 0 {
                break;
            }
            node ^= u32::from(byte);
            let Some(here) = unit(node) else { break };
            if here & (1 << 31 | 0xff) != u32::from(byte) {
                break;
            }
            node ^= base(here);
            if here >> 8 & 1 == 1
                && let Some(leaf) = unit(node)
            {
                longest = Some((leaf & !(1 << 31), at + 1));
            }
        }
        let (offset, length) = longest?;
        let from = self.replacements.get(offset as usize..)?;
        let end = from
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(from.len());
        Some((&from[..end], length))
    }
}
