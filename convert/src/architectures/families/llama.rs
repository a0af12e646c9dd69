//! Llama and what copies its graph: Mistral, Mixtral.

use serde_json::Value as Json;

use super::super::{Action, Architecture, Keys, Model, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, MOE, QKV};
use crate::Error;
use crate::config::{Config, MISTRAL_FORMAT, as_f64, as_u32};

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
        params: MISTRAL,
        rules: &[],
        ..LLAMA
    },
    Architecture {
        name: "mistral3",
        classes: &[MISTRAL_FORMAT],
        only: Some(|config| config.stated("llama_4_scaling").is_some()),
        params: MISTRAL,
        rules: &[],
        ..LLAMA
    },
    Architecture {
        classes: &["MixtralForCausalLM"],
        ..LLAMA
    },
];

/// Of params.json, which has the vocabulary's size from the tokenizer.
const MISTRAL: &[Param] = &[
    Param::Base,
    Param::With(rope_dimension),
    Param::With(native_scaling),
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

/// Scalings as Mistral's own format states them.
fn native_scaling(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    if let Some(yarn) = model.config.get("yarn") {
        let number = |field: &'static str| {
            let value = yarn.get(field).and_then(as_f64);
            value.ok_or_else(|| Error::config(field, "of `yarn` is no number"))
        };
        let context = yarn
            .get("original_max_position_embeddings")
            .and_then(as_u32);
        let context = context
            .ok_or_else(|| Error::config("yarn", "states no `original_max_position_embeddings`"))?;
        let scales = yarn.get("apply_scale").and_then(Json::as_bool) == Some(true);
        keys.set("rope.scaling.type", "yarn");
        keys.set("rope.scaling.factor", number("factor")? as f32);
        keys.set("rope.scaling.yarn_beta_fast", number("beta")? as f32);
        keys.set("rope.scaling.yarn_beta_slow", number("alpha")? as f32);
        keys.set(
            "rope.scaling.yarn_log_multiplier",
            if scales { 0f32 } else { 1.0 },
        );
        keys.set("rope.scaling.original_context_length", context);
    }
    if let Some(scaling) = model.config.get("llama_4_scaling") {
        let beta = scaling.get("beta").and_then(as_f64);
        let beta = beta.ok_or_else(|| Error::config("llama_4_scaling", "states no `beta`"))?;
        keys.set("attention.temperature_scale", beta as f32);
    }
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
