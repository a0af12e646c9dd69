//! Granite: Llama with scales, dense and with experts.

use super::super::{Action, Architecture, Keys, Model, Named, Param, Part, Rule};
use super::llama::{LLAMA, PARAMS, rope_dimension};
use super::{CORE, FFN, MOE, QKV, SHARED, layer_of, layer_types, split_gate_up};
use crate::Error;
use crate::config::as_u32;
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
    parts: &[CORE, QKV, MOE, SHARED, &[Part::RopeFreqs, Part::FfnNorm]],
    defaults: |config| config.remove("head_dim"),
    params: &[
        Param::Base,
        Param::U32("vocab_size", &["vocab_size"]),
        Param::With(rope_dimension),
        Param::With(scales),
        Param::With(shared_width),
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
        parts: &[CORE, QKV, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        ..GRANITE_MOE
    },
    Architecture {
        classes: &["GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"],
        ..GRANITE_MOE
    },
    Architecture {
        name: "granite",
        classes: &[
            "GraniteSpeechForConditionalGeneration",
            "GraniteSpeechPlusForConditionalGeneration",
        ],
        parts: &[CORE, QKV, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        rules: &[
            Rule("encoder.*", Action::Drop),
            Rule("model.encoder.*", Action::Drop),
            Rule("*.q_proj.*", Action::PermuteQ),
            Rule("*.k_proj.*", Action::PermuteK),
        ],
        ..GRANITE_MOE
    },
    GRANITE_SWA,
    Architecture {
        classes: &["GraniteMoeSWAForCausalLM"],
        params: &[Param::With(windowed), Param::With(shared_width)],
        ..GRANITE_SWA
    },
];

const GRANITE_SWA: Architecture = Architecture {
    name: "granite_swa",
    classes: &["GraniteSWAForCausalLM"],
    parts: &[
        CORE,
        QKV,
        FFN,
        MOE,
        &[
            Part::AttnSinks,
            Part::RopeFreqs,
            Part::FfnNorm,
            Part::FfnGateUpExp,
            Part::FfnUpShexp,
            Part::FfnDownShexp,
        ],
    ],
    params: &[Param::With(windowed)],
    rules: &[
        Rule("*.sinks", Action::Replace("sinks", "sinks.weight")),
        Rule("*.q_proj.*", Action::PermuteQ),
        Rule("*.k_proj.*", Action::PermuteK),
        // Gate and up stay one matrix.
        Rule("*.block_sparse_moe.experts.gate_up_proj", GATE_UP),
        Rule("*.block_sparse_moe.input_linear.weight", GATE_UP),
        Rule(
            "*.block_sparse_moe.experts.down_proj",
            Action::With(|_, name, expr| {
                let layer = layer_of(name)?;
                Ok(vec![(format!("blk.{layer}.ffn_down_exps.weight"), expr)])
            }),
        ),
        Rule(
            "*.shared_mlp.input_linear.weight",
            Action::With(|_, name, expr| {
                let layer = layer_of(name)?;
                Ok(vec![(format!("blk.{layer}.ffn_up_shexp.weight"), expr)])
            }),
        ),
    ],
    ..GRANITE_MOE
};

const GATE_UP: Action = Action::With(|_, name, expr| {
    let layer = layer_of(name)?;
    Ok(vec![(format!("blk.{layer}.ffn_gate_up_exps.weight"), expr)])
});

/// Width of the network that every token goes through, if there is one.
fn shared_width(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let width = model.config.opt_u32(&["shared_intermediate_size"])?;
    if let Some(width) = width.filter(|&width| width > 0) {
        keys.set("expert_shared_feed_forward_length", width);
    }
    Ok(())
}

/// Granite's keys, the window, and which layers rotate.
fn windowed(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    for param in PARAMS {
        param.write(model, keys)?;
    }
    scales(model, keys)?;
    let window = config.opt_u32(&["sliding_window"])?.unwrap_or(128);
    keys.set("attention.sliding_window", window);
    let layers = config.layers()?;
    let windowed = layer_types(config, "sliding_attention")
        .unwrap_or_else(|| (0..layers).map(|layer| layer % 4 != 0).collect());
    keys.set("attention.sliding_window_pattern", windowed.clone());
    let bases = match config.list("layer_rope_theta") {
        Some(_) => super::floats(config, "layer_rope_theta")?,
        None => Vec::new(),
    };
    if let Some(list) = config.list("no_rope_layers") {
        let rotates: Vec<bool> = list.iter().map(|flag| as_u32(flag) != Some(0)).collect();
        keys.set("attention.rope_pattern", rotates);
    } else if bases.contains(&0.0) {
        let rotates: Vec<bool> = bases.iter().map(|&base| base != 0.0).collect();
        keys.set("attention.rope_pattern", rotates);
    }
    // GGUF has a base for layers with the window and one for the others.
    let base_of = |kind: bool| {
        let of_kind = bases.iter().zip(&windowed).filter(|(_, w)| **w == kind);
        let mut of_kind = of_kind.map(|(&base, _)| base).filter(|&base| base != 0.0);
        let first = of_kind.next();
        if of_kind.any(|other| Some(other) != first) {
            let problem = "has several bases for one kind of layer, which GGUF has no key for";
            return Err(Error::config("layer_rope_theta", problem));
        }
        Ok(first.or(config.rope_f64("rope_theta")))
    };
    let (full, local) = (base_of(false)?, base_of(true)?);
    if let Some(full) = full.filter(|_| full != config.rope_f64("rope_theta")) {
        keys.set("rope.freq_base", full as f32);
    }
    if let Some(local) = local.filter(|_| local != full) {
        keys.set("rope.freq_base_swa", local as f32);
    }
    Ok(())
}

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
