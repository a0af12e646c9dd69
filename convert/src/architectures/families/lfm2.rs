//! LFM2: short convolutions and attention.

use super::super::{Action, Architecture, Keys, Model, PLAIN, Param, Part, Rule};
use super::{FFN, MOE, QK_NORM, QKV, layer_types};
use crate::Error;
use crate::config::Config;

const PARTS: &[Part] = &[
    Part::TokenEmbd,
    Part::TokenEmbdNorm,
    Part::Output,
    Part::ShortconvConv,
    Part::ShortconvInproj,
    Part::ShortconvOutproj,
    Part::FfnNorm,
    Part::AttnNorm,
    Part::AttnOut,
];

const LFM2: Architecture = Architecture {
    name: "lfm2",
    classes: &["Lfm2ForCausalLM", "LFM2ForCausalLM"],
    parts: &[PARTS, QKV, QK_NORM, FFN],
    params: &[
        Param::With(per_layer_heads),
        Param::U32("vocab_size", &["vocab_size"]),
        Param::U32("shortconv.l_cache", &["conv_L_cache"]),
        Param::With(feed_forward),
    ],
    rules: &[Rule("*.conv.conv.weight", Action::Squeeze)],
    ..PLAIN
};

pub(super) const ALL: &[Architecture] = &[
    LFM2,
    Architecture {
        classes: &["Lfm2Model", "Lfm2BidirectionalModel"],
        params: &[
            Param::With(per_layer_heads),
            Param::U32("vocab_size", &["vocab_size"]),
            Param::U32("shortconv.l_cache", &["conv_L_cache"]),
            Param::With(feed_forward),
            Param::With(|model, keys| {
                if model.config.class() == Some("Lfm2BidirectionalModel") {
                    keys.set("attention.causal", false);
                }
                if let Some(pooling) = super::bert::pooling(model)? {
                    keys.set("pooling_type", pooling);
                }
                Ok(())
            }),
        ],
        ..LFM2
    },
    Architecture {
        name: "lfm2moe",
        classes: &["Lfm2MoeForCausalLM"],
        parts: &[PARTS, QKV, QK_NORM, FFN, MOE, &[Part::FfnExpProbsB]],
        params: &[
            Param::With(per_layer_heads),
            Param::U32("expert_feed_forward_length", &["moe_intermediate_size"]),
            Param::U32("leading_dense_block_count", &["num_dense_layers"]),
            Param::SetU32("expert_gating_func", 2),
            Param::U32("vocab_size", &["vocab_size"]),
            Param::U32("shortconv.l_cache", &["conv_L_cache"]),
            Param::BoolUnless("expert_weights_norm", "norm_topk_prob", true),
            Param::F32Unless("expert_weights_scale", "routed_scaling_factor", 1.0),
        ],
        rules: &[
            Rule("*.conv.conv.weight", Action::Squeeze),
            Rule(
                "*.expert_bias",
                Action::Replace("expert_bias", "expert_bias.bias"),
            ),
        ],
        ..LFM2
    },
];

/// The base keys, with key and value heads for the layers that attend.
fn per_layer_heads(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    Param::Base.write(model, keys)?;
    let heads = model.config.kv_heads()?.cast_signed();
    let attends = attends(&model.config)?;
    let heads: Vec<i32> = attends.iter().map(|&a| if a { heads } else { 0 }).collect();
    keys.set("attention.head_count_kv", heads);
    Ok(())
}

fn attends(config: &Config) -> Result<Vec<bool>, Error> {
    if let Some(types) = layer_types(config, "full_attention") {
        return Ok(types);
    }
    let indices = super::floats(config, "full_attn_idxs")?;
    Ok((0..config.layers()?)
        .map(|layer| indices.contains(&f64::from(layer)))
        .collect())
}

/// Width of the feed-forward network where the configuration states it before adjustment.
fn feed_forward(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let stated = config.u32(&["block_ff_dim", "intermediate_size"])?;
    let mut width = stated;
    if super::flag(config, "block_auto_adjust_ff_dim") {
        width = 2 * width / 3;
        if let Some(multiplier) = config.opt_f64(&["block_ffn_dim_multiplier"])? {
            width = (multiplier * f64::from(width)) as u32;
        }
        let multiple = config.opt_u32(&["block_multiple_of"])?.unwrap_or(1).max(1);
        width = width.div_ceil(multiple) * multiple;
    }
    keys.set("feed_forward_length", width);
    Ok(())
}
