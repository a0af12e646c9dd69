//! Granite: Llama with scales, dense and with experts.

use super::super::{Action, Architecture, Keys, Model, Named, Param, Part, Rule};
use super::llama::{LLAMA, rope_dimension};
use super::{CORE, FFN, MOE, QKV, SHARED, layer_of, split_gate_up};
use crate::Error;
use crate::expr::Expr;

/// Scales that a Granite states.
pub(super) fn scales(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    for (key, field) in [
        ("attention.scale", "attention_multiplier"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("logit_scale", "logits_scaling"),
    ] {
        if let Some(scale) = model
            .config
            .opt_f64(&[field])?
            .filter(|&scale| scale != 0.0)
        {
            keys.set(key, scale as f32);
        }
    }
    Ok(())
}

/// Fused matrices of experts and of the shared network.
pub(super) const SPLIT_EXPERTS: Rule = Rule(
    "*.block_sparse_moe.input_linear.weight",
    Action::With(split_experts),
);
/// Fused matrices of the shared network.
pub(super) const SPLIT_SHARED: Rule = Rule(
    "*.shared_mlp.input_linear.weight",
    Action::With(split_shared),
);
/// The shared network's way down.
pub(super) const SHARED_DOWN: Rule = Rule(
    "*.shared_mlp.output_linear.weight",
    Action::With(shared_down),
);

pub(super) const GRANITE_MOE: Architecture = Architecture {
    name: "granitemoe",
    parts: &[CORE, QKV, MOE, SHARED, &[Part::FfnNorm]],
    defaults: |config| config.remove("head_dim"),
    params: &[
        Param::Base,
        Param::U32("vocab_size", &["vocab_size"]),
        Param::With(rope_dimension),
        Param::With(scales),
        Param::MaybeU32(
            "expert_shared_feed_forward_length",
            &["shared_intermediate_size"],
        ),
    ],
    rules: &[
        Rule("*.q_proj.*", Action::PermuteQ),
        Rule("*.k_proj.*", Action::PermuteK),
        SPLIT_EXPERTS,
        SPLIT_SHARED,
    ],
    ..LLAMA
};

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "granite",
        classes: &["GraniteForCausalLM"],
        parts: &[CORE, QKV, FFN, &[Part::FfnNorm]],
        ..GRANITE_MOE
    },
    Architecture {
        classes: &["GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"],
        ..GRANITE_MOE
    },
];

fn split_experts(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let layer = layer_of(name)?;
    split_gate_up(
        name,
        &expr,
        &format!("blk.{layer}.ffn_gate_exps.weight"),
        &format!("blk.{layer}.ffn_up_exps.weight"),
    )
}

/// Beside experts the network is shared; without them it is the layer's own.
fn shared_suffix(model: &Model) -> Result<&'static str, Error> {
    let experts = model.config.opt_u32(&["num_local_experts"])?;
    Ok(match experts {
        None | Some(0) => "",
        Some(_) => "_shexp",
    })
}

fn shared_down(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let (layer, suffix) = (layer_of(name)?, shared_suffix(model)?);
    Ok(vec![(format!("blk.{layer}.ffn_down{suffix}.weight"), expr)])
}

fn split_shared(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let (layer, suffix) = (layer_of(name)?, shared_suffix(model)?);
    split_gate_up(
        name,
        &expr,
        &format!("blk.{layer}.ffn_gate{suffix}.weight"),
        &format!("blk.{layer}.ffn_up{suffix}.weight"),
    )
}
