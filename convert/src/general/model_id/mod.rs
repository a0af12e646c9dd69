//! What the id of a model says: organisation, base name, size, version, fine-tune.
//!
//! An id is a row of words between hyphens. Each word is read by a small grammar into a
//! [`Word`]; which part of the id it belongs to follows from its kind and its place.

mod grammar;

use std::borrow::Cow;

use grammar::Cursor;

/// How many parameters the model has, which tells a size from a context length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameters {
    pub(super) count: u64,
    /// Whether they are an adapter's: then the model's size may be any larger number.
    pub(super) adapter: bool,
}

impl Parameters {
    /// Of a model that nothing is known of.
    pub(super) const UNKNOWN: Self = Self {
        count: 0,
        adapter: false,
    };

    /// Whether a number in the id may be that of the parameters: not below an eighth of it, and
    /// not above it by more than it could be below.
    fn allow(self, stated: f64) -> bool {
        if self.count == 0 {
            return true;
        }
        let least = self.count.div_ceil(8);
        let most = if self.adapter {
            f64::INFINITY
        } else {
            (2 * u128::from(self.count) - u128::from(least)) as f64
        };
        (least as f64..=most).contains(&stated)
    }
}

/// The parts of a model's id such as `meta-llama/Llama-3.2-1B-Instruct`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ModelId {
    pub(super) name: Option<String>,
    pub(super) organization: Option<String>,
    pub(super) basename: Option<String>,
    pub(super) finetune: Option<String>,
    pub(super) version: Option<String>,
    pub(super) size_label: Option<String>,
}

impl ModelId {
    /// Takes an id apart. One with a space is a plain name.
    pub(super) fn parse(id: &str, parameters: Parameters) -> Self {
        if id.contains(' ') {
            return Self {
                name: Some(id.to_owned()),
                ..Self::default()
            };
        }
        let (organization, name) = match id.split_once('/') {
            // A path such as `./checkpoints` is no organisation.
            Some((organization, name)) => {
                let organization = (!organization.starts_with('.')).then_some(organization);
                (organization, name)
            }
            None => (None, id),
        };
        Self {
            name: Some(name.to_owned()),
            organization: organization.map(ToOwned::to_owned),
            ..Self::from_words(words(name, parameters))
        }
    }

    fn from_words(words: Vec<Word<'_>>) -> Self {
        let base = base_length(&words);
        let telling =
            |word: &Word<'_>| matches!(word, Word::Size(..) | Word::Tuning(_) | Word::Version(_));
        let annotated = words.iter().any(telling);
        let (head, tail) = words.split_at(base);

        let basename: Vec<&str> = head.iter().filter_map(Word::text).collect();
        let (mut finetune, mut version) = (Vec::new(), Vec::new());
        let mut sizes: Vec<&str> = Vec::new();
        for word in tail {
            match word {
                Word::Version(text) => version.push(*text),
                Word::Tuning(text) => finetune.push(&**text),
                Word::Other(text) => finetune.push(*text),
                Word::Size(_, label) if !sizes.contains(&&**label) => sizes.push(label),
                Word::Size(..) | Word::Aside => {}
            }
        }
        let joined = |words: &[&str]| (!words.is_empty()).then(|| words.join("-"));
        Self {
            basename: joined(&basename).filter(|_| annotated),
            finetune: joined(&finetune),
            version: joined(&version),
            size_label: joined(&sizes),
            ..Self::default()
        }
    }
}

/// What a word of an id says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word<'a> {
    Version(&'a str),
    /// A size, as the label that is written for it.
    Size(Magnitude, Cow<'a, str>),
    Tuning(Cow<'a, str>),
    /// How the weights are stored, or what kind of file this is: nothing about the model.
    Aside,
    Other(&'a str),
}

/// How a size is stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Magnitude {
    Number,
    /// A word such as `mini`.
    Named,
}

impl<'a> Word<'a> {
    /// The word as it can stand in a base name.
    fn text(&self) -> Option<&str> {
        match self {
            Self::Version(text) | Self::Other(text) => Some(text),
            Self::Size(..) | Self::Tuning(_) | Self::Aside => None,
        }
    }

    /// Reads a word; the `first` one of an id is a name whatever else it looks like, but for
    /// versions and encodings.
    fn read(word: &'a str, first: bool, parameters: Parameters) -> Self {
        if Cursor(word).version().is_some() {
            return Self::Version(word);
        }
        if Cursor(word).encoding().is_some() {
            return Self::Aside;
        }
        if first {
            return Self::Other(word);
        }
        let is_one_of = |known: &[&str]| known.iter().any(|known| word.eq_ignore_ascii_case(known));
        if let Some(size) = Cursor(word).size() {
            let label = size.label();
            // A number far from that of the parameters is something else, mostly a context.
            return match size.total() {
                Some(total) if !parameters.allow(total) => {
                    Self::Tuning(label.to_lowercase().into())
                }
                _ => Self::Size(Magnitude::Number, label.into()),
            };
        }
        if is_one_of(&["small", "mini", "medium", "large", "xl", "xxl"]) {
            return Self::Size(Magnitude::Named, word.into());
        }
        if parameters.adapter && is_one_of(&["lora"]) {
            return Self::Aside;
        }
        if is_one_of(&["chat", "instruct", "vision", "lora"]) {
            return Self::Tuning(word.into());
        }
        Self::Other(word)
    }
}

/// The words of a name. Where a number states the size, words such as `mini` do not.
fn words(name: &str, parameters: Parameters) -> Vec<Word<'_>> {
    let parts = name.split('-').filter(|part| !part.is_empty());
    let mut words: Vec<Word<'_>> = parts
        .enumerate()
        .map(|(at, part)| Word::read(part, at == 0, parameters))
        .collect();
    let numbered = words
        .iter()
        .any(|word| matches!(word, Word::Size(Magnitude::Number, _)));
    if numbered {
        for word in &mut words {
            if let Word::Size(Magnitude::Named, Cow::Borrowed(text)) = *word {
                *word = Word::Other(text);
            }
        }
    }
    words
}

/// How many of the first words are the base name: plain words and versions among them, without
/// the versions that end the id.
fn base_length(words: &[Word<'_>]) -> usize {
    let names = |word: &Word<'_>| match word {
        Word::Version(_) => true,
        Word::Other(text) => text.starts_with(char::is_alphabetic),
        Word::Size(..) | Word::Tuning(_) | Word::Aside => false,
    };
    let length = words.iter().take_while(|word| names(word)).count();
    if length < words.len() {
        return length;
    }
    let versions = words.iter().rev();
    let versions = versions.take_while(|word| matches!(word, Word::Version(_)));
    length - versions.count()
}

/// An id as a title: spaces for hyphens, words in lower case get a capital, but for numbers and
/// versions.
pub(super) fn title(id: &str) -> String {
    let mut title = String::with_capacity(id.len());
    let words = id.split(|c: char| c == '-' || c.is_whitespace());
    for word in words.filter(|word| !word.is_empty()) {
        if !title.is_empty() {
            title.push(' ');
        }
        let number = word.starts_with(|c: char| c.is_ascii_digit())
            || word.starts_with('v') && Cursor(word).version().is_some();
        let lower = word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
        if number || !lower {
            title.push_str(word);
            continue;
        }
        // A capital after everything that is no letter.
        let mut inside = false;
        for c in word.chars() {
            if inside {
                title.push(c);
            } else {
                title.extend(c.to_uppercase());
            }
            inside = c.is_alphabetic();
        }
    }
    title
}

/// A number of parameters in two digits, or three without a fraction: `7.2B`, `13B`, `494M`.
pub(super) fn rounded(parameters: u64) -> String {
    const UNITS: [(u64, f64, char); 3] = [
        (1_000_000_000_000, 1e-12, 'T'),
        (1_000_000_000, 1e-9, 'B'),
        (1_000_000, 1e-6, 'M'),
    ];
    let unit = UNITS.into_iter().find(|(above, ..)| parameters > *above);
    let (scale, unit) = unit.map_or((1e-3, 'K'), |(_, scale, unit)| (scale, unit));
    let scaled = parameters as f64 * scale;
    let whole = scaled.round_ties_even();
    let decimals = if whole < 1.0 {
        2
    } else {
        usize::from(whole < 10.0)
    };
    format!("{scaled:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ids, parameters and what the reference makes of them.
    const IDS: &str = "\
meta-llama/Llama-3.2-1B-Instruct | 1235814432 | meta-llama | Llama-3.2 | Instruct | - | 1B
mistralai/Mixtral-8x7B-Instruct-v0.1 | 46702792704 | mistralai | Mixtral | Instruct | v0.1 | 8x7B
Qwen/Qwen2.5-7B-Instruct | 7615616512 | Qwen | Qwen2.5 | Instruct | - | 7B
Qwen/Qwen3-30B-A3B | 30532122624 | Qwen | Qwen3 | - | - | 30B-A3B
Qwen/Qwen3-235B-A22B-Instruct-2507 | 235093634560 | Qwen | Qwen3 | Instruct | 2507 | 235B-A22B
microsoft/Phi-3-mini-4k-instruct | 3821079552 | microsoft | Phi-3 | 4k-instruct | - | mini
microsoft/Phi-3.5-mini-instruct | 3821079552 | microsoft | Phi-3.5 | instruct | - | mini
google/gemma-2-9b-it | 9241705984 | google | gemma-2 | it | - | 9B
google/gemma-3-4b-it | 4300079472 | google | gemma-3 | it | - | 4B
openai/gpt-oss-20b | 20914757184 | openai | gpt-oss | - | - | 20B
deepseek-ai/DeepSeek-V3-0324 | 671026419200 | deepseek-ai | DeepSeek | - | V3-0324 | -
deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B | 1777088000 | deepseek-ai | DeepSeek-R1-Distill-Qwen | - | - | 1.5B
mistralai/Mistral-7B-Instruct-v0.3 | 7248023552 | mistralai | Mistral | Instruct | v0.3 | 7B
mistralai/Mistral-Small-3.1-24B-Instruct-2503 | 23572403200 | mistralai | Mistral-Small-3.1 | Instruct | 2503 | 24B
HuggingFaceTB/SmolLM2-135M-Instruct | 134515008 | HuggingFaceTB | SmolLM2 | Instruct | - | 135M
tiiuae/Falcon-H1-0.5B-Base | 521411104 | tiiuae | Falcon-H1 | Base | - | 0.5B
bartowski/Some-Model-7B-v2-GGUF | 7000000000 | bartowski | Some-Model | GGUF | v2 | 7B
TheBloke/Nous-Hermes-Llama2-70B-fp16 | 70000000000 | TheBloke | Nous-Hermes-Llama2 | - | - | 70B
NousResearch/Yarn-Llama-2-13b-128k | 13015864320 | NousResearch | Yarn-Llama-2 | 128k | - | 13B
bigscience/bloom-7b1-petals | 7069016064 | bigscience | bloom | petals | - | 7.1B
01-ai/Yi-1.5-34B-Chat-16K | 34388917248 | 01-ai | Yi-1.5 | Chat-16k | - | 34B
ibm-granite/granite-3.1-8b-instruct | 8170864640 | ibm-granite | granite-3.1 | instruct | - | 8B
LiquidAI/LFM2-1.2B | 1170340608 | LiquidAI | LFM2 | - | - | 1.2B
BAAI/bge-small-en-v1.5 | 33360000 | BAAI | bge | en | v1.5 | small
CohereForAI/c4ai-command-r-plus | 103810674688 | CohereForAI | - | - | - | -
NousResearch/Hermes-2-Theta-Llama-3-8B | 8030261312 | NousResearch | Hermes-2-Theta-Llama-3 | - | - | 8B
stabilityai/stablelm-2-1_6b-chat | 1644515328 | stabilityai | stablelm-2 | chat | - | 1.6B
Tiny-Llama-3.2-7B-Instruct-v0.2 | 6800000 | - | Tiny-Llama-3.2 | 7b-Instruct | v0.2 | -
my finetune | 1000 | - | - | - | - | -
model | 7000000000 | - | - | - | - | -
allenai/OLMoE-1B-7B-0924 | 6919161856 | allenai | OLMoE | - | 0924 | 1B-7B";

    #[test]
    fn ids_as_the_reference_takes_them_apart() {
        for line in IDS.lines() {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let parameters = Parameters {
                count: fields[1].parse().unwrap(),
                adapter: false,
            };
            let id = ModelId::parse(fields[0], parameters);
            let got = [
                id.organization,
                id.basename,
                id.finetune,
                id.version,
                id.size_label,
            ];
            let got = got.map(|part| part.unwrap_or_else(|| "-".into()));
            assert_eq!(got[..], fields[2..], "{line}");
        }
    }

    #[test]
    fn words_are_read_by_their_form() {
        let read = |word| Word::read(word, false, Parameters::UNKNOWN);
        for version in ["v1", "V0.1", "2.5", "iter3", "2507", "1.2.3"] {
            assert_eq!(read(version), Word::Version(version));
        }
        for encoding in ["Q4_K_M", "iq2_xxs", "q8", "f16", "BF16", "fp32", "bfp16"] {
            assert_eq!(read(encoding), Word::Aside, "{encoding}");
        }
        for (size, label) in [
            ("7b", "7B"),
            ("0.5B", "0.5B"),
            ("1_6b", "1.6B"),
            ("7b1", "7.1B"),
            ("8X22b", "8x22B"),
            ("a3b", "A3B"),
            ("128k", "128K"),
            ("1T", "1T"),
        ] {
            let expected = Word::Size(Magnitude::Number, label.into());
            assert_eq!(read(size), expected, "{size}");
        }
        assert_eq!(read("XL"), Word::Size(Magnitude::Named, "XL".into()));
        assert_eq!(read("CHAT"), Word::Tuning("CHAT".into()));
        for other in [
            "v", "1.", ".1", "b", "x7b", "7x", "8xA3B", "a8x7B", "7b12", "1.5b2", "7bb", "f8", "q",
            "Q4_", "q4-", "pico", "é7b",
        ] {
            assert_eq!(read(other), Word::Other(other));
        }
    }

    #[test]
    fn sizes_far_from_the_parameters_are_something_else() {
        let size = |count, adapter| {
            let parameters = Parameters { count, adapter };
            ModelId::parse("m-8k", parameters).size_label
        };
        let bounds = [
            (64_000, true),
            (64_001, false),
            (4_267, true),
            (4_266, false),
        ];
        for (count, allowed) in bounds {
            assert_eq!(size(count, false).is_some(), allowed, "{count}");
        }
        // An adapter is smaller than its model.
        assert_eq!(size(64_001, true), None);
        assert_eq!(size(10, true).as_deref(), Some("8K"));
        let lora = Parameters {
            count: 10,
            adapter: true,
        };
        assert_eq!(ModelId::parse("m-8B-LoRA", lora).finetune, None);
    }

    proptest! {
        /// What is put together in the usual order comes apart again.
        #[test]
        fn composed_ids_come_apart(
            base in "[A-Z][a-z]{1,6}(-[A-Z][a-z]{2,6}){0,2}",
            size in "[1-9][0-9]?(\\.[0-9])?B",
            finetune in "(Chat|Instruct|Zeta(-Chat)?)?",
            version in "(v[0-9]\\.[0-9]|2[0-9]{3})?",
        ) {
            let parts = [&*base, &*size, &*finetune, &*version];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            let id = ModelId::parse(&format!("org/{}", parts.join("-")), Parameters::UNKNOWN);
            let given = |part: String| Some(part).filter(|part| !part.is_empty());
            // A base name may hold words that mean something by themselves.
            let known = ["Chat", "Mini", "Small", "Large", "Medium", "Lora", "Vision", "Instruct"];
            prop_assume!(!base.split('-').any(|word| known.contains(&word) || word == "Xl" || word == "Xxl"));
            prop_assert_eq!(id.organization, given("org".into()));
            prop_assert_eq!(id.basename, given(base));
            prop_assert_eq!(id.size_label, given(size));
            prop_assert_eq!(id.finetune, given(finetune));
            prop_assert_eq!(id.version, given(version));
        }

        /// Nothing is made up: every word of a part is a word of the id.
        #[test]
        fn parts_are_words_of_the_id(id in "[a-zA-Z0-9._é-]{0,24}") {
            let parsed = ModelId::parse(&id, Parameters::UNKNOWN);
            let parts = [parsed.basename, parsed.finetune, parsed.version];
            for word in parts.iter().flatten().flat_map(|part| part.split('-')) {
                prop_assert!(id.split('-').any(|own| own == word), "{} in {}", word, id);
            }
        }

        /// A label states the number to two digits at least.
        #[test]
        fn labels_are_near(parameters in 1_000u64..2_000_000_000_000) {
            let label = rounded(parameters);
            let (number, unit) = label.split_at(label.len() - 1);
            let scale = ["K", "M", "B", "T"].iter().position(|u| *u == unit).unwrap();
            let stated = number.parse::<f64>().unwrap() * 1e3f64.powi(scale as i32 + 1);
            prop_assert!((stated / parameters as f64 - 1.0).abs() < 0.056, "{}", label);
        }
    }

    #[test]
    fn labels_as_the_reference_rounds_them() {
        for (parameters, label) in [
            (134_515_008, "135M"),
            (494_032_768, "494M"),
            (1_235_814_432, "1.2B"),
            (7_615_616_512, "7.6B"),
            (13_015_864_320, "13B"),
            (70_553_706_496, "71B"),
            (671_026_419_200, "671B"),
            (1_040_000_000_000, "1.0T"),
            (999_999, "1000K"),
            (9_500, "10K"),
            (999_500_000, "1000M"),
        ] {
            assert_eq!(rounded(parameters), label, "{parameters}");
        }
        assert_eq!(title("Tiny-Llama-2-0.1M-chat"), "Tiny Llama 2 0.1M Chat");
        assert_eq!(title("Phi-tiny-128k-instruct"), "Phi Tiny 128k Instruct");
    }
}
