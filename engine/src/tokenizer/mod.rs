//! Tokenizers, rebuilt from a GGUF file's metadata alone.
//!
//! [`Tokenizer::encode`] turns text into token ids as llama.cpp does with the same file: special
//! tokens are found first, what lies between them goes through the kind's own algorithm. All kinds
//! take time proportional to the text (times the logarithm of a word's length), however long its
//! words and runs of spaces are.

mod bpe;
mod byte_letters;
mod chat;
mod decode;
mod error;
mod merge;
mod rwkv;
mod special;
mod split;
mod spm;
mod trie;
mod unicode;
mod unigram;
mod vocabulary;
mod wordpiece;

use std::collections::HashSet;

use gristmill_gguf::Metadata;
use gristmill_gguf::schema::pretokenizer::{self, PreTokenizer};

use bpe::Bpe;
use merge::Merger;
use rwkv::Rwkv;
use special::{Part, Partitioner, find_roles};
use spm::Spm;
use unigram::Unigram;
use vocabulary::Vocabulary;
use wordpiece::WordPiece;

pub use chat::{ChatError, ChatTemplate, Message};
pub use error::Error;
pub use special::SpecialIds;
pub use vocabulary::TokenKind;

/// Text to token ids and back.
#[derive(Debug)]
pub struct Tokenizer {
    vocabulary: Vocabulary,
    algorithm: Algorithm,
    partitioner: Partitioner,
    special: SpecialIds,
    ends: HashSet<u32>,
    add_bos: bool,
    add_eos: bool,
    add_sep: bool,
    add_space_prefix: bool,
    clean_spaces: bool,
    /// Named templates; the default one has no name.
    templates: Vec<(Option<String>, String)>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one a model")]
enum Algorithm {
    Bpe(Bpe, &'static PreTokenizer),
    Spm(Spm),
    WordPiece(WordPiece),
    Unigram(Unigram),
    Rwkv(Rwkv),
}

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";

/// What a kind of tokenizer does unless the file says otherwise.
struct Defaults {
    special: SpecialIds,
    add_bos: bool,
    add_eos: bool,
    add_sep: bool,
    add_space_prefix: bool,
    clean_spaces: bool,
}

impl Defaults {
    fn new(kind: &str, rule: Option<&PreTokenizer>) -> Self {
        let special = match kind {
            "llama" => SpecialIds {
                bos: Some(1),
                eos: Some(2),
                unknown: Some(0),
                ..SpecialIds::default()
            },
            "bert" => SpecialIds {
                bos: Some(101),
                unknown: Some(100),
                separator: Some(102),
                padding: Some(0),
                mask: Some(103),
                ..SpecialIds::default()
            },
            "t5" => SpecialIds {
                eos: Some(1),
                unknown: Some(2),
                padding: Some(0),
                ..SpecialIds::default()
            },
            "rwkv" => SpecialIds::default(),
            _ => SpecialIds {
                bos: Some(11),
                eos: Some(11),
                ..SpecialIds::default()
            },
        };
        Self {
            special,
            add_bos: match kind {
                "llama" | "bert" | "gemma4" => true,
                _ => rule.is_some_and(|rule| rule.add_bos),
            },
            add_eos: kind == "t5",
            add_sep: kind == "bert" || rule.is_some_and(|rule| rule.add_sep),
            add_space_prefix: kind == "llama" || kind == "t5",
            clean_spaces: kind == "bert" || rule.is_some_and(|rule| rule.clean_spaces),
        }
    }
}

impl Tokenizer {
    /// Rebuilds the tokenizer that the metadata describes.
    ///
    /// # Errors
    /// If a key is missing or of another type, or names something unknown.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, Error> {
        let kind = metadata.str(MODEL).ok_or(Error::Missing {
            key: MODEL,
            needed: "it names the kind of tokenizer",
        })?;
        let rule = match kind {
            "gpt2" => Some(pre_tokenizer(metadata)?),
            "gemma4" => Some(named("gemma4")?),
            "llama" | "bert" | "t5" | "rwkv" => None,
            "none" | "no_vocab" => return Err(Error::None),
            other => return Err(Error::UnknownModel(other.into())),
        };
        let defaults = Defaults::new(kind, rule);
        let mut vocabulary = Vocabulary::from_metadata(metadata)?;
        let mut special = SpecialIds::from_metadata(defaults.special, metadata, vocabulary.len());
        let ends = find_roles(metadata, &mut vocabulary, &mut special);
        let flag = |name: &str, default| {
            metadata
                .bool(format!("tokenizer.ggml.{name}"))
                .unwrap_or(default)
        };
        let add_space_prefix = flag("add_space_prefix", defaults.add_space_prefix);
        let unknown = special.unknown.unwrap_or(0);
        let algorithm = match (kind, rule) {
            (_, Some(rule)) => Algorithm::Bpe(Bpe::new(metadata, &vocabulary, rule)?, rule),
            ("bert", _) => Algorithm::WordPiece(WordPiece::new(metadata, &vocabulary, unknown)),
            ("t5", _) => Algorithm::Unigram(Unigram::new(
                metadata,
                &vocabulary,
                unknown,
                add_space_prefix,
            )?),
            ("rwkv", _) => Algorithm::Rwkv(Rwkv::new(&vocabulary, unknown)),
            _ => Algorithm::Spm(Spm::new(&vocabulary, special.unknown)),
        };
        Ok(Self {
            partitioner: Partitioner::new(metadata, &vocabulary)?,
            algorithm,
            vocabulary,
            special,
            ends,
            add_bos: kind == "gemma4" || flag("add_bos_token", defaults.add_bos),
            add_eos: flag("add_eos_token", defaults.add_eos),
            add_sep: flag("add_sep_token", defaults.add_sep),
            add_space_prefix,
            clean_spaces: defaults.clean_spaces,
            templates: chat::stored(metadata),
        })
    }

    /// The token ids of a text, which need not be valid UTF-8.
    ///
    /// `add_special` adds the tokens around a text that the file asks for (BOS, EOS, CLS, SEP).
    /// With `parse_special` the texts of control tokens inside the text are read as those tokens;
    /// without, as plain text.
    pub fn encode(
        &self,
        text: impl AsRef<[u8]>,
        add_special: bool,
        parse_special: bool,
    ) -> Vec<u32> {
        let text = text.as_ref();
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        // BERT's tokens around a text are no matter of flags.
        let encloses = matches!(self.algorithm, Algorithm::WordPiece(_));
        let never = matches!(self.algorithm, Algorithm::Rwkv(_));
        if add_special && !never && (self.add_bos || encloses) {
            out.extend(self.special.bos);
        }
        let mut scratch = Scratch::default();
        let mut after_special = true;
        for part in self.partitioner.parts(text, parse_special) {
            match part {
                Part::Token(id) => {
                    out.push(id);
                    after_special = true;
                }
                Part::Text(range) => {
                    self.encode_plain(&text[range], after_special, &mut scratch, &mut out);
                    after_special = false;
                }
            }
        }
        if add_special && encloses {
            out.extend(self.special.separator);
        } else if add_special && !never && self.add_eos {
            out.extend(self.special.eos);
        }
        out
    }

    /// A text without special tokens.
    fn encode_plain(
        &self,
        text: &[u8],
        after_special: bool,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        match &self.algorithm {
            Algorithm::Bpe(bpe, _) => {
                bpe.encode(text, &self.vocabulary, &mut scratch.ranked, out);
            }
            Algorithm::Spm(spm) => {
                scratch.text.clear();
                if self.add_space_prefix && after_special {
                    scratch.text.extend("▁".as_bytes());
                }
                for &byte in text {
                    match byte {
                        b' ' => scratch.text.extend("▁".as_bytes()),
                        byte => scratch.text.push(byte),
                    }
                }
                spm.encode(&scratch.text, &self.vocabulary, &mut scratch.scored, out);
            }
            Algorithm::WordPiece(wordpiece) => wordpiece.encode(text, out),
            Algorithm::Unigram(unigram) => unigram.encode(text, &self.vocabulary, out),
            Algorithm::Rwkv(rwkv) => rwkv.encode(text, out),
        }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.vocabulary.len()
    }

    /// Whether there are no tokens; a tokenizer always has some.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ids of the tokens with a role.
    pub fn special(&self) -> SpecialIds {
        self.special
    }

    /// Whether a token ends a generation.
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The kind of a token.
    pub fn kind(&self, id: u32) -> TokenKind {
        self.vocabulary.kind(id)
    }

    /// Whether BOS is added before a text.
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether EOS is added after a text.
    pub fn adds_eos(&self) -> bool {
        self.add_eos
    }

    /// Whether a separator is added between the texts of a pair.
    pub fn adds_separator(&self) -> bool {
        self.add_sep
    }
}

/// Working memory of an encoding.
#[derive(Default)]
struct Scratch {
    ranked: Merger<u32>,
    scored: Merger<spm::Priority>,
    text: Vec<u8>,
}

fn named(name: &str) -> Result<&'static PreTokenizer, Error> {
    pretokenizer::by_name(name).ok_or_else(|| Error::UnknownPreTokenizer(name.into()))
}

/// The rule that the file names. Files without the key are old; they get the rule that llama.cpp
/// gives them.
fn pre_tokenizer(metadata: &Metadata) -> Result<&'static PreTokenizer, Error> {
    named(metadata.str(PRE).unwrap_or("default"))
}
