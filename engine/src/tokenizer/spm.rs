//! Sentencepiece's byte-pair encoding: neighbours whose text is a token merge, the highest score
//! first; what stays uncovered is spelled in byte tokens.

use std::cmp::Reverse;

use super::merge::Merger;
use super::vocabulary::Vocabulary;

/// `▁`, which stands for a space.
const SPACE: &[u8] = "▁".as_bytes();

/// Scores in the order in which merges are done: the highest is the smallest.
pub(super) type Priority = Reverse<OrderedScore>;

/// A score with a total order.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrderedScore(f32);

impl PartialEq for OrderedScore {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OrderedScore {}

impl PartialOrd for OrderedScore {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedScore {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Zeros of either sign are one score.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

/// A sentencepiece encoder.
#[derive(Debug)]
pub(super) struct Spm {
    byte_tokens: [Option<u32>; 256],
    unknown: Option<u32>,
    /// Last bytes of characters that some token has before a `▁`. At a `▁` after any other byte no
    /// merge can cross, so that the text falls into words there.
    before_space: [bool; 256],
    longest: usize,
}

impl Spm {
    pub fn new(vocabulary: &Vocabulary, unknown: Option<u32>) -> Self {
        let mut before_space = [false; 256];
        let mut longest = 0;
        for (_, text) in vocabulary.iter() {
            longest = longest.max(text.len());
            for at in 1..text.len() {
                if text[at..].starts_with(SPACE) {
                    before_space[usize::from(text[at - 1])] = true;
                }
            }
        }
        Self {
            byte_tokens: vocabulary.byte_tokens(),
            unknown,
            before_space,
            longest,
        }
    }

    /// Appends the tokens of a text whose spaces are spelled `▁`.
    pub fn encode(
        &self,
        text: &[u8],
        vocabulary: &Vocabulary,
        merger: &mut Merger<Priority>,
        out: &mut Vec<u32>,
    ) {
        let mut from = 0;
        let mut at = 0;
        // By characters: bytes that are no UTF-8 may swallow the first of a `▁`.
        while at < text.len() {
            at += utf8_length(text[at]).min(text.len() - at);
            let boundary = at == text.len()
                || (text[at..].starts_with(SPACE) && !self.before_space[usize::from(text[at - 1])]);
            if boundary {
                self.encode_word(&text[from..at], vocabulary, merger, out);
                from = at;
            }
        }
    }

    fn encode_word(
        &self,
        word: &[u8],
        vocabulary: &Vocabulary,
        merger: &mut Merger<Priority>,
        out: &mut Vec<u32>,
    ) {
        merger.clear();
        let mut at = 0;
        while at < word.len() {
            let length = utf8_length(word[at]).min(word.len() - at);
            merger.push(
                vocabulary.id(&word[at..at + length]).unwrap_or(u32::MAX),
                length as u32,
            );
            at += length;
        }
        merger.run(|a, b| {
            let (from, length) = (a.start as usize, (a.length + b.length) as usize);
            if length > self.longest {
                return None;
            }
            let id = vocabulary.id(&word[from..from + length])?;
            Some((Reverse(OrderedScore(vocabulary.score(id))), id))
        });
        for symbol in merger.symbols() {
            if symbol.id != u32::MAX {
                out.push(symbol.id);
                continue;
            }
            let from = symbol.start as usize;
            for &byte in &word[from..from + symbol.length as usize] {
                out.extend(self.byte_tokens[usize::from(byte)].or(self.unknown));
            }
        }
    }
}

/// How many bytes a character takes that begins with this byte; 1 for bytes that begin none.
pub(super) fn utf8_length(first: u8) -> usize {
    match first {
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
        _ => 1,
    }
}
