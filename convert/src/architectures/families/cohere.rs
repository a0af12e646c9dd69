//! Command R and its successor.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::deepseek::prediction_layers;
use super::interleaved::leading_dense;
use super::{CORE, FFN, MOE, NEXTN, QK_NORM, QKV, SHARED, layer_types, shaped};
use crate::Error;
use crate::expr::Expr;

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "command-r",
        classes: &["CohereForCausalLM"],
        parts: &[CORE, QKV, QK_NORM, FFN],
        defaults: |config| {
            if let Ok(Some(length)) = config.opt_u32(&["model_max_length"]) {
                config.set("max_position_embeddings", length);
            }
        },
        params: &[
            Param::Base,
            Param::F32("logit_scale", &["logit_scale"]),
            Param::SetStr("rope.scaling.type", "none"),
        ],
        rules: &[Rule("lm_head.weight", Action::Drop)],
        ..PLAIN
    },
    Architecture {
        name: "cohere2",
        classes: &["Cohere2ForCausalLM"],
        parts: &[CORE, QKV, FFN],
        params: &[
            Param::Base,
            Param::F32("logit_scale", &["logit_scale"]),
            Param::U32("attention.sliding_window", &["sliding_window"]),
            Param::U32("vocab_size", &["vocab_size"]),
            Param::With(|model, keys| {
                let share = model.config.opt_f64(&["rotary_pct"])?.unwrap_or(1.0);
                let width = f64::from(model.config.hidden()? / model.config.heads()?.max(1));
                keys.set("rope.dimension_count", (share * width) as u32);
                Ok(())
            }),
            Param::SetStr("rope.scaling.type", "none"),
        ],
        rules: &[
            Rule("lm_head.weight", Action::Drop),
            Rule("*.bias", Action::With(no_bias)),
        ],
        ..PLAIN
    },
    Architecture {
        name: "cohere2moe",
        classes: &["Cohere2MoeForCausalLM"],
        parts: &[CORE, QKV, FFN, MOE, SHARED, NEXTN, &[Part::FfnGateUpExp]],
        params: &[Param::Base, Param::With(cohere2_moe)],
        rules: &[Rule("*.bias", Action::With(no_bias))],
        extra_layers: prediction_layers,
        ..PLAIN
    },
];

fn cohere2_moe(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let layers = config.layers()? as usize;
    let number = |field: &'static str| config.opt_u32(&[field]);
    let stated = number("first_k_dense_replace")?.unwrap_or(0);
    let dense = config.list("mlp_layer_types").map_or(stated, leading_dense);
    let windowed = match layer_types(config, "sliding_attention") {
        Some(windowed) => windowed,
        None => {
            // Full attention ends each period; the layers without experts have one of their own.
            let prefix = number("prefix_dense_sliding_window_pattern")?.unwrap_or(1);
            let rest = number("sliding_window_pattern")?.unwrap_or(4);
            let stated = stated as usize;
            let slides =
                |place: usize, period: u32| !(place + 1).is_multiple_of(period.max(1) as usize);
            (0..layers)
                .map(|layer| match layer.checked_sub(stated) {
                    Some(place) => slides(place, rest),
                    None => slides(layer, prefix),
                })
                .collect()
        }
    };
    keys.set("logit_scale", config.f64(&["logit_scale"])? as f32);
    let window = config.u32(&["sliding_window"])?;
    keys.set("attention.sliding_window", window);
    keys.set("attention.sliding_window_pattern", windowed.clone());
    keys.set("vocab_size", config.u32(&["vocab_size"])?);
    let width = config.u32(&["intermediate_size"])?;
    keys.set("expert_feed_forward_length", width);
    keys.set("leading_dense_block_count", dense);
    let norm = config.bool("norm_topk_prob").unwrap_or(false);
    keys.set("expert_weights_norm", norm);
    let shared = number("num_shared_experts")?.unwrap_or(0);
    if shared > 0 {
        let field = "shared_expert_combination_strategy";
        if let Some(strategy) = config.str(field).filter(|&s| s != "average") {
            let problem = format!("is `{strategy}`; the graph of GGUF knows `average`");
            return Err(Error::config(field, problem));
        }
        let width = width
            .checked_mul(shared)
            .ok_or_else(|| Error::config("num_shared_experts", "is too large"))?;
        keys.set("expert_shared_count", shared);
        keys.set("expert_shared_feed_forward_length", width);
    }
    let predicting = prediction_layers(model)?;
    if predicting > 0 {
        keys.set("nextn_predict_layers", predicting);
    }
    keys.set("rope.dimension_count", config.u32(&["head_dim"])?);
    keys.set("rope.scaling.type", "none");
    // The graph rotates layers without experts whether they have a window or not.
    let prefix = number("prefix_dense_sliding_window_pattern")?.unwrap_or(1);
    if prefix != 1
        && windowed
            .iter()
            .take(dense as usize)
            .any(|&windowed| !windowed)
    {
        keys.set("attention.rope_pattern", windowed);
    }
    Ok(())
}

/// The graph has no biases; checkpoints store zeros.
fn no_bias(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let row = shaped(name, expr.reshape(&[expr.elements()]))?;
    let values = row
        .f32_rows(0..1)
        .map_err(|error| Error::tensor(name, error.to_string()))?;
    if values.iter().any(|&value| value != 0.0) {
        return Err(Error::tensor(
            name,
            "is not zero, and cohere2 graphs have no biases",
        ));
    }
    Ok(Vec::new())
}
