//! Hunyuan, dense and with experts.

use serde_json::Value as Json;

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::deepseek::prediction_layers;
use super::{CORE, FFN, MOE, NEXTN, QK_NORM, QKV, SHARED};
use crate::Error;
use crate::config::as_u32;
use crate::expr::Expr;

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "hunyuan-dense",
        classes: &["HunYuanDenseV1ForCausalLM"],
        parts: &[CORE, QKV, QK_NORM, FFN, &[Part::FfnNorm]],
        params: &[Param::Base, Param::With(scaled_base)],
        rules: &[Rule("lm_head.weight", Action::DropIfTied)],
        ..PLAIN
    },
    Architecture {
        name: "hunyuan-moe",
        classes: &["HunYuanMoEV1ForCausalLM"],
        parts: &[
            CORE,
            QKV,
            QK_NORM,
            MOE,
            SHARED,
            &[Part::RopeFreqs, Part::FfnNorm],
        ],
        params: &[
            Param::Base,
            Param::U32("expert_shared_feed_forward_length", &["intermediate_size"]),
            Param::With(experts),
            Param::With(scaled_base),
        ],
        rules: &[Rule("lm_head.weight", Action::DropIfTied)],
        ..PLAIN
    },
    Architecture {
        name: "hunyuan_vl",
        classes: &["HunYuanVLForConditionalGeneration"],
        defaults: |config| {
            config.remove("num_experts");
            if let Some(sections) = config.rope("xdrope_section").cloned() {
                config.set_rope_default("mrope_section", sections);
            }
        },
        parts: &[CORE, QKV, QK_NORM, FFN, &[Part::FfnNorm]],
        params: &[Param::Base, Param::With(sections)],
        rules: &[Rule("lm_head.weight", Action::DropIfTied)],
        ..PLAIN
    },
    Architecture {
        name: "hy_v3",
        classes: &["HYV3ForCausalLM"],
        parts: &[
            CORE,
            QKV,
            QK_NORM,
            FFN,
            MOE,
            SHARED,
            NEXTN,
            &[Part::FfnNorm, Part::FfnExpProbsB],
        ],
        params: &[Param::Base, Param::With(hy_v3)],
        rules: &[Rule("*.final_layernorm.*", Action::With(prediction_norm))],
        extra_layers: prediction_layers,
        ..PLAIN
    },
];

fn hy_v3(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let width = config.u32(&["moe_intermediate_size"])?;
    let shared = config.opt_u32(&["num_shared_experts"])?.unwrap_or(1);
    keys.set("expert_feed_forward_length", width);
    let width = width
        .checked_mul(shared)
        .ok_or_else(|| Error::config("num_shared_experts", "is too large"))?;
    keys.set("expert_shared_feed_forward_length", width);
    let norm = config.bool("route_norm").unwrap_or(true);
    keys.set("expert_weights_norm", norm);
    let scale = config.opt_f64(&["router_scaling_factor"])?;
    keys.set("expert_weights_scale", scale.unwrap_or(1.0) as f32);
    keys.set("expert_gating_func", 2u32);
    let predicting = prediction_layers(model)?;
    if predicting > 0 {
        keys.set("nextn_predict_layers", predicting);
    }
    Ok(())
}

/// The last norm of a layer that predicts a further token.
fn prediction_norm(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let name = match super::layer_of(name)? >= model.config.layers()? {
        true => name.replace(".final_layernorm.", ".shared_head.norm."),
        false => name.to_owned(),
    };
    Ok(vec![(name, expr)])
}

/// Keys of a rotation with sections for positions in pictures; in text all positions are one.
fn sections(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    if config.rope("mrope_section").is_none() {
        return scaled_base(model, keys);
    }
    let base = config.rope_f64("rope_theta").unwrap_or(10000.0);
    keys.set("rope.freq_base", base as f32);
    keys.set("rope.scaling.type", "none");
    let factor = config.rope_f64("factor").unwrap_or(1.0);
    keys.set("rope.scaling.factor", factor as f32);
    if let Some(alpha) = config.rope_f64("alpha") {
        keys.set("rope.scaling.alpha", alpha as f32);
    }
    let context = config.u32(&["max_position_embeddings"])?;
    keys.set("rope.scaling.original_context_length", context);
    keys.set("context_length", context);
    Ok(())
}

/// Numbers of experts, which the configuration lists layer by layer; a file has one of each.
fn experts(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    for (key, field) in [
        ("expert_feed_forward_length", "moe_intermediate_size"),
        ("expert_used_count", "moe_topk"),
        ("expert_shared_count", "num_shared_expert"),
    ] {
        let value = model.config.get(field);
        let values: Option<Vec<u32>> = match value {
            Some(Json::Array(list)) => list.iter().map(as_u32).collect(),
            Some(value) => as_u32(value).map(|value| vec![value]),
            // The class has one shared network where the configuration does not count them, and
            // experts as wide as the others.
            None if field == "num_shared_expert" => Some(vec![1]),
            None if field == "moe_intermediate_size" => {
                Some(vec![model.config.u32(&["intermediate_size"])?])
            }
            None => None,
        };
        match values.as_deref() {
            Some([first, rest @ ..]) if rest.iter().all(|value| value == first) => {
                keys.set(key, *first);
            }
            _ => return Err(Error::config(field, "is not one number for all layers")),
        }
    }
    Ok(())
}

/// `dynamic` scaling with a fixed alpha is a larger base, good for 256K tokens.
fn scaled_base(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    const CONTEXT: u32 = 256 * 1024;
    let config = &model.config;
    let Some(alpha) = config
        .rope_f64("alpha")
        .filter(|_| config.rope_type() == "dynamic")
    else {
        return Ok(());
    };
    let base = config.rope_f64("rope_theta").unwrap_or(10000.0);
    let dim = f64::from(config.head_dim()?);
    keys.set(
        "rope.freq_base",
        (base * alpha.powf(dim / (dim - 2.0))) as f32,
    );
    keys.set("rope.scaling.type", "none");
    keys.set("rope.scaling.factor", 1.0f32);
    keys.set("rope.scaling.original_context_length", CONTEXT);
    keys.set("context_length", CONTEXT);
    Ok(())
}
