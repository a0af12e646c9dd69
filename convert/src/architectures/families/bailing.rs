//! Bailing (Ling), with experts.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::deepseek::prediction_layers;
use super::fused::apart;
use super::{CORE, FFN, MOE, NEXTN, QK_NORM, QKV, SHARED, llama, partial_rotary, shaped};
use crate::Error;
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
