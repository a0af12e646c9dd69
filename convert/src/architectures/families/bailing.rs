//! Bailing (Ling), with experts.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::deepseek::{KIMI_DELTA, kimi_convolution, prediction_layers, split_kv_b};
use super::fused::apart;
use super::{
    CORE, FFN, MLA, MOE, NEXTN, QK_NORM, QKV, SHARED, layer_of, llama, partial_rotary, shaped,
};
use crate::Error;
use crate::config::as_f64;
use crate::expr::{Arithmetic, Expr, Strided};

const V2: Architecture = Architecture {
    name: "bailingmoe2",
    parts: &[
        CORE,
        QK_NORM,
        FFN,
        MOE,
        SHARED,
        NEXTN,
        &[
            Part::AttnQkv,
            Part::FfnExpProbsB,
            Part::FfnNorm,
            Part::LayerOutNorm,
        ],
    ],
    params: &[
        Param::Base,
        Param::With(|model, keys| partial_rotary(model, keys, 0.5)),
        Param::With(experts_v2),
    ],
    rules: &[Rule(
        "*.expert_bias",
        Action::Replace(".expert_bias", ".expert_bias.bias"),
    )],
    extra_layers: prediction_layers,
    ..PLAIN
};

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "bailingmoe3",
        classes: &["BailingMoeV3ForCausalLM", "BailingHybridForCausalLM"],
        parts: &[
            CORE,
            QKV,
            FFN,
            MOE,
            SHARED,
            MLA,
            KIMI_DELTA,
            &[
                Part::AttnGate,
                Part::FfnNorm,
                Part::FfnExpProbsB,
                Part::NextnEhProj,
                Part::NextnEnorm,
                Part::NextnHnorm,
                Part::LayerOutNorm,
            ],
        ],
        defaults: |config| config.set("num_key_value_heads", 1),
        params: &[Param::Base, Param::With(hybrid)],
        rules: &[
            Rule(
                "*.expert_bias",
                Action::Replace("expert_bias", "expert_bias.bias"),
            ),
            Rule("*_conv1d.weight", Action::With(kimi_convolution)),
            Rule("*.A_log", Action::With(exponential)),
            Rule("*.dt_bias", Action::Replace("dt_bias", "dt_proj.bias")),
            Rule(
                "*.attention.f_proj.weight",
                Action::With(|_, name, expr| {
                    let layer = layer_of(name)?;
                    Ok(vec![(format!("blk.{layer}.ssm_f_a.weight"), expr)])
                }),
            ),
            Rule("*.attention.g_proj.weight", Action::With(hybrid_gate)),
            Rule("*.kv_b_proj.weight", Action::With(split_kv_b)),
        ],
        extra_layers: prediction_layers,
        ..PLAIN
    },
    Architecture {
        name: "bailingmoe",
        classes: &["BailingMoeForCausalLM"],
        parts: &[CORE, QKV, MOE, SHARED, &[Part::RopeFreqs, Part::FfnNorm]],
        params: &[
            Param::Base,
            Param::With(llama::rope_dimension),
            Param::U32("leading_dense_block_count", &["first_k_dense_replace"]),
            Param::U32("vocab_size", &["vocab_size"]),
            Param::U32("expert_feed_forward_length", &["moe_intermediate_size"]),
            Param::SetF32("expert_weights_scale", 1.0),
            Param::U32("expert_shared_count", &["num_shared_experts"]),
            Param::MaybeBool("expert_weights_norm", "norm_topk_prob"),
        ],
        rules: &[
            Rule("*.query_key_value.weight", Action::With(query_key_value)),
            Rule("lm_head.weight", Action::With(normalised)),
        ],
        ..PLAIN
    },
    Architecture {
        classes: &["BailingMoeV2ForCausalLM"],
        ..V2
    },
    Architecture {
        classes: &[
            "SarvamMoEForCausalLM",
            "modeling_sarvam_moe.SarvamMoEForCausalLM",
        ],
        params: &[
            Param::Base,
            Param::With(llama::rope_dimension),
            Param::With(experts_v2),
        ],
        rules: &[Rule("*.expert_bias", Action::With(centred))],
        ..V2
    },
];

fn experts_v2(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let dense = config.u32(&["first_k_dense_replace"])?;
    keys.set("leading_dense_block_count", dense);
    keys.set("vocab_size", config.u32(&["vocab_size"])?);
    let width = config.u32(&["moe_intermediate_size"])?;
    let shared = config.u32(&["num_shared_experts"])?;
    keys.set("expert_feed_forward_length", width);
    let stated = config.opt_u32(&["moe_shared_expert_intermediate_size"])?;
    keys.set(
        "expert_shared_feed_forward_length",
        stated.unwrap_or(width.saturating_mul(shared)),
    );
    let scale = config.f64(&["routed_scaling_factor"])?;
    keys.set("expert_weights_scale", scale as f32);
    keys.set("expert_shared_count", shared);
    keys.set("expert_weights_norm", super::flag(config, "norm_topk_prob"));
    if let Some(layers) = config.opt_u32(&["num_nextn_predict_layers"])? {
        keys.set("nextn_predict_layers", layers);
    }
    Ok(())
}

fn query_key_value(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let config = &model.config;
    let (heads, kv_heads) = (u64::from(config.heads()?), u64::from(config.kv_heads()?));
    let dim = u64::from(config.head_dim()?);
    let (q, kv) = (heads * dim, kv_heads * dim);
    let views = [0..q, q..q + kv, q + kv..q + 2 * kv].map(Strided::range);
    apart(name, &expr, views, [heads, kv_heads])
}

/// The head's columns divided by their lengths, where the model does so.
fn normalised(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    if !super::flag(&model.config, "norm_head") {
        return Ok(vec![(name.to_owned(), expr)]);
    }
    let unreadable = |error: gristmill_gguf::ReadError| Error::tensor(name, error.to_string());
    let mut squares = vec![0f64; expr.row_len() as usize];
    for row in 0..expr.row_count() {
        let values = expr.f32_rows(row..row + 1).map_err(unreadable)?;
        for (sum, value) in squares.iter_mut().zip(values) {
            *sum += f64::from(value).powi(2);
        }
    }
    let factors = squares.iter().map(|sum| 1.0 / (sum.sqrt() as f32 + 1e-7));
    let scaled = shaped(name, expr.scale_columns(factors.collect()))?;
    Ok(vec![(name.to_owned(), scaled)])
}

/// The bias of the choice less its mean.
fn centred(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let row = shaped(name, expr.reshape(&[expr.elements()]))?;
    let values = row
        .f32_rows(0..1)
        .map_err(|error| Error::tensor(name, error.to_string()))?;
    let mean =
        values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len().max(1) as f64;
    let centred = expr.compute(Arithmetic::Add(-mean as f32));
    Ok(vec![(format!("{name}.bias"), centred)])
}

/// Which layers of the third generation attend; the others have a delta net.
fn attends(model: &Model) -> Result<Vec<bool>, Error> {
    let config = &model.config;
    let (layers, group) = (config.layers()?, config.u32(&["layer_group_size"])?.max(1));
    Ok((0..model.block_count()?)
        .map(|layer| layer >= layers / group * group || (layer + 1) % group == 0)
        .collect())
}

fn hybrid(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    for (field, fits) in [
        ("no_kda_lora", config.bool("no_kda_lora") != Some(false)),
        ("kda_safe_gate", config.bool("kda_safe_gate") != Some(false)),
        (
            "gated_attention_proj_granularity_type",
            config
                .str("gated_attention_proj_granularity_type")
                .is_none_or(|kind| kind == "head_wise"),
        ),
    ] {
        if !fits {
            return Err(Error::config(field, "asks for a graph that GGUF has not"));
        }
    }
    let heads: Vec<i32> = attends(model)?.into_iter().map(i32::from).collect();
    keys.set("attention.head_count_kv", heads);
    let number = |names: &[&'static str]| config.u32(names);
    let (rank, nope, rope) = (
        number(&["kv_lora_rank"])?,
        number(&["qk_nope_head_dim"])?,
        number(&["qk_rope_head_dim"])?,
    );
    let width = number(&["moe_intermediate_size"])?;
    let shared = config.opt_u32(&["num_shared_experts", "n_shared_experts"])?;
    let shared = shared.unwrap_or(1);
    let own = config.opt_u32(&["moe_shared_expert_intermediate_size"])?;
    let bound = config.opt_f64(&["kda_lower_bound"])?.unwrap_or(-5.0);
    keys.set("vocab_size", number(&["vocab_size"])?);
    keys.set("ssm.conv_kernel", number(&["short_conv_kernel_size"])?);
    keys.set("kda.head_dim", config.head_dim()?);
    keys.set("kda.safe_gate", true);
    keys.set("kda.gate_lower_bound", bound as f32);
    if let Some(rank) = config.opt_u32(&["q_lora_rank"])? {
        keys.set("attention.q_lora_rank", rank);
    }
    keys.set("attention.kv_lora_rank", rank);
    keys.set("rope.dimension_count", rope);
    keys.set("attention.key_length", rank + rope);
    keys.set("attention.key_length_mla", nope + rope);
    keys.set("attention.value_length_mla", number(&["v_head_dim"])?);
    keys.set("expert_feed_forward_length", width);
    let own = own.or_else(|| width.checked_mul(shared));
    let own = own.ok_or_else(|| Error::config("num_shared_experts", "is too large"))?;
    keys.set("expert_shared_feed_forward_length", own);
    keys.set("expert_shared_count", shared);
    let dense = number(&["first_k_dense_replace"])?;
    keys.set("leading_dense_block_count", dense);
    let scale = config.f64(&["routed_scaling_factor"])?;
    keys.set("expert_weights_scale", scale as f32);
    let norm = config
        .bool("norm_topk_prob")
        .or(config.bool("moe_renormalize"));
    keys.set("expert_weights_norm", norm.unwrap_or(true));
    let blocks = model.block_count()? as usize;
    for (key, field) in [
        ("swiglu_clamp_exp", "expert_swiglu_limit_list"),
        ("swiglu_clamp_shexp", "share_expert_swiglu_limit_list"),
    ] {
        if let Some(list) = config.list(field) {
            let limits = list.iter().map(|limit| as_f64(limit).unwrap_or(0.0) as f32);
            let mut limits: Vec<f32> = limits.take(blocks).collect();
            limits.resize(blocks, 0.0);
            keys.set(key, limits);
        }
    }
    let predicting = prediction_layers(model)?;
    if predicting > 0 {
        keys.set("nextn_predict_layers", predicting);
    }
    Ok(())
}

/// `exp(A_log)`, a row for each head.
fn exponential(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let values = expr
        .compute(Arithmetic::NegExp)
        .compute(Arithmetic::Multiply(-1.0));
    let rows = shaped(name, values.reshape(&[1, values.elements()]))?;
    Ok(vec![(name.to_owned(), rows)])
}

/// The gate of attention's heads, or of the delta net's channels.
fn hybrid_gate(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let layer = layer_of(name)?;
    let part = match attends(model)?.get(layer as usize) {
        Some(true) => "attn_gate",
        _ => "ssm_g_a",
    };
    Ok(vec![(format!("blk.{layer}.{part}.weight"), expr)])
}
