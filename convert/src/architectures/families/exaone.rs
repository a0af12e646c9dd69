//! EXAONE 4.

use serde_json::Value as Json;

use super::super::{Architecture, Keys, Model, PLAIN, Param, Part};
use super::{FFN, QK_NORM, QKV, layer_types};
use crate::Error;
use crate::config::as_u32;

pub(super) const ALL: &[Architecture] = &[Architecture {
    name: "exaone4",
    classes: &["Exaone4ForCausalLM"],
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
}];

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
