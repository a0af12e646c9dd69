//! Llama and what copies its graph: Mistral, Mixtral.

use super::super::{Action, Architecture, Keys, Model, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, MOE, QKV};
use crate::Error;
use crate::config::{Config, MISTRAL_FORMAT};

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        classes: &[
            "LlamaForCausalLM",
            "LlamaModel",
            "LLaMAForCausalLM",
            "LlavaForConditionalGeneration",
            "VoxtralForConditionalGeneration",
            "UltravoxModel",
            "VLlama3ForCausalLM",
            "IQuestCoderForCausalLM",
            "JanusForConditionalGeneration",
        ],
        defaults: head_dim,
        rules: &[
            Rule("*text_model.*", Action::Replace("text_model.", "")),
            Rule("*.q_proj.*", Action::PermuteQ),
            Rule("*.k_proj.*", Action::PermuteK),
        ],
        ..LLAMA
    },
    Architecture {
        classes: &["InternLM3ForCausalLM"],
        ..LLAMA
    },
    Architecture {
        name: "llama-embed",
        classes: &["LlamaBidirectionalModel"],
        defaults: head_dim,
        ..LLAMA
    },
    Architecture {
        name: "mistral3",
        classes: &["Mistral3ForConditionalGeneration", "Ministral3ForCausalLM"],
        defaults: head_dim,
        params: &[
            Param::Base,
            Param::U32("vocab_size", &["vocab_size"]),
            Param::With(rope_dimension),
            Param::With(temperature),
        ],
        ..LLAMA
    },
    Architecture {
        classes: &["MistralForCausalLM"],
        defaults: head_dim,
        ..LLAMA
    },
    Architecture {
        classes: &[MISTRAL_FORMAT],
        params: &[Param::Base, Param::With(rope_dimension)],
        rules: &[],
        ..LLAMA
    },
    Architecture {
        classes: &["MixtralForCausalLM"],
        ..LLAMA
    },
];

/// Query and key rows in the order that ggml's rotation of neighbouring pairs wants.
pub(super) const PERMUTED: &[Rule] = &[
    Rule("*.q_proj.*", Action::PermuteQ),
    Rule("*.k_proj.*", Action::PermuteK),
];

/// The base keys, and those that llama's converter class adds.
pub(super) const PARAMS: &[Param] = &[
    Param::Base,
    Param::U32("vocab_size", &["vocab_size"]),
    Param::With(rope_dimension),
];

pub(super) const LLAMA: Architecture = Architecture {
    name: "llama",
    parts: &[CORE, QKV, FFN, MOE, &[Part::RopeFreqs, Part::FfnNorm]],
    params: PARAMS,
    rules: PERMUTED,
    ..PLAIN
};

/// The class states the head's size even where the file does not.
pub(super) fn head_dim(config: &mut Config) {
    if let Ok(dim) = config.head_dim() {
        config.set_default("head_dim", dim);
    }
}

/// Rotary dimensions: the whole head.
pub(super) fn rope_dimension(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    keys.set("rope.dimension_count", model.config.head_dim()?);
    Ok(())
}

/// Ministral 3 scales its rotation and, with the position, its queries.
fn temperature(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    if model.config.str("model_type") != Some("ministral3") {
        return Ok(());
    }
    for (key, field) in [
        ("rope.scaling.yarn_log_multiplier", "mscale_all_dim"),
        ("attention.temperature_scale", "llama_4_scaling_beta"),
    ] {
        let value = model.config.rope_f64(field);
        let value = value.ok_or_else(|| Error::config(field, "is missing"))?;
        keys.set(key, value as f32);
    }
    Ok(())
}
