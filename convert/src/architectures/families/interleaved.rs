//! Mixtures of experts whose layers alternate between a window and all that was seen.

use serde_json::Value as Json;

use super::super::{Action, Architecture, Keys, Model, PLAIN, Param, Part, Rule};
use super::mixtures::GATE_UP_DOWN;
use super::{CORE, FFN, MOE, NEXTN, QK_NORM, QKV, SHARED, layer_types};
use crate::Error;
use crate::config::{as_f64, as_u32};

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "mellum",
        classes: &["MellumForCausalLM"],
        parts: &[CORE, QKV, QK_NORM, MOE, &[Part::FfnNorm]],
        params: &[
            Param::Base,
            Param::MaybeU32("expert_feed_forward_length", &["moe_intermediate_size"]),
            Param::With(|model, keys| {
                if model.config.bool("use_sliding_window") == Some(false) {
                    return Ok(());
                }
                if let Some(window) = model.config.opt_u32(&["sliding_window"])? {
                    keys.set("attention.sliding_window", window);
                    keys.set("attention.sliding_window_pattern", windowed(model)?);
                }
                Ok(())
            }),
            Param::BoolUnless("expert_weights_norm", "norm_topk_prob", true),
        ],
        ..PLAIN
    },
    Architecture {
        name: "laguna",
        classes: &["LagunaForCausalLM"],
        parts: &[
            CORE,
            QKV,
            QK_NORM,
            FFN,
            MOE,
            SHARED,
            &[Part::AttnGate, Part::FfnNorm, Part::FfnExpProbsB],
        ],
        params: &[Param::Base, Param::With(laguna)],
        expert_order: GATE_UP_DOWN,
        ..PLAIN
    },
    Architecture {
        name: "mimo2",
        classes: &["MiMoV2FlashForCausalLM", "MiMoV2ForCausalLM"],
        parts: &[
            CORE,
            QKV,
            FFN,
            MOE,
            NEXTN,
            &[
                Part::AttnQkv,
                Part::AttnSinks,
                Part::FfnNorm,
                Part::FfnExpProbsB,
                Part::LayerOutNorm,
            ],
        ],
        params: &[Param::Base, Param::With(mimo)],
        rules: &[
            Rule("*.sinks", Action::Replace("sinks", "sinks.weight")),
            Rule(
                "*.attention_sink_bias",
                Action::Replace("attention_sink_bias", "attention_sink_bias.weight"),
            ),
            Rule(
                "model.mtp.layers.*",
                Action::With(|model, name, expr| {
                    let layer = super::layer_of(name)?;
                    let place = model.config.layers()? + layer;
                    let (from, to) = (format!("mtp.layers.{layer}."), format!("layers.{place}."));
                    Ok(vec![(name.replacen(&from, &to, 1), expr)])
                }),
            ),
        ],
        expert_order: GATE_UP_DOWN,
        extra_layers: predicting_layers,
        ..PLAIN
    },
];

/// Layers that predict further tokens: as many as are stored, since configurations do not count them.
fn predicting_layers(model: &Model) -> Result<u32, Error> {
    let numbers = model.tensors.iter().filter_map(|tensor| {
        let (number, _) = tensor
            .name
            .strip_prefix("model.mtp.layers.")?
            .split_once('.')?;
        number.parse::<u32>().ok()
    });
    Ok(numbers.max().map_or(0, |last| last.saturating_add(1)))
}

/// Which layers have the window; without a list none.
fn windowed(model: &Model) -> Result<Vec<bool>, Error> {
    let layers = model.config.layers()? as usize;
    let listed = layer_types(&model.config, "sliding_attention");
    let listed = listed.unwrap_or_else(|| vec![false; layers]);
    if listed.len() < layers {
        let problem = format!("lists {} of {layers} layers", listed.len());
        return Err(Error::config("layer_types", problem));
    }
    Ok(listed)
}

/// Layers without experts before the first that has them, by `mlp_layer_types`.
pub(super) fn leading_dense(types: &[Json]) -> u32 {
    let dense = types.iter().take_while(|ty| ty.as_str() == Some("dense"));
    dense.count() as u32
}

fn laguna(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let cap = config.opt_f64(&["moe_router_logit_softcapping"])?;
    if cap.is_some_and(|cap| cap > 0.0) {
        return Err(Error::config(
            "moe_router_logit_softcapping",
            "is not zero, and GGUF has no key for it",
        ));
    }
    let layers = config.layers()? as usize;
    keys.set("vocab_size", config.u32(&["vocab_size"])?);
    let heads = match config.list("num_attention_heads_per_layer") {
        Some(list) if !list.is_empty() => Json::Array(list.to_vec()),
        _ => vec![config.heads()?; layers].into(),
    };
    keys.u32_or_list(
        "attention.head_count",
        "num_attention_heads_per_layer",
        &heads,
    )?;
    let window = config.opt_u32(&["sliding_window"])?.unwrap_or(0);
    if window > 0 {
        keys.set("attention.sliding_window", window);
        // Every fourth layer from the first on is the graph's own pattern.
        let windowed = windowed(model)?;
        if (0..layers).any(|layer| windowed[layer] != (layer % 4 != 0)) {
            keys.set("attention.sliding_window_pattern", windowed);
        }
    }
    for (key, field) in [
        ("expert_feed_forward_length", "moe_intermediate_size"),
        (
            "expert_shared_feed_forward_length",
            "shared_expert_intermediate_size",
        ),
    ] {
        keys.set(key, config.u32(&[field])?);
    }
    let scale = config.opt_f64(&["moe_routed_scaling_factor"])?;
    keys.set("expert_weights_norm", true);
    keys.set("expert_weights_scale", scale.unwrap_or(1.0) as f32);
    keys.set("expert_gating_func", 2u32);
    // The class has experts in every layer but the first.
    let dense = config.list("mlp_layer_types").map_or(1, leading_dense);
    keys.set("leading_dense_block_count", dense);
    let dims = |share: Option<f64>| -> Result<u32, Error> {
        Ok((f64::from(config.head_dim()?) * share.unwrap_or(1.0)) as u32)
    };
    keys.set(
        "rope.dimension_count",
        dims(config.rope_f64("partial_rotary_factor"))?,
    );
    if let Some(local) = config.rope("sliding_attention") {
        let share = local.get("partial_rotary_factor").and_then(as_f64);
        keys.set("rope.dimension_count_swa", dims(share)?);
    }
    Ok(())
}

fn mimo(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    for (own, other) in [
        ("swa_head_dim", "head_dim"),
        ("swa_num_attention_heads", "num_attention_heads"),
        ("swa_v_head_dim", "v_head_dim"),
    ] {
        if let (Some(a), Some(b)) = (config.get(own), config.get(other))
            && a != b
        {
            return Err(Error::config(own, format!("is {a}, but {other} is {b}")));
        }
    }
    let mut windowed = match config.list("hybrid_layer_pattern") {
        Some(list) => list.iter().map(|flag| as_u32(flag) == Some(1)).collect(),
        None => windowed(model)?,
    };
    windowed.resize(model.block_count()? as usize, true);
    let full = config.kv_heads()?;
    let local = config.opt_u32(&["swa_num_key_value_heads"])?;
    let local = local.unwrap_or(2 * full);
    let heads = windowed.iter().map(|&windowed| match windowed {
        true => local.cast_signed(),
        false => full.cast_signed(),
    });
    keys.set("attention.head_count_kv", heads.collect::<Vec<i32>>());
    let window = config.u32(&["sliding_window", "sliding_window_size"])?;
    keys.set("attention.sliding_window", window);
    let pattern: Vec<i32> = windowed.iter().map(|&windowed| windowed.into()).collect();
    keys.set("attention.sliding_window_pattern", pattern);
    keys.set("attention.value_length", config.u32(&["v_head_dim"])?);
    keys.set("expert_count", config.u32(&["n_routed_experts"])?);
    keys.set(
        "expert_feed_forward_length",
        config.u32(&["moe_intermediate_size"])?,
    );
    super::partial_rotary(model, keys, 1.0)?;
    let epsilon = config.opt_f64(&["layernorm_epsilon", "rms_norm_eps"])?;
    keys.set(
        "attention.layer_norm_rms_epsilon",
        epsilon.unwrap_or(1e-5) as f32,
    );
    if let Some(scale) = config.opt_f64(&["attention_value_scale"])? {
        keys.set("attention.value_scale", scale as f32);
    }
    let predicting = predicting_layers(model)?;
    if predicting > 0 {
        keys.set("nextn_predict_layers", predicting);
    }
    Ok(())
}
