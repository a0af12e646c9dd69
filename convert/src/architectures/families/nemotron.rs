//! Nemotron and the hybrid Nemotron-H.

use super::super::{Action, Architecture, Keys, Model, PLAIN, Param, Part, Rule};
use super::ssm::{CONVOLUTION, DECAY_COLUMN, SKIP_COLUMN, TIME_STEP, group_norm};
use super::{CORE, QKV, SSM, partial_rotary};
use crate::Error;
use crate::config::Config;

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
    Architecture {
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
    },
];

/// The kind of each layer: `M` state space, `*` attention, `-` feed-forward, `E` experts.
fn pattern(config: &Config) -> Result<Vec<char>, Error> {
    if let Some(pattern) = config.str("hybrid_override_pattern") {
        return Ok(pattern.chars().collect());
    }
    let blocks = config
        .list("layers_block_type")
        .ok_or_else(|| Error::config("hybrid_override_pattern", "is missing"))?;
    let kind = |block: &serde_json::Value| match block.as_str() {
        Some("mamba") => 'M',
        Some("attention") => '*',
        Some("moe") => 'E',
        _ => '-',
    };
    Ok(blocks.iter().map(kind).collect())
}

fn hybrid(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let pattern = pattern(config)?;
    let per_layer = |kind: char, value: u32| -> Vec<i32> {
        pattern
            .iter()
            .map(|&layer| {
                if layer == kind {
                    value.cast_signed()
                } else {
                    0
                }
            })
            .collect()
    };
    let heads = config.u32(&["mamba_num_heads"])?;
    let head_dim = config.u32(&["mamba_head_dim"])?;
    keys.set("block_count", model.block_count()?);
    keys.set("context_length", 1u32 << 20);
    keys.set("embedding_length", config.hidden()?);
    let width = config.u32(&["intermediate_size"])?;
    keys.set("feed_forward_length", per_layer('-', width));
    keys.set("attention.head_count", config.heads()?);
    keys.set(
        "attention.head_count_kv",
        per_layer('*', config.kv_heads()?),
    );
    let epsilon = config.f64(&["layer_norm_epsilon", "layer_norm_eps", "norm_eps"])? as f32;
    keys.set("attention.layer_norm_epsilon", epsilon);
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
    Ok(())
}
