//! What the id of a model says: organisation, base name, size, version, fine-tune.

/// How many parameters the model has, which tells a size from a context length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameters {
    pub(super) count: u64,
    /// Whether they are an adapter's: then the model's size may be any larger number.
    pub(super) adapter: bool,
}

impl Parameters {
    fn contradict(self, stated: f64) -> bool {
        let count = self.count as f64;
        let far = (count * 7.0 / 8.0).floor();
        match (self.count, self.adapter) {
            (0, _) => false,
            (_, true) => stated < (count / 8.0).floor(),
            (_, false) => (stated - count).abs() > far,
        }
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Kinds {
    basename: bool,
    size: bool,
    finetune: bool,
    version: bool,
    kind: bool,
}

impl Kinds {
    fn any(self) -> bool {
        self != Self::default()
    }
}

impl ModelId {
    /// Takes an id apart.
    pub(super) fn parse(id: &str, parameters: Parameters) -> Self {
        if id.contains(' ') {
            return Self {
                name: Some(id.to_owned()),
                ..Self::default()
            };
        }
        let (organization, name) = match id.split_once('/') {
            Some((organization, name)) => (Some(organization), name),
            None => (None, id),
        };
        // A path such as `./checkpoints` is no organisation.
        let organization = organization.filter(|o| !o.starts_with('.'));
        let mut parts: Vec<(String, Kinds)> = name
            .split('-')
            .filter(|part| !part.is_empty())
            .map(|part| (part.to_owned(), Kinds::default()))
            .collect();
        for (at, (part, kinds)) in parts.iter_mut().enumerate() {
            classify(at, part, kinds, parameters);
        }
        settle(&mut parts);
        let found = parts
            .iter()
            .any(|(_, kinds)| kinds.size || kinds.finetune || kinds.version);
        let join = |which: fn(&Kinds) -> bool| {
            let chosen: Vec<&str> = parts
                .iter()
                .filter(|(_, kinds)| which(kinds))
                .map(|(part, _)| part.as_str())
                .collect();
            (!chosen.is_empty()).then(|| chosen.join("-"))
        };
        Self {
            name: Some(name.to_owned()),
            organization: organization.map(ToOwned::to_owned),
            basename: join(|kinds| kinds.basename).filter(|_| found),
            finetune: join(|kinds| kinds.finetune),
            version: join(|kinds| kinds.version && !kinds.basename),
            size_label: sizes(&parts),
        }
    }
}

/// The sizes, each once, in order.
fn sizes(parts: &[(String, Kinds)]) -> Option<String> {
    let mut sizes: Vec<&str> = Vec::new();
    for (part, kinds) in parts {
        if kinds.size && !sizes.contains(&part.as_str()) {
            sizes.push(part);
        }
    }
    (!sizes.is_empty()).then(|| sizes.join("-"))
}

fn classify(at: usize, part: &mut String, kinds: &mut Kinds, parameters: Parameters) {
    if is_version(part) {
        kinds.version = true;
    } else if is_quantization(part) {
        kinds.kind = true;
        *part = part.to_uppercase();
    } else if at > 0
        && let Some((label, count)) = size(part)
    {
        *part = label;
        // A "size" far from the number of parameters is something else, mostly a context.
        if count.is_some_and(|count| parameters.contradict(count)) {
            kinds.finetune = true;
            *part = part.to_lowercase();
        } else {
            kinds.size = true;
        }
    } else if at > 0 && is_finetune(part) {
        if parameters.adapter && part.eq_ignore_ascii_case("lora") {
            kinds.kind = true;
        } else {
            kinds.finetune = true;
        }
    }
}

/// Decides what the parts that nothing was recognised in belong to.
fn settle(parts: &mut [(String, Kinds)]) {
    // Words such as `mini` yield to a number.
    let numeric = |part: &str| part.starts_with(|c: char| c.is_ascii_digit() || c == 'A');
    if parts
        .iter()
        .any(|(part, kinds)| kinds.size && numeric(part))
    {
        for (part, kinds) in parts.iter_mut() {
            if kinds.size && !numeric(part) {
                kinds.size = false;
                kinds.finetune = false;
            }
        }
    }
    // The leading parts are the base name.
    let mut at_start = true;
    for (part, kinds) in parts.iter_mut() {
        let letter = part.starts_with(|c: char| c.is_alphabetic());
        if at_start && ((!kinds.any() && letter) || kinds.version) {
            kinds.basename = true;
        } else {
            at_start = false;
        }
        if !kinds.any() {
            kinds.finetune = true;
        }
    }
    // A version at the end of the id is not part of the name.
    for (_, kinds) in parts.iter_mut().rev() {
        if !(kinds.basename && kinds.version) {
            break;
        }
        kinds.basename = false;
    }
}

/// `v0.1`, `2.5`, `iter3`.
fn is_version(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    let digits = lower
        .strip_prefix("iter")
        .or_else(|| lower.strip_prefix('v'))
        .unwrap_or(&lower);
    !digits.is_empty()
        && digits
            .split('.')
            .all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()))
}

/// `Q4_K_M`, `IQ2_XS`, `bf16`, `fp32`.
fn is_quantization(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    if let Some(rest) = lower.strip_prefix("iq").or_else(|| lower.strip_prefix('q')) {
        let mut groups = rest.split('_');
        let number = groups.next().unwrap_or_default();
        return !number.is_empty()
            && number.bytes().all(|b| b.is_ascii_digit())
            && groups.all(|g| !g.is_empty() && g.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
    let rest = lower.strip_prefix('b').unwrap_or(&lower);
    let rest = rest
        .strip_prefix('f')
        .map(|r| r.strip_prefix('p').unwrap_or(r));
    matches!(rest, Some("16" | "32"))
}

fn is_finetune(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    ["chat", "instruct", "vision", "lora"].contains(&lower.as_str())
}

/// A size as a label, and the number of parameters that it states.
fn size(part: &str) -> Option<(String, Option<f64>)> {
    let lower = part.to_ascii_lowercase();
    if ["small", "mini", "medium", "large", "xl", "xxl"].contains(&lower.as_str()) {
        return Some((part.to_owned(), None));
    }
    let (prefix, rest) = match lower.strip_prefix('a') {
        Some(rest) => ("A", rest),
        None => ("", lower.as_str()),
    };
    let (experts, rest) = match rest.split_once('x') {
        Some((experts, rest)) if !experts.is_empty() => (Some(experts), rest),
        _ => (None, rest),
    };
    if experts.is_some_and(|e| !e.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let unit_at = rest.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = rest.split_at(unit_at);
    let number = number.replace('_', ".");
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let mut groups = number.splitn(2, '.');
    if !groups.next().is_some_and(plain) || !groups.next().is_none_or(plain) {
        return None;
    }
    let mut letters = unit.chars();
    let letter = letters.next()?;
    let scale = match letter {
        'k' => 1e3,
        'm' => 1e6,
        'b' => 1e9,
        't' => 1e12,
        _ => return None,
    };
    // `7b1` is 7.1B.
    let fraction = letters.as_str();
    let number = match fraction.len() {
        0 => number,
        1 if fraction.bytes().all(|b| b.is_ascii_digit()) && !number.contains('.') => {
            format!("{number}.{fraction}")
        }
        _ => return None,
    };
    // What a mixture says of its experts or active parameters is not the total.
    let total = prefix.is_empty() && experts.is_none();
    let count = number.parse::<f64>().ok()? * scale;
    let experts = experts.map(|e| format!("{e}x")).unwrap_or_default();
    let label = format!("{prefix}{experts}{number}{}", letter.to_ascii_uppercase());
    Some((label, total.then_some(count)))
}

/// An id as a title: spaces for hyphens, words in lower case get a capital.
pub(super) fn title(id: &str) -> String {
    let words = id.trim().replace('-', " ");
    let words = words.split_whitespace().map(|word| {
        let lower = word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
        let version = word.starts_with('v') && is_version(word)
            || word.starts_with(|c: char| c.is_ascii_digit());
        if lower && !version {
            capitalised(word)
        } else {
            word.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// As Python's `str.title`: a capital after everything that is no letter.
fn capitalised(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut after_letter = false;
    for c in word.chars() {
        if after_letter {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        after_letter = c.is_alphabetic();
    }
    out
}

/// A number of parameters in three digits or so: `7.2B`, `13B`, `494M`.
pub(super) fn rounded(parameters: u64) -> String {
    let (scaled, unit) = match parameters {
        n if n > 1_000_000_000_000 => (n as f64 * 1e-12, 'T'),
        n if n > 1_000_000_000 => (n as f64 * 1e-9, 'B'),
        n if n > 1_000_000 => (n as f64 * 1e-6, 'M'),
        n => (n as f64 * 1e-3, 'K'),
    };
    let digits = format!("{}", scaled.round_ties_even() as u64)
        .trim_start_matches('0')
        .len();
    let decimals = 2usize.saturating_sub(digits);
    format!("{scaled:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
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
