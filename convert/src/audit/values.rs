//! Values that name a part of the graph: one that no graph has is refused.

use gristmill_gguf::Metadata;
use serde_json::Value as Json;

use crate::Error;
use crate::config::Config;

/// Activations that graphs are built with, by architecture. Those that are not listed
/// have one of the known ones.
const ACTIVATIONS: &[(Activation, &[&str])] = &[
    (
        Activation::Silu,
        &[
            "afmoe",
            "bitnet",
            "cohere2",
            "cohere2moe",
            "command-r",
            "deepseek",
            "deepseek2",
            "dots1",
            "ernie4_5",
            "ernie4_5-moe",
            "eurobert",
            "exaone",
            "exaone4",
            "falcon-h1",
            "glm4",
            "glm4moe",
            "granite",
            "granitehybrid",
            "granite_swa",
            "granitemoe",
            "hunyuan-dense",
            "hunyuan-moe",
            "hunyuan_vl",
            "hy_v3",
            "internlm2",
            "jamba",
            "laguna",
            "lfm2",
            "lfm2moe",
            "llama",
            "llama4",
            "mamba",
            "mamba2",
            "mellum",
            "mimo2",
            "minicpm",
            "minicpm3",
            "minimax-m2",
            "olmo",
            "olmo2",
            "olmoe",
            "paddleocr",
            "phi3",
            "phimoe",
            "qwen2",
            "qwen2moe",
            "qwen3",
            "qwen3moe",
            "qwen35",
            "qwen35moe",
            "qwen3next",
            "seed_oss",
            "smollm3",
            "stablelm",
        ],
    ),
    (
        Activation::Gelu,
        &[
            "bert",
            "bloom",
            "falcon",
            "gemma",
            "gemma2",
            "gemma3",
            "gemma3n",
            "gemma4",
            "gpt2",
            "gptneox",
            "mpt",
            "phi2",
            "starcoder",
            "starcoder2",
        ],
    ),
    (
        Activation::SquaredRelu,
        &["arcee", "jais2", "nemotron", "nemotron_h", "nemotron_h_moe"],
    ),
    (Activation::Xielu, &["apertus"]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activation {
    Silu,
    Gelu,
    Relu,
    SquaredRelu,
    Xielu,
}

/// Names that configurations have for activations; the approximations of GELU are one.
const NAMES: [(&str, Activation); 16] = [
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("swiglu", Activation::Silu),
    ("swigluoai", Activation::Silu),
    ("gelu", Activation::Gelu),
    ("gelu_new", Activation::Gelu),
    ("gelu_fast", Activation::Gelu),
    ("fast_gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_pytorch_tanh", Activation::Gelu),
    ("geglu", Activation::Gelu),
    ("relu", Activation::Relu),
    ("relu2", Activation::SquaredRelu),
    ("relu_squared", Activation::SquaredRelu),
    ("squared_relu", Activation::SquaredRelu),
    ("xielu", Activation::Xielu),
];

impl Activation {
    fn named(name: &str) -> Option<Self> {
        let found = NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, activation)| *activation)
    }
}

/// Fields that name the activation, the one that counts first.
const ACTIVATION_FIELDS: [&str; 6] = [
    "hidden_activation",
    "hidden_act",
    "activation_function",
    "mlp_hidden_act",
    "feed_forward_proj",
    "activation",
];

/// Kinds of rotary scaling that become keys or tensors, or mean none.
const ROPE_TYPES: [&str; 11] = [
    "default",
    "none",
    "linear",
    "yarn",
    "llama3",
    "longrope",
    "su",
    "mrope",
    "xdrope",
    "proportional",
    "dynamic",
];

/// Fields whose values (or lists of them) name parts of the graph, and the names that are known.
const KINDS: [(&str, &[&str]); 3] = [
    (
        "layer_types",
        &[
            "attention",
            "chunked_attention",
            "conv",
            "deepseek_sparse_attention",
            "full_attention",
            "hybrid",
            "indexed_attention",
            "linear_attention",
            "mamba",
            "mamba2",
            "minimax_m3_sparse",
            "mlp",
            "moe",
            "qwen_sparse_attention",
            "sliding_attention",
            "sparse_attention",
        ],
    ),
    ("mlp_layer_types", &["dense", "sparse"]),
    (
        "topk_method",
        &["greedy", "group_limited_greedy", "noaux_tc"],
    ),
];

/// Whether a field's value is judged here.
pub(super) fn is_judged(field: &str) -> bool {
    ACTIVATION_FIELDS.contains(&field) || KINDS.iter().any(|(known, _)| *known == field)
}

/// Refuses values for which the graph would compute something else than the model.
///
/// # Errors
/// If the activation, the rotary scaling or a kind of layer is unknown, or the activation is not the
/// architecture's.
pub(crate) fn refuse(config: &Config, architecture: &'static str) -> Result<(), Error> {
    let unknown = |field: &str, value: &str, known: Vec<&str>| {
        Err(Error::Unsupported {
            architecture,
            field: field.to_owned(),
            value: value.to_owned(),
            known: known.join(", "),
        })
    };
    let scaling = config.rope_type();
    if !ROPE_TYPES.contains(&scaling) {
        return unknown("rope_type", scaling, ROPE_TYPES.to_vec());
    }
    for (field, known) in KINDS {
        let values = match config.stated(field) {
            Some(Json::Array(list)) => list.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        let mut names = values.iter().filter_map(Json::as_str);
        if let Some(name) = names.find(|name| !known.contains(name)) {
            return unknown(field, name, known.to_vec());
        }
    }
    let stated = ACTIVATION_FIELDS
        .iter()
        .find_map(|field| Some((*field, config.stated(field)?.as_str()?)));
    let Some((field, name)) = stated.filter(|(field, _)| !config.is_heeded(field)) else {
        return Ok(());
    };
    // T5's gate decides which of its two activations it has.
    let (gate, plain) = match name.strip_prefix("gated-") {
        Some(plain) => (true, plain),
        None => (false, name),
    };
    let expected = match architecture {
        "t5" | "t5encoder" if gate => Some(Activation::Gelu),
        "t5" | "t5encoder" => Some(Activation::Relu),
        _ => ACTIVATIONS
            .iter()
            .find(|(_, architectures)| architectures.contains(&architecture))
            .map(|(activation, _)| *activation),
    };
    let fits = match (Activation::named(plain), expected) {
        (None, _) => false,
        (Some(found), Some(expected)) => found == expected,
        (Some(_), None) => true,
    };
    if fits {
        return Ok(());
    }
    let known = NAMES
        .iter()
        .filter(|(_, activation)| expected.is_none_or(|expected| *activation == expected));
    unknown(field, name, known.map(|(name, _)| *name).collect())
}

/// A warning for a rotary scaling of a known kind that neither a file's keys nor its tensors carry.
pub(crate) fn unheeded_scaling(
    config: &Config,
    architecture: &str,
    metadata: &Metadata,
    has_tensor: impl Fn(&str) -> bool,
) -> Option<String> {
    let scaling = config.rope_type();
    let carried = match scaling {
        "linear" | "yarn" => {
            metadata.str(format!("{architecture}.rope.scaling.type")) == Some(scaling)
        }
        "llama3" => has_tensor("rope_freqs.weight"),
        "longrope" | "su" => has_tensor("rope_factors_long.weight"),
        // Only with an alpha does a dynamic scaling have a fixed base.
        "dynamic" => config.rope("alpha").is_some(),
        _ => true,
    };
    let fact = format!("the rotary scaling is `{scaling}`");
    (!carried).then(|| super::unheeded_fact(&fact, architecture))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(architecture: &'static str, config: Json) -> String {
        match refuse(&Config::new(&config), architecture) {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_scaling_that_the_file_does_not_carry_is_named() {
        let named = |kind: &str, stated: Option<&str>, tensors: &[&str]| {
            let config = json!({"rope_scaling": {"rope_type": kind, "factor": 2.0}});
            let mut metadata = Metadata::new();
            if let Some(stated) = stated {
                metadata.set("llama.rope.scaling.type", stated);
            }
            unheeded_scaling(&Config::new(&config), "llama", &metadata, |name| {
                tensors.contains(&name)
            })
            .is_some()
        };
        assert!(!named("linear", Some("linear"), &[]));
        assert!(named("yarn", Some("none"), &[]));
        assert!(named("linear", None, &[]));
        assert!(!named("llama3", None, &["rope_freqs.weight"]));
        assert!(named("llama3", None, &[]));
        assert!(named("longrope", None, &[]));
        assert!(named("dynamic", None, &[]));
        assert!(!named("default", None, &[]));
    }

    #[test]
    fn what_no_graph_computes_is_refused_with_what_is_known() {
        for (architecture, config) in [
            ("llama", json!({"hidden_act": "my_own"})),
            ("llama", json!({"hidden_act": "gelu"})),
            ("jina-bert-v2", json!({"hidden_act": "my_own"})),
            ("t5", json!({"feed_forward_proj": "gelu"})),
            (
                "llama",
                json!({"rope_scaling": {"type": "my_own", "factor": 2.0}}),
            ),
            (
                "llama",
                json!({"layer_types": ["full_attention", "my_own"]}),
            ),
            ("deepseek2", json!({"topk_method": "my_own"})),
        ] {
            let error = refused(architecture, config.clone());
            assert!(error.starts_with("config.json: `"), "{config}: {error}");
            assert!(error.contains("known"), "{config}: {error}");
        }
        for (architecture, config) in [
            ("llama", json!({"hidden_act": "swish"})),
            (
                "gemma",
                json!({"hidden_act": "silu", "hidden_activation": "gelu_pytorch_tanh"}),
            ),
            ("t5", json!({"feed_forward_proj": "gated-gelu"})),
            ("t5", json!({"feed_forward_proj": "relu"})),
            (
                "llama",
                json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
            ),
            ("jina-bert-v2", json!({"hidden_act": "gelu"})),
        ] {
            assert_eq!(refused(architecture, config), "");
        }
    }
}
