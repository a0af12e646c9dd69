//! How text is split before byte-pair merging, by the name in `tokenizer.ggml.pre`.
//!
//! A rule is a list of regular expressions that are applied one after the other: each splits every
//! piece of the text into its matches and what lies between them. The expressions are those of the
//! published tokenizers; llama.cpp approximates some of them (upper and lower case beyond ASCII),
//! which matters to neither side's known test strings. Source: llama.cpp `src/llama-vocab.cpp` and
//! the tokenizers' own files.

/// What a merging tokenizer takes as its smallest symbols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symbols {
    /// Bytes, spelled with GPT-2's printable letters.
    Bytes,
    /// Characters, spaces spelled `▁`, unknown ones as byte tokens `<0xXX>`.
    SpacedCharacters,
    /// Characters as they are.
    Characters,
}

/// One way of splitting, and what else hangs on the name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreTokenizer {
    /// Names with exactly these rules.
    pub names: &'static [&'static str],
    /// Regular expressions, applied in sequence. Beyond the common syntax: `(?!\S)` at the end of
    /// an alternative, and the whole expressions of [`digit_groups`].
    pub splits: &'static [&'static str],
    /// The smallest symbols.
    pub symbols: Symbols,
    /// A word that is a token as a whole is taken without merging.
    pub ignore_merges: bool,
    /// Whether a beginning-of-sequence token is added when the file does not say.
    pub add_bos: bool,
    /// Whether a separator is added when the file does not say.
    pub add_sep: bool,
    /// Whether spaces before punctuation are removed from decoded text.
    pub clean_spaces: bool,
}

/// Expressions for grouping digits by three from the right, which no common syntax covers.
pub mod digit_groups {
    /// Runs of `\d` that end at a word boundary.
    pub const BEFORE_BOUNDARY: &str = r"\d{1,3}(?=(?:\d{3})*\b)";
    /// All runs of digits.
    pub const ALL: &str = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))";
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const DIGIT: &str = r"\p{N}";
const DIGITS: &str = r"\p{N}+";
const THREE_DIGITS: &str = r"\p{N}{1,3}";
const THREE_ASCII_DIGITS: &str = "[0-9][0-9][0-9]";

macro_rules! contraction {
    () => {
        "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
    };
}
const LLAMA3: &str = concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN35: &str = concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const MINICPM5: &str = concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const SEED: &str = concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const UFAKZEKA: &str =
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const EXAONE_MOE: &str = concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
);
const JAIS2: &str = concat!(
    contraction!(),
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
    r"|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)",
    r"|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
);

macro_rules! cased_words {
    ($and:literal, $contraction:expr) => {
        concat!(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}",
            $and,
            r"]*[\p{Ll}\p{Lm}\p{Lo}\p{M}",
            $and,
            "]+",
            $contraction,
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}",
            $and,
            r"]+[\p{Ll}\p{Lm}\p{Lo}\p{M}",
            $and,
            "]*",
            $contraction
        )
    };
}
const GPT4O: &str = concat!(
    cased_words!("", concat!(contraction!(), "?")),
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const YOUTU: &str = concat!(
    cased_words!("", concat!(contraction!(), "?")),
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    cased_words!("", ""),
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const KIMI: &str = concat!(
    r"[\p{Han}]+|",
    cased_words!(r"&&[^\p{Han}]", concat!(contraction!(), "?")),
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

const CJK: &str = "[一-龥\u{3040}-\u{309f}゠-\u{30ff}]+";
const DEEPSEEK_V3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const SPARK: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
);
const AFMOE_SCRIPTS: &str = concat!(
    "[一-鿿㐀-䶿豈-\u{faff}\u{3040}-\u{309f}゠-\u{30ff}\u{ff65}-\u{ff9f}\u{2f00}-\u{2fdf}เ-\u{e7f}",
    "\u{e80}-\u{eff}ក-\u{17ff}က-႟ꩠ-ꩿꧠ-\u{a9ff}가-\u{d7af}ᄀ-ᇿ]+"
);
const YOUTU_SCRIPTS: &str = concat!(
    "[가-힣\u{3131}-\u{318e}]+|[\u{ff01}\u{2026}“”‘’—\u{ff1a}\u{ff1b}\u{ff0c}、-〿\u{fe30}-\u{fe4f}",
    "]+|[ㄅ-ㄯ]+|[一-龥\u{3040}-\u{309f}゠-\u{30ff}]+"
);
const DEEPSEEK_LETTERS: &str = concat!(
    "\\s?[A-Za-z\u{b5}À-ÖØ-öø-ƺƼ-ƿ\u{1c4}-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-\u{3f5}Ϸ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽ",
    "Ა-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u{1f7d}ᾀ-ᾴᾶ-ᾼ\u{1fbe}ῂ-ῄῆ-ῌῐ-\u{1fd3}ῖ-\u{1fdb}ῠ-",
    "Ῥῲ-ῴῶ-ῼ\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}",
    "\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}\u{213c}-\u{213f}\u{2145}-\u{2149}ⅎↃↄⰀ-ⱻⱾ-ⳤ",
    "Ⳬ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿ\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}",
    "𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
);
const DEEPSEEK_PUNCTUATION: &str = "\\s?[!-/:-~\u{ff01}-\u{ff0f}\u{ff1a}-\u{ff5e}‘-‟\u{3000}-。]+";
const DEEPSEEK_CJK: &str = "[一-龥ࠀ-一가-\u{d7ff}]+";
const NOT_SENTENCE_MARKS: &str = " ?[^(\\s|.,!?\u{2026}。\u{ff0c}、।۔،)]+";
const FALCON_MARKS: &str = r"[\p{P}\$\+<=>\^~\|`]+";
const LINES: &str = r"[^\n]+|[\n]+";

/// The plain kind: byte-level, nothing special.
const PLAIN: PreTokenizer = PreTokenizer {
    names: &[],
    splits: &[],
    symbols: Symbols::Bytes,
    ignore_merges: false,
    add_bos: false,
    add_sep: false,
    clean_spaces: false,
};

const fn plain(names: &'static [&'static str], splits: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer {
        names,
        splits,
        ..PLAIN
    }
}

const fn cleaning(names: &'static [&'static str], splits: &'static [&'static str]) -> PreTokenizer {
    PreTokenizer {
        clean_spaces: true,
        ..plain(names, splits)
    }
}

const fn ignoring_merges(rule: PreTokenizer) -> PreTokenizer {
    PreTokenizer {
        ignore_merges: true,
        ..rule
    }
}

const fn adding_bos(rule: PreTokenizer) -> PreTokenizer {
    PreTokenizer {
        add_bos: true,
        ..rule
    }
}

const fn with_symbols(rule: PreTokenizer, symbols: Symbols) -> PreTokenizer {
    PreTokenizer { symbols, ..rule }
}

/// All rules. Among rules with the same splits, the most general name stands first.
pub const PRE_TOKENIZERS: &[PreTokenizer] = &[
    cleaning(
        &[
            "gpt-2",
            "olmo",
            "mpt",
            "phi-2",
            "exaone4",
            "modern-bert",
            "jais",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "jina-v2-de",
            "jina-v2-es",
            "jina-de",
            "jina-es",
        ],
        &[GPT2],
    ),
    plain(&["trillion", "granite-docling"], &[GPT2]),
    PreTokenizer {
        add_sep: true,
        ..cleaning(&["roberta-bpe", "jina-v1-en", "jina-v2-code"], &[GPT2])
    },
    adding_bos(ignoring_merges(cleaning(
        &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        &[LLAMA3],
    ))),
    cleaning(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    ignoring_merges(cleaning(&["glm4", "glm5"], &[LLAMA3])),
    plain(
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "hunyuan",
            "grok-2",
            "solar-open",
            "kormo",
            "f2llmv2",
            // Written differently, with the same matches.
            "bailingmoe",
            "bailingmoe2",
            "llada-moe",
        ],
        &[QWEN2],
    ),
    cleaning(&["stablelm2", "megrez"], &[QWEN2]),
    plain(&["qwen35"], &[QWEN35]),
    cleaning(
        &[
            "starcoder",
            "refact",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        &[DIGIT, GPT2],
    ),
    plain(&["smollm", "command-r"], &[DIGIT, GPT2]),
    cleaning(&["falcon"], &[FALCON_MARKS, GPT2, THREE_ASCII_DIGITS]),
    plain(
        &["deepseek-llm"],
        &[
            r"[\r\n]",
            DEEPSEEK_LETTERS,
            DEEPSEEK_PUNCTUATION,
            r"\s+$",
            DEEPSEEK_CJK,
            DIGITS,
        ],
    ),
    plain(
        &["deepseek-coder"],
        &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, DIGIT],
    ),
    plain(
        &["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"],
        &[THREE_DIGITS, CJK, DEEPSEEK_V3],
    ),
    plain(&["spark2_5"], &[THREE_DIGITS, CJK, SPARK, DIGIT]),
    adding_bos(ignoring_merges(plain(&["tekken"], &[TEKKEN]))),
    plain(
        &["gpt-4o", "llama4", "minimax-m2", "kanana2", "talkie"],
        &[GPT4O],
    ),
    ignoring_merges(plain(&["granite-embed-multi-97m"], &[GPT4O])),
    plain(
        &["tiny_aya", "cohere2moe"],
        &[digit_groups::BEFORE_BOUNDARY, GPT4O],
    ),
    plain(&["seed-coder"], &[SEED]),
    cleaning(&["exaone-moe"], &[EXAONE_MOE]),
    cleaning(&["jais-2"], &[JAIS2]),
    ignoring_merges(cleaning(&["minicpm5"], &[THREE_DIGITS, MINICPM5])),
    plain(&["laguna"], &[LINES, QWEN2]),
    plain(&["ufakzeka"], &[UFAKZEKA]),
    // The second expression of the published tokenizer matches between characters only and so
    // splits nothing here.
    plain(&["superbpe"], &[DIGITS]),
    cleaning(&["bloom", "gpt3-finnish"], &[NOT_SENTENCE_MARKS]),
    plain(&["poro-chat"], &[NOT_SENTENCE_MARKS]),
    plain(&["viking"], &[NOT_SENTENCE_MARKS, DIGIT]),
    ignoring_merges(plain(&["youtu"], &[YOUTU_SCRIPTS, YOUTU])),
    plain(&["afmoe"], &[digit_groups::ALL, AFMOE_SCRIPTS, DEEPSEEK_V3]),
    plain(&["kimi-k2"], &[KIMI]),
    adding_bos(plain(
        &["chameleon"],
        &[
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ],
    )),
    with_symbols(
        cleaning(&["gemma4", "granite-embed-multi-311m"], &[LINES]),
        Symbols::SpacedCharacters,
    ),
    with_symbols(plain(&["sarvam-moe"], &[LINES]), Symbols::SpacedCharacters),
    with_symbols(cleaning(&["whitespace"], &[r"\S+"]), Symbols::Characters),
    cleaning(
        &["default"],
        &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, DIGITS, THREE_ASCII_DIGITS],
    ),
];

/// The rule of this name.
pub fn by_name(name: &str) -> Option<&'static PreTokenizer> {
    PRE_TOKENIZERS
        .iter()
        .find(|rule| rule.names.contains(&name))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_name_stands_once() {
        let mut seen = HashSet::new();
        for name in PRE_TOKENIZERS.iter().flat_map(|rule| rule.names) {
            assert!(seen.insert(name), "{name} twice");
        }
        assert!(by_name("llama-bpe").is_some_and(|rule| rule.ignore_merges));
        assert!(by_name("no such name").is_none());
    }
}
