//! State space beside attention: Falcon-H1, Granite 4, Jamba; and what they share with Mamba.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::granite::{SHARED_DOWN, SPLIT_EXPERTS, SPLIT_SHARED};
use super::llama::rope_dimension;
use super::{CORE, FFN, MOE, QKV, SHARED, floats, layer_types, shaped};
use crate::Error;
use crate::config::Config;
use crate::expr::{Arithmetic, Expr};

/// Decay of Mamba 2, a column.
pub(super) const DECAY_COLUMN: Rule = Rule("*.A_log", Action::With(decay_column));
/// Skip connection of Mamba 2, a column.
pub(super) const SKIP_COLUMN: Rule = Rule("*.D", Action::With(column));
/// Decay of Mamba 1.
pub(super) const DECAY: Rule = Rule("*.A_log", Action::NegExp);
/// The convolution without its middle dimension.
pub(super) const CONVOLUTION: Rule = Rule("*.conv1d.weight", Action::Squeeze);
/// The time step's bias as a bias.
pub(super) const TIME_STEP: Rule = Rule("*.dt_bias", Action::Replace("dt_bias", "dt_proj.bias"));

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "falcon-h1",
        classes: &["FalconH1ForCausalLM"],
        parts: &[
            CORE,
            QKV,
            FFN,
            SSM_PLAIN,
            &[Part::FfnPreNorm, Part::SsmNorm],
        ],
        params: &[Param::With(falcon_h1)],
        rules: &[
            DECAY_COLUMN,
            SKIP_COLUMN,
            CONVOLUTION,
            TIME_STEP,
            Rule("*.mamba.norm.weight", Action::With(group_norm)),
            Rule("*", Action::With(multiplied)),
            Rule(
                "model.final_layernorm.weight",
                Action::Replace("final_layernorm", "norm"),
            ),
            Rule("*.feed_forward.*", Action::Replace("feed_forward.", "mlp.")),
        ],
        ..PLAIN
    },
    GRANITE_HYBRID,
    // The class without any state space: names and graph of the older Granite.
    Architecture {
        name: "granitemoe",
        classes: &["GraniteMoeHybridForCausalLM"],
        only: Some(|config| attends_only(config) && uses_experts(config)),
        ..GRANITE_HYBRID
    },
    Architecture {
        name: "granite",
        classes: &["GraniteMoeHybridForCausalLM"],
        only: Some(|config| attends_only(config) && !uses_experts(config)),
        ..GRANITE_HYBRID
    },
    Architecture {
        name: "jamba",
        classes: &["JambaForCausalLM"],
        parts: &[
            CORE,
            QKV,
            FFN,
            MOE,
            SSM_PLAIN,
            &[
                Part::FfnNorm,
                Part::SsmX,
                Part::SsmDtNorm,
                Part::SsmBNorm,
                Part::SsmCNorm,
            ],
        ],
        params: &[Param::With(jamba)],
        rules: &[
            Rule("*.moe.*", Action::Replace(".moe.", ".feed_forward.")),
            Rule("*.feed_forward.experts.0.*", Action::With(lone_expert)),
            DECAY,
            CONVOLUTION,
        ],
        ..PLAIN
    },
];

const GRANITE_HYBRID: Architecture = Architecture {
    name: "granitehybrid",
    classes: &["GraniteMoeHybridForCausalLM", "BambaForCausalLM"],
    parts: &[
        CORE,
        QKV,
        FFN,
        MOE,
        SHARED,
        SSM_PLAIN,
        &[Part::FfnNorm, Part::SsmNorm],
    ],
    defaults: |config| config.remove("head_dim"),
    params: &[Param::With(granite_hybrid)],
    rules: &[
        Rule("*.q_proj.*", Action::PermuteQ),
        Rule("*.k_proj.*", Action::PermuteK),
        SPLIT_EXPERTS,
        SPLIT_SHARED,
        SHARED_DOWN,
        DECAY_COLUMN,
        SKIP_COLUMN,
        CONVOLUTION,
        TIME_STEP,
        Rule("*.mamba.norm.weight", Action::With(group_norm)),
    ],
    ..PLAIN
};

fn attends_only(config: &Config) -> bool {
    attention_layers(config).is_ok_and(|layers| layers.iter().all(|&attends| attends))
}

fn uses_experts(config: &Config) -> bool {
    let used = config.opt_u32(&["num_experts_per_tok", "num_experts_per_token"]);
    used.is_ok_and(|used| used.unwrap_or(0) > 0)
}

/// State space without its norm.
const SSM_PLAIN: &[Part] = &[
    Part::SsmIn,
    Part::SsmConv1d,
    Part::SsmDt,
    Part::SsmA,
    Part::SsmD,
    Part::SsmOut,
];

fn column(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let column = shaped(name, expr.reshape(&[1, expr.elements()]))?;
    Ok(vec![(name.to_owned(), column)])
}

fn decay_column(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    column(model, name, expr.compute(Arithmetic::NegExp))
}

/// The norm of the inner activations, a row for each group.
pub(super) fn group_norm(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let groups = model
        .config
        .opt_u32(&["n_groups", "mamba_n_groups"])?
        .unwrap_or(1);
    let groups = u64::from(groups.max(1));
    let rows = shaped(name, expr.reshape(&[expr.elements() / groups, groups]))?;
    Ok(vec![(name.to_owned(), rows)])
}

/// Width of the state space: stated, or a multiple of the model's.
fn inner(config: &Config) -> Result<u32, Error> {
    match config.opt_u32(&["mamba_d_ssm", "intermediate_size_mamba"])? {
        Some(inner) => Ok(inner),
        None => Ok(config.hidden()? * config.opt_u32(&["mamba_expand"])?.unwrap_or(2)),
    }
}

fn falcon_h1(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let inner = inner(config)?;
    keys.set("context_length", config.u32(&["max_position_embeddings"])?);
    keys.set("embedding_length", config.hidden()?);
    keys.set("feed_forward_length", config.u32(&["intermediate_size"])?);
    keys.set("attention.head_count", config.heads()?);
    keys.set("block_count", model.block_count()?);
    keys.set("ssm.conv_kernel", config.u32(&["mamba_d_conv"])?);
    keys.set("ssm.inner_size", inner);
    keys.set("ssm.state_size", config.u32(&["mamba_d_state"])?);
    let head = config.u32(&["mamba_d_head"])?.max(1);
    keys.set("ssm.time_step_rank", inner / head);
    keys.set("ssm.group_count", config.u32(&["mamba_n_groups"])?);
    let epsilon = config.f64(&["rms_norm_eps"])? as f32;
    keys.set("attention.layer_norm_rms_epsilon", epsilon);
    keys.file_type();
    keys.set("vocab_size", config.u32(&["vocab_size"])?);
    keys.set("attention.head_count_kv", config.kv_heads()?);
    let dim = config.head_dim()?;
    keys.set("attention.key_length", dim);
    keys.set("attention.value_length", dim);
    let base = config.rope_f64("rope_theta").unwrap_or(1e4);
    keys.set("rope.freq_base", base as f32);
    Ok(())
}

fn tied(config: &Config) -> bool {
    super::flag(config, "tie_word_embeddings")
}

/// Multipliers that the model applies to activations, moved into its weights.
fn multiplied(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let config = &model.config;
    let factor = |field: &'static str| -> Result<f64, Error> {
        Ok(config.opt_f64(&[field])?.unwrap_or(1.0))
    };
    let mlp = |at: usize| -> Result<f64, Error> {
        Ok(floats(config, "mlp_multipliers")?
            .get(at)
            .copied()
            .unwrap_or(1.0))
    };
    let scaled = |factor: f64| Ok(expr.compute(Arithmetic::Multiply(factor as f32)));
    let is = |part: &str| name.contains(part);
    if is("embed_tokens") && tied(config) {
        // The head's multiplier is another one than the embedding's: two matrices.
        let head = expr.compute(Arithmetic::Multiply(factor("lm_head_multiplier")? as f32));
        let embedding = scaled(factor("embedding_multiplier")?)?;
        return Ok(vec![
            (name.to_owned(), embedding),
            ("lm_head.weight".to_owned(), head),
        ]);
    }
    let expr = if is("embed_tokens") {
        scaled(factor("embedding_multiplier")?)
    } else if is("lm_head") {
        scaled(factor("lm_head_multiplier")?)
    } else if is("q_proj") || is("v_proj") {
        scaled(factor("attention_in_multiplier")?)
    } else if is("k_proj") {
        scaled(factor("key_multiplier")? * factor("attention_in_multiplier")?)
    } else if is("o_proj") {
        scaled(factor("attention_out_multiplier")?)
    } else if is("gate_proj") {
        scaled(mlp(0)?)
    } else if is("down_proj") {
        scaled(mlp(1)?)
    } else if is("mamba.out_proj") {
        scaled(factor("ssm_out_multiplier")?)
    } else if is("mamba.in_proj") {
        let rows = input_factors(config, factor("ssm_in_multiplier")?)?;
        let input = expr.compute(Arithmetic::Multiply(rows.0));
        shaped(name, input.scale_rows(rows.1))
    } else {
        Ok(expr)
    }?;
    Ok(vec![(name.to_owned(), expr)])
}

/// The factor of the whole input projection, and that of each of its rows: gate, values, B, C
/// and time step.
fn input_factors(config: &Config, input: f64) -> Result<(f32, Vec<f32>), Error> {
    let factors = floats(config, "ssm_multipliers")?;
    let inner = inner(config)?;
    let state = config.u32(&["mamba_n_groups"])? * config.u32(&["mamba_d_state"])?;
    let heads = inner / config.u32(&["mamba_d_head"])?.max(1);
    let sizes = [inner, inner, state, state, heads];
    let rows = sizes.iter().zip(factors);
    let rows = rows.flat_map(|(&size, factor)| std::iter::repeat_n(factor as f32, size as usize));
    Ok((input as f32, rows.collect()))
}

/// Which layers attend: by their types, by a list of them, or by a period.
fn attention_layers(config: &Config) -> Result<Vec<bool>, Error> {
    // Published, and as newer versions of transformers spell it.
    for kind in ["attention", "full_attention"] {
        if let Some(attention) = layer_types(config, kind)
            && attention.contains(&true)
        {
            return Ok(attention);
        }
    }
    if let Some(types) = config.list("layer_types") {
        return Ok(vec![false; types.len()]);
    }
    let layers = 0..config.layers()?;
    if config.list("attn_layer_indices").is_some() {
        let listed = floats(config, "attn_layer_indices")?;
        return Ok(layers
            .map(|layer| listed.contains(&f64::from(layer)))
            .collect());
    }
    let period = config
        .opt_u32(&["attn_layer_period"])?
        .filter(|&period| period > 0);
    let period = period.ok_or_else(|| Error::config("layer_types", "is missing"))?;
    let offset = config.opt_u32(&["attn_layer_offset"])?.unwrap_or(0);
    Ok(layers.map(|layer| layer % period == offset).collect())
}

fn granite_hybrid(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    Param::Base.write(model, keys)?;
    let config = &model.config;
    // Attention layers have key and value heads, the others none.
    let attention = attention_layers(config)?;
    let heads = config.kv_heads()?.cast_signed();
    let heads: Vec<i32> = attention
        .iter()
        .map(|&a| if a { heads } else { 0 })
        .collect();
    keys.set("attention.head_count_kv", heads);
    let rope = config.str("position_embedding_type") != Some("nope");
    if !rope {
        keys.set("context_length", 1u32 << 20);
    }
    keys.set("vocab_size", config.u32(&["vocab_size"])?);
    match config.opt_u32(&["attn_rotary_emb"])? {
        Some(dim) => keys.set("rope.dimension_count", dim),
        None => rope_dimension(model, keys)?,
    }
    super::granite::scales(model, keys)?;
    Param::MaybeU32(
        "expert_shared_feed_forward_length",
        &["shared_intermediate_size"],
    )
    .write(model, keys)?;
    let inner = inner(config)?;
    keys.set("ssm.conv_kernel", config.u32(&["mamba_d_conv"])?);
    keys.set("ssm.state_size", config.u32(&["mamba_d_state"])?);
    keys.set("ssm.group_count", config.u32(&["mamba_n_groups"])?);
    keys.set("ssm.inner_size", inner);
    let head = config.u32(&["mamba_d_head"])?.max(1);
    keys.set("ssm.time_step_rank", inner / head);
    keys.set("rope.scaling.finetuned", rope);
    Ok(())
}

/// Whether a layer is the `offset`-th of every `period`.
fn periodic(config: &Config, layer: u32, kind: [&'static str; 2]) -> Result<bool, Error> {
    let [period, offset] = kind;
    let period = config.u32(&[period])?.max(1);
    Ok(layer % period == config.u32(&[offset])?)
}

fn jamba(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let hidden = config.hidden()?;
    keys.set("block_count", model.block_count()?);
    let context = config.opt_u32(&["max_position_embeddings", "n_ctx"])?;
    keys.set("context_length", context.unwrap_or(262_144));
    keys.set("embedding_length", hidden);
    keys.set("feed_forward_length", config.u32(&["intermediate_size"])?);
    keys.set("attention.head_count", config.heads()?);
    let kv = config.kv_heads()?.cast_signed();
    let heads = (0..config.layers()?)
        .map(|layer| {
            let attention = periodic(config, layer, ["attn_layer_period", "attn_layer_offset"])?;
            Ok(if attention { kv } else { 0 })
        })
        .collect::<Result<Vec<i32>, Error>>()?;
    keys.set("attention.head_count_kv", heads);
    let inner = hidden * config.opt_u32(&["mamba_expand"])?.unwrap_or(2);
    keys.set(
        "ssm.conv_kernel",
        config.opt_u32(&["mamba_d_conv"])?.unwrap_or(4),
    );
    keys.set("ssm.inner_size", inner);
    keys.set(
        "ssm.state_size",
        config.opt_u32(&["mamba_d_state"])?.unwrap_or(16),
    );
    let rank = config
        .opt_u32(&["mamba_dt_rank"])?
        .unwrap_or(hidden.div_ceil(16));
    keys.set("ssm.time_step_rank", rank);
    let epsilon = config.opt_f64(&["rms_norm_eps"])?.unwrap_or(1e-6) as f32;
    keys.set("attention.layer_norm_rms_epsilon", epsilon);
    keys.set(
        "expert_count",
        config.u32(&["num_local_experts", "num_experts"])?,
    );
    keys.set("expert_used_count", config.u32(&["num_experts_per_tok"])?);
    keys.file_type();
    Ok(())
}

/// The only "expert" of a dense layer is the layer's network.
fn lone_expert(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let layer = super::layer_of(name)?;
    let kind = ["expert_layer_period", "expert_layer_offset"];
    let name = if periodic(&model.config, layer, kind)? {
        name.to_owned()
    } else {
        name.replace(".experts.0.", ".")
    };
    Ok(vec![(name, expr)])
}
