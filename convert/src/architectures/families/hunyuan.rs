//! Hunyuan, dense and with experts.

use serde_json::Value as Json;

use super::super::{Action, Architecture, Keys, Model, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, MOE, QK_NORM, QKV, SHARED};
use crate::Error;
use crate::config::as_u32;

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
];

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
