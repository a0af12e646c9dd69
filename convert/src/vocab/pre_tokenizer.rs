//! The name for `tokenizer.ggml.pre`: by the hash of a published tokenizer, else by how the
//! checkpoint's own pre-tokenizer splits sample texts.

use std::sync::LazyLock;

use gristmill_gguf::schema::pretokenizer::{PRE_TOKENIZERS, PreTokenizer, Symbols, by_name};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokenizers::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper,
};

use super::files::{TOKENIZER_JSON, TokenizerConfig, TokenizerJson};
use super::known_hashes::{KNOWN, TEXT};
use super::{Error, Request};

/// The name.
pub(super) fn name(
    request: &Request<'_>,
    tokenizer: &TokenizerJson,
    config: Option<&TokenizerConfig>,
    warnings: &mut Vec<String>,
) -> Result<String, Error> {
    if let Some(name) = request.pre {
        return stated(name).map(str::to_owned);
    }
    if let Some(name) = by_hash(tokenizer) {
        return Ok(name.to_owned());
    }
    by_behaviour(request, tokenizer, config, warnings).map(str::to_owned)
}

/// The name the user gave, if there is such a pre-tokenizer.
pub(super) fn stated(name: &str) -> Result<&'static str, Error> {
    if let Some(rule) = by_name(name) {
        let known = rule.names.iter().find(|known| **known == name);
        return Ok(known.copied().unwrap_or(rule.names[0]));
    }
    let nearest = PRE_TOKENIZERS
        .iter()
        .flat_map(|rule| rule.names)
        .copied()
        .min_by_key(|known| distance(known, name))
        .unwrap_or("default");
    Err(Error::UnknownPreTokenizer {
        name: name.into(),
        nearest,
    })
}

/// Edits between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The name of a published tokenizer.
pub(super) fn by_hash(tokenizer: &TokenizerJson) -> Option<&'static str> {
    let tokenizer: tokenizers::Tokenizer = serde_json::from_value(tokenizer.json.clone()).ok()?;
    let encoding = tokenizer.encode_fast(TEXT, true).ok()?;
    let ids: Vec<_> = encoding.get_ids().iter().map(u32::to_string).collect();
    let hash = Sha256::digest(format!("[{}]", ids.join(", ")));
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    KNOWN
        .iter()
        .find(|(known, _)| *known == hash)
        .map(|(_, name)| *name)
}

/// Texts on which known pre-tokenizers differ.
const SAMPLES: &[&str] = &[
    "Hello world",
    " two  spaces and   three ",
    "tabs\t\tand\nlines\r\n\r\n  indented\n\n\nend ",
    "I've you'RE we'LL 'tis 'S don't I'm he'd",
    "1 12 123 1234 12345 123456 1234567",
    "a1b22c333d4444 x5",
    "12345abc 1234567.",
    "٣٤٥ ²³ ½ Ⅷ",
    "price: $12,345.67 (+3%) ~5",
    "foo_bar(baz)[0]->qux::new();\n",
    "// path/to/file\n/",
    "!!!???...---===",
    "#hashtag @user a.b.c \"quoted\" 'single' `code`",
    "<html>&amp;</html>",
    "CamelCaseWord XMLHttpRequest iPhone ABC",
    "naïve café ÉCOLE Straße ΑΒΓαβγ Привет МИР",
    "ÀàÉé ΣΑςα ДаНЕТ",
    "e\u{301}a\u{300} n\u{303}",
    "हिन्दी में लिखना",
    "我想在apple工作1314151天～",
    "ひらがなカタカナ漢字ｶﾅ",
    "한국어 텍스트 ㄱㄴ",
    "ภาษาไทย ກຂ កខ",
    "😀👍🏽 👨\u{200d}👩\u{200d}👧 🇩🇪",
    "a\u{a0}b\u{3000}c\u{2003}d",
    "。，、！？：；（）",
    "one، two۔ तीन।",
    "…“quoted”‘’—–",
    "\n \n\n \n\n\n \t \t\t",
    "word\n",
    "  \n  x",
    "x   ",
    "~`^|+<=>",
    "IMGIMGABCZ<sentinel:3>",
    "!important #define",
    " .start ;;\n\n",
    "a\r\nb\rc",
    "v1.2.3-rc4",
    "()[]{} /* c */\n\n//x/\n",
    "    four        eight",
    "we'told x'Very 'RExy",
    "x  12   3\t4",
    "a 5  \n 6",
];

/// The pieces of each sample.
type Pieces = Vec<Vec<&'static str>>;

/// What the known byte-level pre-tokenizers make of the samples.
static KNOWN_PIECES: LazyLock<Vec<(&PreTokenizer, Pieces)>> = LazyLock::new(|| {
    PRE_TOKENIZERS
        .iter()
        .filter(|rule| rule.symbols == Symbols::Bytes && !rule.names.contains(&"default"))
        .filter_map(|rule| {
            let splitter = splitter(rule).ok()?;
            let pieces = SAMPLES.iter().map(|text| pieces(&splitter, text));
            Some((rule, pieces.collect()))
        })
        .collect()
});

/// Share of samples on which a known pre-tokenizer must agree to be taken, with a warning, when
/// none agrees on all.
const NEARLY_ALL: f64 = 0.9;

fn by_behaviour(
    request: &Request<'_>,
    tokenizer: &TokenizerJson,
    config: Option<&TokenizerConfig>,
    warnings: &mut Vec<String>,
) -> Result<&'static str, Error> {
    let stated = &tokenizer.json["pre_tokenizer"];
    let own: PreTokenizerWrapper = serde_json::from_value(stated.clone())
        .map_err(|error| Error::file(TOKENIZER_JSON, format!("`pre_tokenizer`: {error}")))?;
    let own: Vec<_> = SAMPLES.iter().map(|text| pieces(&own, text)).collect();

    let mut best: Vec<(&PreTokenizer, Vec<usize>)> = Vec::new();
    for (rule, known) in &*KNOWN_PIECES {
        let differing: Vec<usize> = (0..SAMPLES.len())
            .filter(|&at| known[at] != own[at])
            .collect();
        match best.first().map(|(_, fewest)| fewest.len()) {
            Some(fewest) if differing.len() > fewest => continue,
            Some(fewest) if differing.len() < fewest => best.clear(),
            _ => {}
        }
        best.push((rule, differing));
    }
    let Some((nearest, differing)) = best.first() else {
        return Err(Error::Missing);
    };
    let nearest = nearest.names[0];
    if let Some(&at) = differing.first() {
        let known = KNOWN_PIECES.iter().find(|(rule, _)| *rule == best[0].0);
        let theirs = format!("{:?}", known.map_or(&Vec::new(), |(_, pieces)| &pieces[at]));
        let ours = format!("{:?}", own[at]);
        let agreeing = SAMPLES.len() - differing.len();
        if (agreeing as f64) < NEARLY_ALL * SAMPLES.len() as f64 {
            return Err(Error::PreTokenizer {
                nearest,
                sample: SAMPLES[at].into(),
                theirs,
                ours,
            });
        }
        warnings.push(format!(
            "the tokenizer splits text nearly as `{nearest}`, which is taken; they differ on {:?}: {ours} against {theirs}",
            SAMPLES[at]
        ));
    }
    let rules: Vec<_> = best.iter().map(|(rule, _)| *rule).collect();
    Ok(choose(&rules, request, tokenizer, config))
}

/// Of rules that split alike, the one that goes by the family's name, else the one whose flags fit.
fn choose(
    rules: &[&'static PreTokenizer],
    request: &Request<'_>,
    tokenizer: &TokenizerJson,
    config: Option<&TokenizerConfig>,
) -> &'static str {
    let family = family_name(request);
    if let Some(name) = rules
        .iter()
        .flat_map(|rule| rule.names)
        .find(|name| Some(**name) == family)
    {
        return name;
    }
    let ignores = tokenizer.flag("ignore_merges");
    let cleans = config.is_some_and(|config| config.0["clean_up_tokenization_spaces"] == true);
    // The first of the best: the table has general names first.
    rules
        .iter()
        .min_by_key(|rule| {
            (
                rule.ignore_merges != ignores,
                rule.add_sep,
                rule.clean_spaces != cleans,
            )
        })
        .map_or("default", |rule| rule.names[0])
}

/// The name under which an architecture's own tokenizer is published.
fn family_name(request: &Request<'_>) -> Option<&'static str> {
    Some(match request.architecture {
        "gpt2" => "gpt-2",
        "gptneox" | "mamba" | "mamba2" | "olmo" | "olmoe" => "olmo",
        "olmo2" => "dbrx",
        "mpt" => "mpt",
        "jais" => "jais",
        "phi2" => "phi-2",
        "exaone" => "exaone",
        "exaone4" => "exaone4",
        "modern-bert" => "modern-bert",
        "bert" => "roberta-bpe",
        "falcon-h1" => "falcon-h1",
        "lfm2" | "lfm2moe" => "lfm2",
        "chatglm" => "chatglm-bpe",
        "glm4" | "glm4moe" | "glm-dsa" => "glm4",
        "starcoder" | "starcoder2" => "starcoder",
        "granite" | "granitemoe" | "granitehybrid" | "granite_swa" | "refact" => "refact",
        "codeshell" => "codeshell",
        "command-r" | "cohere2" => "command-r",
        "stablelm" => "stablelm2",
        "dbrx" => "dbrx",
        "hunyuan-moe" => "hunyuan",
        "hunyuan-dense" => "hunyuan-dense",
        "llama4" => "llama4",
        "minimax-m2" => "minimax-m2",
        "grok" => "grok-2",
        "bailingmoe" => "bailingmoe",
        "bailingmoe2" => "bailingmoe2",
        "bloom" => "bloom",
        _ => return None,
    })
}

/// The texts of the pieces.
fn pieces<'t>(splitter: &PreTokenizerWrapper, text: &'t str) -> Vec<&'t str> {
    let mut pieces = PreTokenizedString::from(text);
    if splitter.pre_tokenize(&mut pieces).is_err() {
        return Vec::new();
    }
    pieces
        .get_splits(OffsetReferential::Original, OffsetType::Byte)
        .into_iter()
        .filter_map(|(_, (from, to), _)| text.get(from..to))
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// A known rule as a pre-tokenizer of the library that also runs the checkpoint's.
fn splitter(rule: &PreTokenizer) -> Result<PreTokenizerWrapper, Error> {
    let splits = rule.splits.iter().map(|regex| {
        json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
    });
    let bytes = |use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": use_regex
        })
    };
    let steps: Vec<_> = if rule.names == ["falcon"] {
        // Published with the bytes spelled in the middle: digits are then cut among the letters
        // that spell them, which makes no difference to its own vocabulary.
        vec![
            json!({"type": "Punctuation", "behavior": "Contiguous"}),
            bytes(true),
            json!({"type": "Digits", "individual_digits": false}),
            json!({"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": false}),
        ]
    } else {
        splits.chain([bytes(false)]).collect()
    };
    serde_json::from_value(json!({"type": "Sequence", "pretokenizers": steps}))
        .map_err(|error| Error::file(rule.names[0], error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_tell_all_rules_apart() {
        let byte_level = PRE_TOKENIZERS
            .iter()
            .filter(|rule| rule.symbols == Symbols::Bytes)
            .count();
        // All compile, but for `default`, which no file has.
        assert_eq!(KNOWN_PIECES.len(), byte_level - 1);
        let mut alike = Vec::new();
        for (at, (rule, pieces)) in KNOWN_PIECES.iter().enumerate() {
            for (other, theirs) in &KNOWN_PIECES[..at] {
                if pieces == theirs && rule.splits != other.splits {
                    alike.push((rule.names[0], other.names[0]));
                }
            }
        }
        assert!(alike.is_empty(), "{alike:?}");
    }

    #[test]
    fn a_wrong_name_suggests_the_nearest() {
        let error = stated("llama-bep").unwrap_err();
        assert_eq!(error.help().unwrap(), "did you mean `llama-bpe`?");
        assert_eq!(stated("qwen2").unwrap(), "qwen2");
    }
}
