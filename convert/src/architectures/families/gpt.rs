//! GPT-2 and the decoders of its time: fused projections, learned positions or ALiBi.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, QK_NORM, QKV, regroup_qkv, shaped};
use crate::Error;
use crate::expr::Expr;

/// A fused projection and a network without gate.
const FUSED: &[Part] = &[Part::AttnQkv, Part::FfnNorm, Part::FfnDown, Part::FfnUp];

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "gpt2",
        classes: &["GPT2LMHeadModel"],
        parts: &[CORE, FUSED, &[Part::PosEmbd]],
        params: &[Param::With(gpt2)],
        rules: &[
            Rule("*.attn.bias", Action::Drop),
            Rule("*.attn.masked_bias", Action::Drop),
            Rule("lm_head.weight", Action::DropIfTied),
            Rule("*.c_attn.weight", Action::Transpose),
            Rule("*.c_proj.weight", Action::Transpose),
            Rule("*.c_fc.weight", Action::Transpose),
        ],
        defaults: |config| config.set_default("tie_word_embeddings", true),
        ..PLAIN
    },
    Architecture {
        name: "starcoder",
        classes: &["GPTBigCodeForCausalLM"],
        parts: &[CORE, FUSED, &[Part::PosEmbd]],
        params: &[Param::With(starcoder)],
        rules: &[
            Rule("lm_head.weight", Action::DropIfTied),
            Rule("*.c_attn.*", Action::With(single_or_by_head)),
        ],
        defaults: |config| config.set_default("tie_word_embeddings", true),
        ..PLAIN
    },
    Architecture {
        name: "gptneox",
        classes: &["GPTNeoXForCausalLM"],
        parts: &[CORE, FUSED],
        params: &[Param::With(gptneox)],
        rules: &[
            Rule("*.attention.bias", Action::Drop),
            Rule("*.attention.masked_bias", Action::Drop),
            Rule("*.query_key_value.*", Action::With(by_head)),
        ],
        ..PLAIN
    },
    Architecture {
        name: "bloom",
        classes: &["BloomForCausalLM", "BloomModel"],
        parts: &[CORE, FUSED, &[Part::TokenEmbdNorm]],
        params: &[Param::With(bloom)],
        rules: &[
            Rule("transformer.*", Action::Replace("transformer.", "")),
            Rule("lm_head.weight", Action::DropIfTied),
            Rule("*.query_key_value.*", Action::With(by_head)),
        ],
        defaults: |config| config.set_default("tie_word_embeddings", true),
        ..PLAIN
    },
    Architecture {
        name: "mpt",
        classes: &["MPTForCausalLM", "MptForCausalLM"],
        parts: &[CORE, FUSED, QK_NORM, &[Part::FfnAct, Part::PosEmbd]],
        params: &[Param::With(mpt)],
        ..PLAIN
    },
    Architecture {
        name: "stablelm",
        classes: &["StableLmForCausalLM", "StableLMEpochForCausalLM"],
        parts: &[CORE, QKV, QK_NORM, FFN, &[Part::FfnNorm]],
        params: &[Param::With(stablelm)],
        rules: &[
            Rule("*.q_layernorm.norms.*", Action::Elsewhere),
            Rule("*.k_layernorm.norms.*", Action::Elsewhere),
        ],
        generated: head_norms,
        ..PLAIN
    },
];

fn gpt2(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let hidden = config.hidden()?;
    keys.set("block_count", model.block_count()?);
    keys.set("context_length", config.u32(&["n_ctx", "n_positions"])?);
    keys.set("embedding_length", hidden);
    let width = config.opt_u32(&["n_inner"])?.unwrap_or(4 * hidden);
    keys.set("feed_forward_length", width);
    keys.set("attention.head_count", config.heads()?);
    layer_norm(model, keys)?;
    keys.file_type();
    Ok(())
}

fn starcoder(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let hidden = config.hidden()?;
    keys.set("context_length", config.u32(&["n_positions"])?);
    keys.set("embedding_length", hidden);
    let width = config.opt_u32(&["n_inner"])?.unwrap_or(4 * hidden);
    keys.set("feed_forward_length", width);
    keys.set("block_count", model.block_count()?);
    keys.set("attention.head_count", config.heads()?);
    let single = config.bool("multi_query").unwrap_or(true);
    let kv = if single { 1 } else { config.heads()? };
    keys.set("attention.head_count_kv", kv);
    layer_norm(model, keys)?;
    keys.file_type();
    Ok(())
}

fn gptneox(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    keys.set("context_length", config.u32(&["max_position_embeddings"])?);
    keys.set("embedding_length", config.hidden()?);
    keys.set("block_count", model.block_count()?);
    keys.set("feed_forward_length", config.u32(&["intermediate_size"])?);
    let share = match config.opt_f64(&["rotary_pct"])? {
        Some(share) => share,
        None => config.rope_f64("partial_rotary_factor").unwrap_or(0.25),
    };
    let dim = f64::from(config.hidden()? / config.heads()?.max(1));
    keys.set("rope.dimension_count", (share * dim) as u32);
    keys.set("attention.head_count", config.heads()?);
    let parallel = config.bool("use_parallel_residual").unwrap_or(true);
    keys.set("use_parallel_residual", parallel);
    layer_norm(model, keys)
}

fn bloom(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let hidden = config.u32(&["hidden_size", "n_embed"])?;
    let heads = config.u32(&["n_head", "num_attention_heads"])?;
    keys.set(
        "context_length",
        config.opt_u32(&["seq_length"])?.unwrap_or(hidden),
    );
    keys.set("embedding_length", hidden);
    keys.set("feed_forward_length", 4 * hidden);
    keys.set("block_count", model.block_count()?);
    keys.set("attention.head_count", heads);
    keys.set("attention.head_count_kv", heads);
    layer_norm(model, keys)?;
    keys.file_type();
    Ok(())
}

fn mpt(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let hidden = config.hidden()?;
    keys.set("context_length", config.u32(&["max_seq_len"])?);
    keys.set("embedding_length", hidden);
    keys.set("block_count", model.block_count()?);
    let ratio = config.opt_u32(&["expansion_ratio"])?.unwrap_or(4);
    keys.set("feed_forward_length", ratio * hidden);
    keys.set("attention.head_count", config.heads()?);
    let attention = |field: &str| config.get("attn_config")?.get(field).cloned();
    if let Some(kv) = attention("kv_n_heads")
        .as_ref()
        .and_then(crate::config::as_u32)
    {
        keys.set("attention.head_count_kv", kv);
    }
    keys.set("attention.layer_norm_epsilon", 1e-5f32);
    if let Some(clip) = attention("clip_qkv")
        .as_ref()
        .and_then(crate::config::as_f64)
    {
        keys.set("attention.clamp_kqv", clip as f32);
    }
    let alibi = attention("alibi").and_then(|alibi| alibi.as_bool()) == Some(true);
    let bias = attention("alibi_bias_max")
        .as_ref()
        .and_then(crate::config::as_f64);
    let bias = if alibi { bias.unwrap_or(8.0) } else { 0.0 };
    keys.set("attention.max_alibi_bias", bias as f32);
    Ok(())
}

fn stablelm(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    keys.set("context_length", config.u32(&["max_position_embeddings"])?);
    keys.set("embedding_length", config.hidden()?);
    keys.set("block_count", model.block_count()?);
    keys.set("feed_forward_length", config.u32(&["intermediate_size"])?);
    let share = config.rope_f64("partial_rotary_factor");
    let share = share.or(config.opt_f64(&["rope_pct"])?).unwrap_or(0.25);
    let dim = f64::from(config.hidden()? / config.heads()?.max(1));
    keys.set("rope.dimension_count", (share * dim) as u32);
    keys.set("attention.head_count", config.heads()?);
    keys.set("attention.head_count_kv", config.kv_heads()?);
    let parallel = config.bool("use_parallel_residual").unwrap_or(true);
    keys.set("use_parallel_residual", parallel);
    let epsilon = config.f64(&["layer_norm_eps", "norm_eps"])? as f32;
    keys.set("attention.layer_norm_epsilon", epsilon);
    keys.file_type();
    Ok(())
}

fn layer_norm(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let names = &["layer_norm_epsilon", "layer_norm_eps"];
    let epsilon = model.config.f64(names)? as f32;
    keys.set("attention.layer_norm_epsilon", epsilon);
    Ok(())
}

/// Keys and values of one head for all queries, or of each head beside its query.
fn single_or_by_head(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    match model.config.bool("multi_query") {
        Some(false) => by_head(model, name, expr),
        _ => Ok(vec![(name.to_owned(), expr)]),
    }
}

/// Query, key and value of each head stand together.
fn by_head(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let config = &model.config;
    let heads = u64::from(config.heads()?);
    let hidden = u64::from(config.u32(&["hidden_size", "n_embed", "n_embd"])?);
    let rows = if expr.shape().len() == 1 {
        expr.row_len()
    } else {
        expr.row_count()
    };
    if heads == 0 || rows != 3 * hidden || hidden % heads != 0 {
        return Err(Error::tensor(
            name,
            format!("has {rows} rows, the configuration wants 3 · {hidden}"),
        ));
    }
    let fused = shaped(name, regroup_qkv(&expr, heads, 1, hidden / heads))?;
    Ok(vec![(name.to_owned(), fused)])
}

/// Norms of queries and keys that are stored head by head, stacked.
fn head_norms(model: &Model) -> Result<Vec<Named>, Error> {
    let config = &model.config;
    let mut out = Vec::new();
    for layer in 0..config.layers()? {
        for (part, heads) in [("q", config.heads()?), ("k", config.kv_heads()?)] {
            let name = |head: u32| {
                format!("model.layers.{layer}.self_attn.{part}_layernorm.norms.{head}.weight")
            };
            if model.stored(&name(0)).is_none() {
                continue;
            }
            let mut norms = Vec::new();
            for head in 0..heads {
                let stored = model.stored(&name(head));
                let stored = stored.ok_or_else(|| Error::tensor(name(head), "is missing"))?;
                norms.push(Expr::load(stored));
            }
            let stacked = shaped(&name(0), Expr::stack(norms))?;
            out.push((format!("blk.{layer}.attn_{part}_norm.weight"), stacked));
        }
    }
    Ok(out)
}
