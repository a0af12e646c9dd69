//! Gemma 1 to 4.

use super::super::rope::named;
use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, MOE, QK_NORM, QKV, flag, layer_types, shaped};
use crate::Error;
use crate::config::{Config, as_f64, as_u32};
use crate::expr::Expr;

/// Norms around both halves of a layer.
const NORMS: &[Part] = &[Part::AttnPostNorm, Part::FfnPreNorm, Part::FfnPostNorm];

const PLUS_ONE: &[Rule] = &[
    Rule("*lm_head.weight", Action::Drop),
    Rule("*norm.weight", Action::AddOne),
];

const GEMMA3: Architecture = Architecture {
    name: "gemma3",
    parts: &[CORE, QKV, QK_NORM, FFN, NORMS],
    defaults: |config| {
        config.set_default("num_attention_heads", 8);
        config.set_default("num_key_value_heads", 4);
        config.set_default("head_dim", 256);
        config.set_default("max_position_embeddings", 131_072);
        config.set_default("rms_norm_eps", 1e-6);
        config.set_rope_default("rope_theta", 1e6);
        config.set_local_rope_default(1e4);
    },
    params: &[
        Param::Base,
        Param::MaybeF32("final_logit_softcapping", &["final_logit_softcapping"]),
        Param::With(window_unless_uniform),
        Param::With(|model, keys| attention_scale(model, keys, 62)),
    ],
    rules: PLUS_ONE,
    ..PLAIN
};

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "gemma",
        classes: &["GemmaForCausalLM"],
        parts: &[CORE, QKV, FFN, &[Part::FfnNorm]],
        params: &[Param::With(explicit)],
        rules: PLUS_ONE,
        ..PLAIN
    },
    Architecture {
        name: "gemma2",
        classes: &["Gemma2ForCausalLM"],
        parts: &[CORE, QKV, FFN, NORMS],
        params: &[
            Param::With(explicit),
            Param::MaybeF32("attn_logit_softcapping", &["attn_logit_softcapping"]),
            Param::MaybeF32("final_logit_softcapping", &["final_logit_softcapping"]),
            Param::U32("attention.sliding_window", &["sliding_window"]),
            Param::With(|model, keys| attention_scale(model, keys, 46)),
        ],
        rules: PLUS_ONE,
        ..PLAIN
    },
    Architecture {
        classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        ..GEMMA3
    },
    Architecture {
        name: "gemma-embedding",
        classes: &["Gemma3TextModel"],
        params: &[
            Param::Base,
            Param::MaybeF32("final_logit_softcapping", &["final_logit_softcapping"]),
            Param::U32("attention.sliding_window", &["sliding_window"]),
            Param::With(|model, keys| {
                if let Some(pooling) = super::bert::pooling(model)? {
                    keys.set("pooling_type", pooling);
                }
                Ok(())
            }),
        ],
        ..GEMMA3
    },
    Architecture {
        name: "gemma3n",
        classes: &["Gemma3nForCausalLM", "Gemma3nForConditionalGeneration"],
        parts: &[
            CORE,
            QKV,
            QK_NORM,
            FFN,
            NORMS,
            PER_LAYER,
            &[
                Part::AltupProj,
                Part::AltupUnembdProj,
                Part::AltupCorrectCoef,
                Part::AltupCorrectScale,
                Part::AltupPredictCoef,
                Part::AltupRouter,
                Part::AltupRouterNorm,
                Part::LaurelL,
                Part::LaurelR,
                Part::LaurelPostNorm,
            ],
        ],
        params: &[
            Param::Base,
            Param::MaybeF32("final_logit_softcapping", &["final_logit_softcapping"]),
            Param::With(window_unless_uniform),
            Param::U32("altup.active_idx", &["altup_active_idx"]),
            Param::U32("altup.num_inputs", &["altup_num_inputs"]),
            Param::U32(
                "embedding_length_per_layer_input",
                &["hidden_size_per_layer_input"],
            ),
            Param::U32("attention.shared_kv_layers", &["num_kv_shared_layers"]),
            Param::With(sparsity),
            Param::With(window_pattern),
        ],
        rules: &[
            Rule("*embed_tokens*.weight", Action::With(pad_embedding)),
            Rule("*.altup_projections.*", Action::Elsewhere),
            Rule("*.altup_unembed_projections.*", Action::Elsewhere),
            Rule("*_scale", Action::Replace("_scale", "_scale.weight")),
        ],
        generated: altup_projections,
        ..PLAIN
    },
    GEMMA4,
    Architecture {
        classes: &["Gemma4UnifiedForConditionalGeneration"],
        params: &[
            Param::With(|model, keys| GEMMA4_PARAMS.iter().try_for_each(|p| p.write(model, keys))),
            Param::With(suppressed),
        ],
        ..GEMMA4
    },
];

/// Tokens that are never generated.
fn suppressed(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let generation = model.files.json("generation_config.json")?;
    let listed = generation
        .as_ref()
        .and_then(|config| config.get("suppress_tokens")?.as_array());
    let Some(listed) = listed else {
        return Ok(());
    };
    let tokens: Option<Vec<i32>> = listed
        .iter()
        .map(|token| as_u32(token).map(u32::cast_signed))
        .collect();
    let tokens = tokens.ok_or_else(|| Error::config("suppress_tokens", "lists no tokens"))?;
    keys.metadata.set("tokenizer.ggml.suppress_tokens", tokens);
    Ok(())
}

const GEMMA4_PARAMS: &[Param] = &[
    Param::Base,
    Param::MaybeF32("final_logit_softcapping", &["final_logit_softcapping"]),
    Param::With(window_unless_uniform),
    Param::U32("attention.shared_kv_layers", &["num_kv_shared_layers"]),
    Param::With(gemma4),
];

const GEMMA4: Architecture = Architecture {
    name: "gemma4",
    classes: &["Gemma4ForCausalLM", "Gemma4ForConditionalGeneration"],
    parts: &[
        CORE,
        QKV,
        QK_NORM,
        FFN,
        MOE,
        NORMS,
        PER_LAYER,
        &[
            Part::RopeFreqs,
            Part::FfnGateUpExp,
            Part::FfnPreNorm2,
            Part::FfnPostNorm1,
            Part::FfnPostNorm2,
            Part::LayerOutScale,
        ],
    ],
    params: GEMMA4_PARAMS,
    rules: &[
        Rule(
            "*.layer_scalar",
            Action::Replace("layer_scalar", "layer_scalar.weight"),
        ),
        Rule(
            "*.per_dim_scale",
            Action::Replace("per_dim_scale", "per_dim_scale.weight"),
        ),
        Rule("*.experts.gate_up_proj", Action::With(with_suffix)),
        Rule("*.experts.down_proj", Action::With(with_suffix)),
        Rule("*.router.scale", Action::With(router_scale)),
        Rule("*.router.per_expert_scale", Action::With(expert_scale)),
    ],
    generated: proportional_rope,
    ..PLAIN
};

/// Embeddings and projections of the layers' own inputs.
const PER_LAYER: &[Part] = &[
    Part::PerLayerTokenEmbd,
    Part::PerLayerModelProj,
    Part::PerLayerInpGate,
    Part::PerLayerProj,
    Part::PerLayerProjNorm,
    Part::PerLayerPostNorm,
];

/// The keys of the first two generations, which have an order of their own.
fn explicit(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    keys.set("context_length", config.u32(&["max_position_embeddings"])?);
    keys.set("embedding_length", config.hidden()?);
    keys.set("block_count", model.block_count()?);
    keys.set("feed_forward_length", config.u32(&["intermediate_size"])?);
    keys.set("attention.head_count", config.heads()?);
    keys.set("attention.head_count_kv", config.kv_heads()?);
    let epsilon = config.f64(&["rms_norm_eps"])? as f32;
    keys.set("attention.layer_norm_rms_epsilon", epsilon);
    keys.set("attention.key_length", config.u32(&["head_dim"])?);
    keys.set("attention.value_length", config.u32(&["head_dim"])?);
    keys.file_type();
    Ok(())
}

/// The scale of the scores, where it is not the one that graphs have built in: by the length of a
/// head, or (for the number of layers of the largest model) by the width over the heads.
fn attention_scale(model: &Model, keys: &mut Keys, largest: u32) -> Result<(), Error> {
    let config = &model.config;
    let Some(scalar) = config.opt_f64(&["query_pre_attn_scalar"])? else {
        return Ok(());
    };
    let built_in = match config.layers()? == largest {
        true => config.hidden()? / config.heads()?.max(1),
        false => config.head_dim()?,
    };
    if scalar > 0.0 && scalar != f64::from(built_in) {
        keys.set("attention.scale", scalar.sqrt().recip() as f32);
    }
    Ok(())
}

/// A pattern of one means that no layer has a window.
fn window_unless_uniform(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let period = model.config.opt_u32(&["sliding_window_pattern"])?;
    if let Some(window) = model.config.opt_u32(&["sliding_window"])?
        && period != Some(1)
    {
        keys.set("attention.sliding_window", window);
    }
    Ok(())
}

fn window_pattern(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let pattern = layer_types(&model.config, "sliding_attention")
        .ok_or_else(|| Error::config("layer_types", "is missing"))?;
    keys.set("attention.sliding_window_pattern", pattern);
    Ok(())
}

/// The share of activations that is set to zero, as the quantile of the normal distribution.
fn sparsity(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let shares = super::floats(&model.config, "activation_sparsity_pattern")?;
    let scales: Vec<f32> = shares
        .iter()
        .map(|&share| normal_quantile(share) as f32)
        .collect();
    keys.set("activation_sparsity_scale", scales);
    Ok(())
}

/// Inverse of the normal distribution function, by bisection on its complement; exact to f32.
fn normal_quantile(share: f64) -> f64 {
    if share <= 0.0 {
        return f64::NEG_INFINITY;
    }
    if share >= 1.0 {
        return f64::INFINITY;
    }
    if share == 0.5 {
        return 0.0;
    }
    let (mut low, mut high) = (-40.0f64, 40.0f64);
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if normal_share(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// The normal distribution function, by its series (Marsaglia 2004).
fn normal_share(x: f64) -> f64 {
    if x < -8.0 {
        return 0.0;
    }
    if x > 8.0 {
        return 1.0;
    }
    let (mut sum, mut term, mut i) = (x, x, 3.0);
    while sum + term != sum {
        term *= x * x / i;
        sum += term;
        i += 2.0;
    }
    0.5 + sum * (-0.5 * x * x - 0.918_938_533_204_672_8).exp()
}

/// Rows up to the vocabulary's size, filled with zeros.
fn pad_embedding(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let wanted = u64::from(model.config.u32(&["vocab_size"])?);
    let rows = expr.row_count();
    if rows >= wanted {
        return Ok(vec![(name.to_owned(), expr)]);
    }
    if wanted > rows.saturating_mul(2) {
        return Err(Error::tensor(
            name,
            format!("has {rows} rows, and config.json states {wanted} tokens"),
        ));
    }
    let zeros = Expr::zeros(expr.ty(), &[expr.row_len(), wanted - rows]);
    let padded = shaped(name, Expr::concat(vec![expr, zeros], &[wanted]))?;
    Ok(vec![(name.to_owned(), padded)])
}

/// Projections that are stored one by one, stacked.
fn altup_projections(model: &Model) -> Result<Vec<Named>, Error> {
    let mut out = Vec::new();
    for (stored, stem) in [
        ("altup_projections", "altup_proj"),
        ("altup_unembed_projections", "altup_unembd_proj"),
    ] {
        let mut parts: Vec<(u32, Expr)> = Vec::new();
        for tensor in model.tensors {
            if let Some((_, rest)) = tensor.name.split_once(&format!("{stored}."))
                && let Some(number) = rest.split('.').next().and_then(|n| n.parse().ok())
            {
                parts.push((number, Expr::load(tensor)));
            }
        }
        parts.sort_by_key(|part| part.0);
        if !parts.is_empty() {
            let stack = Expr::stack(parts.into_iter().map(|part| part.1).collect());
            out.push((format!("{stem}.weight"), shaped(stored, stack)?));
        }
    }
    Ok(out)
}

/// Sizes of heads by kind of layer: windows have `head_dim`, full attention may have more.
fn gemma4(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let local = config.head_dim()?;
    let pattern = layer_types(config, "sliding_attention")
        .ok_or_else(|| Error::config("layer_types", "is missing"))?;
    let full = full_head_dim(model)?;
    keys.set(
        "embedding_length_per_layer_input",
        config
            .opt_u32(&["hidden_size_per_layer_input"])?
            .unwrap_or(0),
    );
    keys.set("attention.sliding_window_pattern", pattern.clone());
    keys.set("attention.key_length", full);
    keys.set("attention.value_length", full);
    keys.set("attention.key_length_swa", local);
    keys.set("attention.value_length_swa", local);
    if let Some(width) = config.opt_u32(&["moe_intermediate_size", "expert_intermediate_size"])? {
        keys.set("expert_feed_forward_length", width);
    }
    let global = match config.opt_u32(&["num_global_key_value_heads"])? {
        Some(global) => Some(global),
        None => of_full_attention(config, "num_key_value_heads"),
    };
    if let Some(global) = global {
        let heads = config.kv_heads()?;
        let heads: Vec<i32> = pattern
            .iter()
            .map(|&window| if window { heads } else { global }.cast_signed())
            .collect();
        keys.set("attention.head_count_kv", heads);
    }
    keys.set("rope.dimension_count", full);
    keys.set("rope.dimension_count_swa", local);
    if flag(config, "use_double_wide_mlp") {
        let width = config.u32(&["intermediate_size"])?;
        let layers = config.layers()?;
        let shared = config.opt_u32(&["num_kv_shared_layers"])?.unwrap_or(0);
        let widths: Vec<i32> = (0..layers)
            .map(|layer| {
                let double = shared > 0 && layer >= layers.saturating_sub(shared);
                (if double { 2 * width } else { width }).cast_signed()
            })
            .collect();
        keys.set("feed_forward_length", widths);
    }
    Ok(())
}

/// Size of the heads of full attention: stated once, or for the layers that differ.
fn full_head_dim(model: &Model) -> Result<u32, Error> {
    let config = &model.config;
    if let Some(dim) = config.opt_u32(&["global_head_dim"])? {
        return Ok(dim);
    }
    match of_full_attention(config, "head_dim") {
        Some(dim) => Ok(dim),
        None => config.head_dim(),
    }
}

/// A field that layers of full attention have for themselves.
fn of_full_attention(config: &Config, field: &str) -> Option<u32> {
    let full = layer_types(config, "full_attention")?;
    let first = full.iter().position(|&full| full)?;
    let layers = config.get("per_layer_config")?;
    as_u32(layers.get(first.to_string())?.get(field)?)
}

/// Rotary factors of full attention: 1 for the rotated pairs, and a divisor that stops the others.
fn proportional_rope(model: &Model) -> Result<Vec<Named>, Error> {
    let dim = full_head_dim(model)?;
    let share = model
        .config
        .rope("partial_rotary_factor")
        .and_then(as_f64)
        .unwrap_or(1.0);
    let rotated = ((share * f64::from(dim)) as u32 / 2).min(dim / 2);
    let factors = (0..dim / 2)
        .map(|pair| if pair < rotated { 1.0 } else { 1e30 })
        .collect();
    Ok(vec![named("rope_freqs.weight", factors)?])
}

/// Stacks are stored without the suffix that matrices have.
fn with_suffix(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    Ok(vec![(format!("{name}.weight"), expr)])
}

fn router_scale(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let layer = super::layer_of(name)?;
    Ok(vec![(format!("blk.{layer}.ffn_gate_inp.scale"), expr)])
}

fn expert_scale(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let layer = super::layer_of(name)?;
    Ok(vec![(format!("blk.{layer}.ffn_down_exps.scale"), expr)])
}

#[cfg(test)]
mod tests {
    #[test]
    fn quantiles() {
        assert_eq!(super::normal_quantile(0.95) as f32, 1.644_853_6);
        assert_eq!(super::normal_quantile(0.0), f64::NEG_INFINITY);
        assert_eq!(super::normal_quantile(0.5), 0.0);
    }
}
