//! Nemotron and the hybrid Nemotron-H.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::ssm::{CONVOLUTION, DECAY_COLUMN, SKIP_COLUMN, TIME_STEP, group_norm};
use super::{CORE, MOE, NEXTN, QKV, SHARED, SSM, partial_rotary};
use crate::Error;
use crate::config::Config;
use crate::expr::Expr;

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "nemotron",
        classes: &["NemotronForCausalLM"],
        parts: &[
            CORE,
            QKV,
            &[Part::RopeFreqs, Part::FfnNorm, Part::FfnDown, Part::FfnUp],
        ],
        defaults: |config| {
            if let Ok(dim) = config.head_dim() {
                config.set_default("head_dim", dim);
            }
        },
        params: &[
            Param::Base,
            Param::U32("vocab_size", &["vocab_size"]),
            Param::F32(
                "attention.layer_norm_epsilon",
                &[
                    "layer_norm_eps",
                    "layer_norm_epsilon",
                    "norm_epsilon",
                    "norm_eps",
                ],
            ),
            Param::With(|model, keys| partial_rotary(model, keys, 0.5)),
            Param::With(|model, keys| {
                if let Some(factor) = model.config.rope_f64("factor") {
                    keys.set("rope.scaling.type", "linear");
                    keys.set("rope.scaling.factor", factor as f32);
                } else {
                    keys.set("rope.scaling.type", "none");
                }
                Ok(())
            }),
        ],
        rules: &[Rule("*norm.weight", Action::AddOne)],
        ..PLAIN
    },
    HYBRID,
    Architecture {
        name: "nemotron_h_moe",
        // The class has numbers of experts even where the configuration states none.
        only: Some(|config| config.stated("num_experts_per_tok").is_some()),
        parts: &[
            CORE,
            QKV,
            SSM,
            MOE,
            SHARED,
            NEXTN,
            &[
                Part::FfnDown,
                Part::FfnUp,
                Part::FfnExpProbsB,
                Part::AttnPostNorm,
                Part::MoeLatentDown,
                Part::MoeLatentUp,
            ],
        ],
        rules: &[
            Rule("mtp.*", Action::With(prediction)),
            DECAY_COLUMN,
            SKIP_COLUMN,
            CONVOLUTION,
            Rule("*.dt_bias", Action::Replace("dt_bias", "dt.bias")),
            Rule("*.q_proj.*", Action::PermuteQ),
            Rule("*.k_proj.*", Action::PermuteK),
            Rule("*.mixer.norm.weight", Action::With(group_norm)),
            Rule(
                "backbone.layers.*.mixer.experts.*",
                Action::With(|_, name, expr| {
                    let name = name.replacen("backbone", "model", 1);
                    Ok(vec![(name.replacen(".mixer.", ".mlp.", 1), expr)])
                }),
            ),
        ],
        extra_layers: |model| {
            let layers = model.config.opt_u32(&["num_nextn_predict_layers"])?;
            Ok(layers.unwrap_or(0))
        },
        ..HYBRID
    },
];

const HYBRID: Architecture = Architecture {
    name: "nemotron_h",
    classes: &["NemotronHForCausalLM"],
    parts: &[CORE, QKV, SSM, &[Part::FfnDown, Part::FfnUp]],
    defaults: |config| {
        if let Ok(pattern) = pattern(config) {
            config.set_default("num_hidden_layers", pattern.len());
        }
    },
    params: &[Param::With(hybrid)],
    rules: &[
        DECAY_COLUMN,
        SKIP_COLUMN,
        CONVOLUTION,
        TIME_STEP,
        Rule("*.q_proj.*", Action::PermuteQ),
        Rule("*.k_proj.*", Action::PermuteK),
        Rule("*.mixer.norm.weight", Action::With(group_norm)),
    ],
    ..PLAIN
};

/// The layer that predicts a further token: its parts are stored as two layers.
fn prediction(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let layer = model.config.layers()?;
    let Some(rest) = name
        .strip_prefix("mtp.layers.0.")
        .or_else(|| name.strip_prefix("mtp.layers.1."))
        .filter(|_| model.block_count().is_ok_and(|count| count > layer))
    else {
        return Ok(Vec::new());
    };
    let name = match (rest, name.starts_with("mtp.layers.1.")) {
        ("enorm.weight" | "hnorm.weight" | "eh_proj.weight", false) => {
            format!("model.layers.{layer}.{rest}")
        }
        ("norm.weight", true) => format!("model.layers.{layer}.post_attention_layernorm.weight"),
        ("final_layernorm.weight", true) => {
            format!("model.layers.{layer}.shared_head.norm.weight")
        }
        _ => format!("backbone.layers.{layer}.{rest}"),
    };
    Ok(vec![(name, expr)])
}

/// The kind of each layer: `M` state space, `*` attention, `-` feed-forward, `E` experts.
fn pattern(config: &Config) -> Result<Vec<char>, Error> {
    if let Some(pattern) = config.str("hybrid_override_pattern") {
        return Ok(pattern.chars().collect());
    }
    let blocks = config
        .list("layers_block_type")
        .ok_or_else(|| Error::config("hybrid_override_pattern", "is missing"))?;
    let kind = |block: &serde_json::Value| match block.as_str() {
        Some("mamba" | "linear_attention") => 'M',
        Some("attention" | "full_attention") => '*',
        Some("moe") => 'E',
        _ => '-',
    };
    Ok(blocks.iter().map(kind).collect())
}

fn hybrid(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let pattern = pattern(config)?;
    let experts = model.architecture.name == "nemotron_h_moe";
    let predicting = model.extra_layers()? as usize;
    // A layer that predicts attends and has experts.
    let per_layer = |kind: char, value: u32| -> Vec<i32> {
        let kinds = pattern.iter().map(|&layer| layer == kind);
        kinds
            .chain(std::iter::repeat_n(true, predicting))
            .map(|has| if has { value.cast_signed() } else { 0 })
            .collect()
    };
    let heads = config.u32(&["mamba_num_heads"])?;
    let head_dim = config.u32(&["mamba_head_dim"])?;
    keys.set("block_count", model.block_count()?);
    keys.set("context_length", 1u32 << 20);
    keys.set("embedding_length", config.hidden()?);
    let widths = match experts {
        true => per_layer('E', config.u32(&["moe_intermediate_size"])?),
        false => per_layer('-', config.u32(&["intermediate_size"])?),
    };
    keys.set("feed_forward_length", widths);
    keys.set("attention.head_count", config.heads()?);
    keys.set(
        "attention.head_count_kv",
        per_layer('*', config.kv_heads()?),
    );
    let epsilon = config.f64(&["layer_norm_epsilon", "layer_norm_eps", "norm_eps"])? as f32;
    keys.set("attention.layer_norm_epsilon", epsilon);
    if experts {
        keys.set("expert_count", config.u32(&["n_routed_experts"])?);
        keys.set("expert_used_count", config.u32(&["num_experts_per_tok"])?);
        Param::MaybeU32("expert_group_count", &["n_group"]).write(model, keys)?;
        Param::MaybeU32("expert_group_used_count", &["topk_group"]).write(model, keys)?;
    }
    keys.file_type();
    keys.set("vocab_size", config.u32(&["vocab_size"])?);
    keys.set(
        "rope.dimension_count",
        config.hidden()? / config.heads()?.max(1),
    );
    keys.set("ssm.conv_kernel", config.u32(&["conv_kernel"])?);
    keys.set("ssm.state_size", config.u32(&["ssm_state_size"])?);
    keys.set("ssm.group_count", config.u32(&["n_groups"])?);
    keys.set("ssm.inner_size", heads * head_dim);
    keys.set("ssm.time_step_rank", heads);
    keys.set("rope.scaling.finetuned", false);
    let dim = config.head_dim()?;
    keys.set("attention.key_length", dim);
    keys.set("attention.value_length", dim);
    if experts {
        const EXPERTS: [Param; 6] = [
            Param::U32("expert_feed_forward_length", &["moe_intermediate_size"]),
            Param::U32(
                "expert_shared_feed_forward_length",
                &["moe_shared_expert_intermediate_size"],
            ),
            Param::U32("expert_shared_count", &["n_shared_experts"]),
            Param::MaybeBool("expert_weights_norm", "norm_topk_prob"),
            Param::F32("expert_weights_scale", &["routed_scaling_factor"]),
            Param::MaybeU32("moe_latent_size", &["moe_latent_size"]),
        ];
        EXPERTS
            .iter()
            .try_for_each(|param| param.write(model, keys))?;
        if predicting > 0 {
            keys.set("nextn_predict_layers", predicting as u32);
        }
    }
    Ok(())
}
