//! Command R and its successor.

use super::super::{Action, Architecture, Model, Named, PLAIN, Param, Rule};
use super::{CORE, FFN, QK_NORM, QKV, shaped};
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
];

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
