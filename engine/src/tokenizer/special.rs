//! Special tokens: their roles, and where they stand in a text.

use std::collections::HashSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};
use gristmill_gguf::Metadata;

use super::Error;
use super::vocabulary::{TokenKind, Vocabulary};

/// Ids of the tokens with a role; `None` where the vocabulary has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SpecialIds {
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    pub separator: Option<u32>,
    pub padding: Option<u32>,
    pub mask: Option<u32>,
    pub end_of_turn: Option<u32>,
    pub end_of_message: Option<u32>,
}

impl SpecialIds {
    /// The defaults of a kind of tokenizer, with what the file states over them. Ids beyond the
    /// vocabulary are ignored.
    pub(super) fn from_metadata(defaults: Self, metadata: &Metadata, size: usize) -> Self {
        let id = |name: &str, default: Option<u32>| {
            metadata
                .u64(format!("tokenizer.ggml.{name}_token_id"))
                .and_then(|id| u32::try_from(id).ok())
                .filter(|&id| (id as usize) < size)
                .or(default.filter(|&id| (id as usize) < size))
        };
        Self {
            bos: id("bos", defaults.bos),
            eos: id("eos", defaults.eos),
            unknown: id("unknown", defaults.unknown),
            // The format's spelling, and the right one.
            separator: id("seperator", id("separator", defaults.separator)),
            padding: id("padding", defaults.padding),
            mask: id("mask", defaults.mask),
            end_of_turn: id("eot", None),
            end_of_message: id("eom", None),
        }
    }
}

const END_OF_TURN: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

const END_OF_MESSAGE: &[&str] = &["<|eom_id|>"];

/// Roles of fill-in-the-middle, whose tokens are control tokens whatever the file says: the key
/// that may state the id, and texts.
const FILL_IN: &[(&str, &[&str])] = &[
    (
        "fim_pre",
        &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
    ),
    (
        "fim_suf",
        &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
    ),
    (
        "fim_mid",
        &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
    ),
    (
        "fim_pad",
        &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
    ),
    (
        "fim_rep",
        &[
            "<|fim_repo|>",
            "<|repo_name|>",
            "<fim-repo>",
            "<REPO>",
            "<reponame>",
        ],
    ),
    ("fim_sep", &["<|file_sep|>"]),
];

/// Texts that end a generation, besides the tokens with such a role.
const END_OF_GENERATION: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Finds the roles that the file does not state by the tokens' texts, as llama.cpp does, and makes
/// those tokens control tokens. Returns the ids that end a generation.
pub(super) fn find_roles(
    metadata: &Metadata,
    vocabulary: &mut Vocabulary,
    special: &mut SpecialIds,
) -> HashSet<u32> {
    let mut first = |texts: &[&str]| {
        let id = texts
            .iter()
            .filter_map(|text| vocabulary.id(text.as_bytes()))
            .min()?;
        vocabulary.set_kind(id, TokenKind::Control);
        Some(id)
    };
    special.end_of_turn = special.end_of_turn.or_else(|| first(END_OF_TURN));
    special.end_of_message = special.end_of_message.or_else(|| first(END_OF_MESSAGE));
    for (key, texts) in FILL_IN {
        if !metadata.contains(format!("tokenizer.ggml.{key}_token_id")) {
            first(texts);
        }
    }
    let mut ends: HashSet<u32> = END_OF_GENERATION
        .iter()
        .filter_map(|text| vocabulary.id(text.as_bytes()))
        .collect();
    for &id in &ends {
        vocabulary.set_kind(id, TokenKind::Control);
    }
    ends.extend(
        [special.eos, special.end_of_turn, special.end_of_message]
            .into_iter()
            .flatten(),
    );
    // Harmony (gpt-oss): `<|end|>` ends a message of several, and the marks of its channels are to
    // be seen by whoever reads the text.
    let id = |text: &str| vocabulary.id(text.as_bytes());
    if let (Some(_), Some(_), Some(end)) = (id("<|return|>"), id("<|call|>"), id("<|end|>")) {
        ends.remove(&end);
        for text in ["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"] {
            if let Some(id) = vocabulary.id(text.as_bytes()) {
                vocabulary.set_kind(id, TokenKind::UserDefined);
            }
        }
    }
    let id = |text: &str| vocabulary.id(text.as_bytes());
    if let Some(end) = id("</s>")
        && (id("<|tool_response>").is_some() || id("<|plamo:eos|>").is_some())
    {
        ends.remove(&end);
        vocabulary.set_kind(end, TokenKind::Normal);
    }
    ends
}

/// A stretch of a text between special tokens, or one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(Range<usize>),
    Token(u32),
}

/// Finds special tokens in texts.
#[derive(Debug)]
pub(super) struct Partitioner {
    finder: Option<AhoCorasick>,
    tokens: Vec<SpecialToken>,
}

#[derive(Debug)]
struct SpecialToken {
    id: u32,
    length: usize,
    /// Recognised only where special tokens are asked for.
    only_special: bool,
    strips_left: bool,
    strips_right: bool,
}

impl Partitioner {
    pub fn new(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Self, Error> {
        let mut tokens = Vec::new();
        let mut texts = Vec::new();
        for (id, text) in vocabulary.iter() {
            let only_special = match vocabulary.kind(id) {
                TokenKind::Control | TokenKind::Unknown => true,
                TokenKind::UserDefined => false,
                _ => continue,
            };
            texts.push(text);
            tokens.push(SpecialToken {
                id,
                length: text.len(),
                only_special,
                strips_left: false,
                strips_right: false,
            });
        }
        let finder = (!texts.is_empty())
            .then(|| {
                AhoCorasick::builder()
                    .match_kind(MatchKind::Standard)
                    .build(&texts)
            })
            .transpose()
            .map_err(|error| Error::invalid("tokenizer.ggml.tokens", error.to_string()))?;
        let mut partitioner = Self { finder, tokens };
        partitioner.set_stripping(metadata, vocabulary);
        Ok(partitioner)
    }

    /// Which special tokens swallow the spaces beside them. The format has no key for it; llama.cpp
    /// goes by the names of the models that do.
    fn set_stripping(&mut self, metadata: &Metadata, vocabulary: &Vocabulary) {
        let pre = metadata.str("tokenizer.ggml.pre").unwrap_or_default();
        let architecture = metadata.str("general.architecture").unwrap_or_default();
        let name = metadata
            .str("general.name")
            .unwrap_or_default()
            .to_lowercase();
        let strips_mask = ["jina-v2-de", "jina-v2-es", "jina-v2-code"].contains(&pre)
            || ["nomic-bert-moe", "jina-bert-v3"].contains(&architecture);
        let mask = if strips_mask {
            vocabulary.id(b"<mask>")
        } else if name.contains("modern-bert") {
            vocabulary.id(b"[MASK]")
        } else {
            None
        };
        let phi3 = name.contains("phi-3") || name.contains("phi3");
        for token in &mut self.tokens {
            token.strips_left = Some(token.id) == mask;
            let plain: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];
            token.strips_right = phi3 && !plain.contains(&vocabulary.text(token.id));
        }
    }

    /// Cuts a text at its special tokens. Longer tokens go first, wherever they stand; among those
    /// of one length the smaller id, then the leftmost place.
    pub fn parts(&self, text: &[u8], parse_special: bool) -> Vec<Part> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        if let Some(finder) = &self.finder {
            for hit in finder.find_overlapping_iter(text) {
                let token = hit.pattern().as_usize();
                if parse_special || !self.tokens[token].only_special {
                    found.push((token, hit.start()));
                }
            }
        }
        found.sort_by_key(|&(token, start)| {
            (std::cmp::Reverse(self.tokens[token].length), token, start)
        });
        let mut taken: std::collections::BTreeMap<usize, usize> = std::collections::BTreeMap::new();
        for (token, start) in found {
            let end = start + self.tokens[token].length;
            let before = taken.range(..end).next_back();
            let free =
                before.is_none_or(|(&other, &which)| other + self.tokens[which].length <= start);
            if free {
                taken.insert(start, token);
            }
        }
        let mut parts = Vec::new();
        let mut from = 0;
        let push_text = |range: Range<usize>, parts: &mut Vec<Part>| {
            if !range.is_empty() {
                parts.push(Part::Text(range));
            }
        };
        for (start, token) in taken {
            let token = &self.tokens[token];
            let mut end = start;
            if token.strips_left {
                end = from + text[from..start].trim_ascii_end().len();
            }
            push_text(from..end, &mut parts);
            parts.push(Part::Token(token.id));
            from = start + token.length;
            if token.strips_right {
                from = text.len() - text[from..].trim_ascii_start().len();
            }
        }
        if from < text.len() {
            push_text(from..text.len(), &mut parts);
        }
        parts
    }
}
