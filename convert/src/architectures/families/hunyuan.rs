//! Hunyuan's dense models.

use super::super::{Action, Architecture, Keys, Model, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, QK_NORM, QKV};
use crate::Error;

pub(super) const ALL: &[Architecture] = &[Architecture {
    name: "hunyuan-dense",
    classes: &["HunYuanDenseV1ForCausalLM"],
    parts: &[CORE, QKV, QK_NORM, FFN, &[Part::FfnNorm]],
    params: &[Param::Base, Param::With(scaled_base)],
    rules: &[Rule("lm_head.weight", Action::DropIfTied)],
    ..PLAIN
}];

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
