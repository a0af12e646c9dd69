//! Phi 2, 3 and the mixture of 3.5.

use super::super::{Action, Architecture, Keys, Model, PLAIN, Param, Part, Rule};
use super::{CORE, MOE, QKV};
use crate::Error;

const ROPE: &[Part] = &[Part::RopeFactorsLong, Part::RopeFactorsShort];

const PHI3: Architecture = Architecture {
    name: "phi3",
    parts: &[
        CORE,
        QKV,
        ROPE,
        &[Part::AttnQkv, Part::FfnNorm, Part::FfnDown, Part::FfnUp],
    ],
    params: &[Param::With(phi3)],
    early: longrope_factor,
    ..PLAIN
};

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "phi2",
        classes: &["PhiForCausalLM"],
        parts: &[CORE, QKV, &[Part::AttnQkv, Part::FfnDown, Part::FfnUp]],
        params: &[Param::With(phi2)],
        ..PLAIN
    },
    Architecture {
        classes: &["Phi3ForCausalLM"],
        ..PHI3
    },
    Architecture {
        name: "phimoe",
        classes: &["PhiMoEForCausalLM", "PhimoeForCausalLM"],
        parts: &[CORE, QKV, ROPE, MOE, &[Part::FfnNorm]],
        params: &[
            Param::With(phi3),
            Param::U32(
                "expert_used_count",
                &["num_experts_per_tok", "num_experts_per_token"],
            ),
            Param::U32("expert_count", &["num_local_experts", "num_experts"]),
        ],
        rules: &[Rule("*.rotary_emb.*", Action::Drop)],
        ..PHI3
    },
];

/// Rotated values of a head, by the share of the whole width.
fn rotated(model: &Model) -> Result<u32, Error> {
    let config = &model.config;
    let share = config.rope_f64("partial_rotary_factor").unwrap_or(1.0);
    Ok((share * f64::from(config.hidden()?)) as u32 / config.heads()?.max(1))
}

fn phi2(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let heads = config.heads()?;
    let hidden = config.hidden()?;
    keys.set(
        "context_length",
        config.u32(&["n_positions", "max_position_embeddings"])?,
    );
    keys.set("embedding_length", hidden);
    let inner = config.opt_u32(&["intermediate_size", "n_inner"])?;
    keys.set("feed_forward_length", inner.unwrap_or(4 * hidden));
    keys.set("block_count", model.block_count()?);
    keys.set("attention.head_count", heads);
    keys.set("attention.head_count_kv", config.kv_heads()?);
    let epsilon = config.f64(&["layer_norm_epsilon", "layer_norm_eps"])? as f32;
    keys.set("attention.layer_norm_epsilon", epsilon);
    keys.set("rope.dimension_count", rotated(model)?);
    keys.file_type();
    // The reference writes this tokenizer key with the model's own.
    keys.metadata.set("tokenizer.ggml.add_bos_token", false);
    Ok(())
}

fn phi3(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let context = config.u32(&["n_positions", "max_position_embeddings"])?;
    keys.set("context_length", context);
    let original = config.opt_u32(&["original_max_position_embeddings"])?;
    keys.set(
        "rope.scaling.original_context_length",
        original.unwrap_or(context),
    );
    keys.set("embedding_length", config.hidden()?);
    keys.set("feed_forward_length", config.u32(&["intermediate_size"])?);
    keys.set("block_count", model.block_count()?);
    keys.set("attention.head_count", config.heads()?);
    keys.set("attention.head_count_kv", config.kv_heads()?);
    let epsilon = config.f64(&["rms_norm_eps"])? as f32;
    keys.set("attention.layer_norm_rms_epsilon", epsilon);
    keys.set("rope.dimension_count", rotated(model)?);
    let base = config.rope_f64("rope_theta").unwrap_or(10000.0);
    keys.set("rope.freq_base", base as f32);
    keys.file_type();
    // Zero says that there is no window.
    let window = config.opt_u32(&["sliding_window"])?.unwrap_or(0);
    keys.set("attention.sliding_window", window);
    Ok(())
}

/// The factor on attention scores under `longrope` scaling.
fn longrope_factor(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    if config.rope("long_factor").is_none() {
        return Ok(());
    }
    let context = f64::from(config.u32(&["n_positions", "max_position_embeddings"])?);
    let original = config
        .opt_f64(&["original_max_position_embeddings"])?
        .unwrap_or(context);
    let scale = context / original;
    let factor = match config.rope_type() {
        _ if scale <= 1.0 => 1.0,
        "yarn" => 0.1 * scale.ln() + 1.0,
        _ => (1.0 + scale.ln() / original.ln()).sqrt(),
    };
    keys.set("rope.scaling.attn_factor", factor as f32);
    Ok(())
}
