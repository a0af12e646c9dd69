//! EXAONE.

use serde_json::Value as Json;

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::deepseek::prediction_layers;
use super::{CORE, FFN, MOE, NEXTN, QK_NORM, QKV, SHARED, layer_types, partial_rotary};
use crate::Error;
use crate::config::as_u32;
use crate::expr::Expr;

const EXAONE4: Architecture = Architecture {
    name: "exaone4",
    classes: &["Exaone4ForCausalLM", "Exaone4_5_ForConditionalGeneration"],
    parts: &[
        QKV,
        QK_NORM,
        FFN,
        &[
            Part::TokenEmbd,
            Part::OutputNorm,
            Part::Output,
            Part::RopeFreqs,
            Part::AttnOut,
            Part::AttnPostNorm,
            Part::FfnPostNorm,
        ],
    ],
    defaults: |config| config.set_rope_default("factor", 16.0),
    params: &[
        Param::Base,
        Param::U32("vocab_size", &["vocab_size"]),
        Param::With(sliding_window),
    ],
    ..PLAIN
};

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "exaone",
        classes: &["ExaoneForCausalLM"],
        parts: &[CORE, QKV, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        params: &[
            Param::Base,
            Param::With(|model, keys| partial_rotary(model, keys, 1.0)),
        ],
        ..PLAIN
    },
    EXAONE4,
    Architecture {
        name: "exaone-moe",
        classes: &["ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM"],
        parts: &[
            CORE,
            QKV,
            QK_NORM,
            FFN,
            MOE,
            SHARED,
            NEXTN,
            &[Part::RopeFreqs, Part::FfnNorm, Part::FfnExpProbsB],
        ],
        params: &[
            Param::Base,
            Param::U32("vocab_size", &["vocab_size"]),
            Param::With(sliding_window),
            Param::U32("expert_feed_forward_length", &["moe_intermediate_size"]),
            Param::U32("expert_shared_count", &["num_shared_experts"]),
            Param::With(|model, keys| {
                let width = model.config.u32(&["moe_intermediate_size"])?;
                let shared = model.config.u32(&["num_shared_experts"])?;
                keys.set(
                    "expert_shared_feed_forward_length",
                    width.saturating_mul(shared),
                );
                Ok(())
            }),
            Param::F32("expert_weights_scale", &["routed_scaling_factor"]),
            Param::MaybeBool("expert_weights_norm", "norm_topk_prob"),
            Param::U32Or(
                "leading_dense_block_count",
                &["first_k_dense_replace", "first_last_k_dense_replace"],
                0,
            ),
            Param::U32Or("nextn_predict_layers", &["num_nextn_predict_layers"], 0),
            Param::SetStr("rope.scaling.type", "none"),
        ],
        rules: &[Rule("mtp.*", Action::With(prediction_name))],
        extra_layers: prediction_layers,
        ..EXAONE4
    },
];

/// Layers that predict further tokens, as layers after the others.
fn prediction_name(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let layers = model.config.layers()?;
    if let Some(layer) = super::super::layer(name) {
        let (from, to) = (format!("mtp.layers.{layer}."), layers.saturating_add(layer));
        let name = name.replacen(&from, &format!("model.layers.{to}."), 1);
        return Ok(vec![(name, expr)]);
    }
    let stem = [
        ("mtp.fc", "eh_proj"),
        ("mtp.pre_fc_norm_embedding", "enorm"),
        ("mtp.pre_fc_norm_hidden", "hnorm"),
        ("mtp.norm", "shared_head.norm"),
    ]
    .into_iter()
    .find_map(|(from, to)| Some((name.strip_prefix(from)?, to)));
    let Some((suffix, stem)) = stem else {
        return Ok(vec![(name.to_owned(), expr)]);
    };
    Ok((layers..model.block_count()?)
        .map(|layer| (format!("model.layers.{layer}.{stem}{suffix}"), expr.clone()))
        .collect())
}

/// The window, and which layers have it: listed, or by a pattern of letters (`LLLG`) or a period.
fn sliding_window(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let Some(window) = config.opt_u32(&["sliding_window"])? else {
        return Ok(());
    };
    keys.set("attention.sliding_window", window);
    let layers = config.layers()? as usize;
    let pattern = config.get("sliding_window_pattern");
    let by_pattern = || -> Option<Vec<bool>> {
        if let Some(letters) = pattern.and_then(Json::as_str) {
            let letters = letters.chars().cycle().take(layers);
            return Some(letters.map(|letter| letter == 'L').collect());
        }
        let period = as_u32(pattern?)?.max(1) as usize;
        Some((1..=layers).map(|n| n % period != 0).collect())
    };
    if let Some(pattern) = layer_types(config, "sliding_attention").or_else(by_pattern) {
        keys.set("attention.sliding_window_pattern", pattern);
    }
    Ok(())
}
