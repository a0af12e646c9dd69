//! DeepSeek 2 and 3: latent attention and many experts.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, MLA, MOE, NEXTN, SHARED, shaped};
use crate::Error;
use crate::config::Config;
use crate::expr::{Expr, Strided};

pub(super) const ALL: &[Architecture] = &[Architecture {
    name: "deepseek2",
    classes: &["DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"],
    parts: &[
        CORE,
        FFN,
        MOE,
        SHARED,
        MLA,
        NEXTN,
        &[Part::AttnQ, Part::FfnNorm, Part::FfnExpProbsB],
    ],
    defaults: one_latent_head,
    params: &[
        Param::Base,
        Param::MaybeU32("leading_dense_block_count", &["first_k_dense_replace"]),
        Param::U32("vocab_size", &["vocab_size"]),
        Param::With(latent),
        Param::MaybeU32("expert_feed_forward_length", &["moe_intermediate_size"]),
        Param::MaybeU32("expert_shared_count", &["n_shared_experts"]),
        Param::MaybeF32("expert_weights_scale", &["routed_scaling_factor"]),
        Param::With(|model, keys| {
            if super::flag(&model.config, "norm_topk_prob") {
                keys.set("expert_weights_norm", true);
            }
            Ok(())
        }),
        Param::U32("rope.dimension_count", &["qk_rope_head_dim"]),
        Param::With(|model, keys| {
            if let Some(scale) = model.config.rope_f64("mscale_all_dim") {
                keys.set("rope.scaling.yarn_log_multiplier", (0.1 * scale) as f32);
            }
            Ok(())
        }),
    ],
    rules: &[
        Rule("lm_head.weight", Action::DropIfTied),
        Rule("*layers.*", Action::With(without_prediction)),
        Rule("*.kv_b_proj.weight", Action::With(split_kv_b)),
    ],
    ..PLAIN
}];

/// In its compressed form attention has one key and value head.
fn one_latent_head(config: &mut Config) {
    config.set("num_key_value_heads", 1);
    if let Some(dim) = config.get("qk_rope_head_dim").cloned() {
        config.set_default("head_dim", dim);
    }
}

/// Sizes of latent attention, compressed and per head.
pub(super) fn latent(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let rank = config.u32(&["kv_lora_rank"])?;
    let (nope, rope) = (
        config.u32(&["qk_nope_head_dim"])?,
        config.u32(&["qk_rope_head_dim"])?,
    );
    if let Some(rank) = config.opt_u32(&["q_lora_rank"])? {
        keys.set("attention.q_lora_rank", rank);
    }
    keys.set("attention.kv_lora_rank", rank);
    keys.set("attention.key_length", rank + rope);
    keys.set("attention.value_length", rank);
    keys.set("attention.key_length_mla", nope + rope);
    keys.set("attention.value_length_mla", config.u32(&["v_head_dim"])?);
    Ok(())
}

/// Layers beyond the configured number predict further tokens; this graph has no use for them.
fn without_prediction(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    if super::layer_of(name)? >= model.config.layers()? {
        return Ok(Vec::new());
    }
    Ok(vec![(name.to_owned(), expr)])
}

/// Keys (transposed, to multiply the query) and values out of the latent, head by head.
pub(super) fn split_kv_b(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let config = &model.config;
    let heads = u64::from(config.heads()?);
    let nope = u64::from(config.u32(&["qk_nope_head_dim"])?);
    let value = u64::from(config.u32(&["v_head_dim"])?);
    if expr.row_count() != heads * (nope + value) {
        return Err(Error::tensor(
            name,
            format!(
                "has {} rows, the configuration wants {heads} heads of {nope} + {value}",
                expr.row_count()
            ),
        ));
    }
    let head = nope + value;
    let keys = Strided::new(0, [(heads, head), (nope, 1)]);
    let keys = shaped(name, expr.rows_view(keys, &[nope, heads]))?;
    let values = Strided::new(nope, [(heads, head), (value, 1)]);
    let values = shaped(name, expr.rows_view(values, &[value, heads]))?;
    Ok(vec![
        (
            name.replace("kv_b_proj", "k_b_proj"),
            shaped(name, keys.transpose())?,
        ),
        (name.replace("kv_b_proj", "v_b_proj"), values),
    ])
}
