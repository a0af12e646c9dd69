//! Byte-pair encoding by ranked merges, over bytes or over characters.

use std::borrow::Cow;

use gristmill_gguf::schema::pretokenizer::{PreTokenizer, Symbols};
use gristmill_gguf::{Array, Metadata};

use super::Error;
use super::byte_letters::{bytes, letter};
use super::merge::Merger;
use super::split::Splitter;
use super::vocabulary::{FastMap, TokenKind, Vocabulary};

const MERGES: &str = "tokenizer.ggml.merges";

/// A symbol that no merge knows.
const FOREIGN: u32 = u32::MAX;

/// A byte-pair encoder. Its symbols are numbered like the tokens of the same text; texts that occur
/// in merges only have numbers after those.
#[derive(Debug)]
pub(super) struct Bpe {
    splitter: Splitter,
    symbols: Symbols,
    /// By pair of symbols: rank and result.
    merges: FastMap<(u32, u32), (u32, u32)>,
    /// The symbol of each byte, for byte-level encoders.
    byte_symbols: [u32; 256],
    /// The token `<0xXX>` of each byte, for encoders over characters.
    byte_tokens: [Option<u32>; 256],
    /// Words that are tokens as a whole, if merging is skipped for them.
    whole_words: Option<FastMap<Box<[u8]>, u32>>,
    tokens: u32,
}

impl Bpe {
    pub fn new(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        rule: &PreTokenizer,
    ) -> Result<Self, Error> {
        let merges = metadata.get(MERGES).ok_or(Error::Missing {
            key: MERGES,
            needed: "byte-pair tokenizers consist of them",
        })?;
        let merges = merges
            .as_array()
            .and_then(Array::as_strings)
            .ok_or_else(|| Error::invalid(MERGES, "expected an array of strings"))?;
        let mut interner = Interner {
            vocabulary,
            others: FastMap::default(),
        };
        let mut table = FastMap::with_capacity_and_hasher(merges.len(), Default::default());
        let mut joined = Vec::new();
        for (rank, merge) in (0u32..).zip(merges) {
            // The first character may itself be a space.
            let Some(space) = merge.iter().skip(1).position(|&byte| byte == b' ') else {
                return Err(Error::invalid(
                    format!("{MERGES}[{rank}]"),
                    format!("expected two parts, found `{merge}`"),
                ));
            };
            let (left, right) = (&merge[..space + 1], &merge[space + 2..]);
            joined.clear();
            joined.extend_from_slice(left);
            joined.extend_from_slice(right);
            let pair = (interner.id(left), interner.id(right));
            let result = interner.id(&joined);
            table.entry(pair).or_insert((rank, result));
        }
        let byte_symbols =
            std::array::from_fn(|byte| interner.id(letter(byte as u8).to_string().as_bytes()));
        let whole_words = rule.ignore_merges.then(|| {
            vocabulary
                .iter()
                .filter(|&(id, _)| vocabulary.kind(id) == TokenKind::Normal)
                .filter_map(|(id, text)| {
                    let raw = match rule.symbols {
                        Symbols::Bytes => bytes(std::str::from_utf8(text).ok()?)?,
                        _ => text.to_vec(),
                    };
                    Some((raw.into(), id))
                })
                .collect()
        });
        Ok(Self {
            splitter: Splitter::new(rule.splits)
                .map_err(|reason| Error::invalid("tokenizer.ggml.pre", reason))?,
            symbols: rule.symbols,
            merges: table,
            byte_symbols,
            byte_tokens: vocabulary.byte_tokens(),
            whole_words,
            tokens: vocabulary.len() as u32,
        })
    }

    /// Appends the tokens of a text. Bytes that are no UTF-8 are read as U+FFFD each.
    pub fn encode(
        &self,
        text: &[u8],
        vocabulary: &Vocabulary,
        merger: &mut Merger<u32>,
        out: &mut Vec<u32>,
    ) {
        let mut text = valid(text);
        if self.symbols == Symbols::SpacedCharacters && text.contains(' ') {
            text = text.replace(' ', "▁").into();
        }
        for place in self.splitter.words(&text) {
            let word = &text[place];
            if let Some(id) = self.whole(word, vocabulary) {
                out.push(id);
                continue;
            }
            merger.clear();
            match self.symbols {
                Symbols::Bytes => {
                    for byte in word.bytes() {
                        merger.push(self.byte_symbols[usize::from(byte)], 1);
                    }
                }
                Symbols::SpacedCharacters | Symbols::Characters => {
                    let mut utf8 = [0; 4];
                    for c in word.chars() {
                        let bytes = c.encode_utf8(&mut utf8).as_bytes();
                        let id = vocabulary.id(bytes).unwrap_or(FOREIGN);
                        merger.push(id, bytes.len() as u32);
                    }
                }
            }
            merger.run(|a, b| self.merges.get(&(a.id, b.id)).copied());
            for symbol in merger.symbols() {
                if symbol.id < self.tokens {
                    out.push(symbol.id);
                } else {
                    let from = symbol.start as usize;
                    let bytes = &word.as_bytes()[from..from + symbol.length as usize];
                    self.spell(bytes, vocabulary, out);
                }
            }
        }
    }

    fn whole(&self, word: &str, vocabulary: &Vocabulary) -> Option<u32> {
        if let Some(words) = &self.whole_words {
            return words.get(word.as_bytes()).copied();
        }
        // Runs of line ends are looked up whole where lines are the words.
        (self.symbols == Symbols::SpacedCharacters && word.starts_with('\n'))
            .then(|| vocabulary.id(word.as_bytes()))
            .flatten()
    }

    /// Bytes that no token covers: byte tokens where the vocabulary has them, else nothing.
    fn spell(&self, bytes: &[u8], vocabulary: &Vocabulary, out: &mut Vec<u32>) {
        for &byte in bytes {
            let token = match self.symbols {
                Symbols::Bytes if byte.is_ascii_graphic() => vocabulary.id(&[byte]),
                Symbols::Bytes => None,
                _ => self.byte_tokens[usize::from(byte)],
            };
            out.extend(token);
        }
    }
}

/// Numbers texts.
struct Interner<'a> {
    vocabulary: &'a Vocabulary,
    others: FastMap<Box<[u8]>, u32>,
}

impl Interner<'_> {
    fn id(&mut self, text: &[u8]) -> u32 {
        if let Some(id) = self.vocabulary.id(text) {
            return id;
        }
        let next = (self.vocabulary.len() + self.others.len()) as u32;
        *self.others.entry(text.into()).or_insert(next)
    }
}

/// Text with U+FFFD in place of each byte that is no UTF-8.
fn valid(text: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(text) {
        Ok(text) => text.into(),
        Err(_) => {
            let mut out = String::with_capacity(text.len());
            for chunk in text.utf8_chunks() {
                out.push_str(chunk.valid());
                out.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
            }
            out.into()
        }
    }
}
