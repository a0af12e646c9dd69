//! Falcon 7B and 40B.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::{CORE, flag, regroup_qkv, shaped};
use crate::Error;
use crate::config::Config;
use crate::expr::Expr;

pub(super) const ALL: &[Architecture] = &[Architecture {
    name: "falcon",
    classes: &["FalconForCausalLM", "RWForCausalLM"],
    parts: &[
        CORE,
        &[Part::AttnNorm2, Part::AttnQkv, Part::FfnDown, Part::FfnUp],
    ],
    params: &[Param::With(params)],
    rules: &[
        Rule("lm_head.weight", Action::DropIfTied),
        Rule("*.query_key_value.*", Action::With(by_group)),
    ],
    defaults: |config| config.set_default("tie_word_embeddings", true),
    ..PLAIN
}];

/// Key and value heads: one for the first generation unless every query head has its own.
fn kv_heads(config: &Config) -> Result<u32, Error> {
    // Whatever a saved configuration repeats beside this.
    if flag(config, "multi_query") && !flag(config, "new_decoder_architecture") {
        return Ok(1);
    }
    if let Some(heads) = config.opt_u32(&["num_kv_heads", "n_head_kv"])? {
        return Ok(heads);
    }
    match flag(config, "multi_query") || !flag(config, "new_decoder_architecture") {
        true => Ok(1),
        false => config.heads(),
    }
}

fn params(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let hidden = config.hidden()?;
    // Not in the configuration; the published models have it.
    keys.set("context_length", 2048u32);
    keys.set("tensor_data_layout", "jploski");
    keys.set("embedding_length", hidden);
    let inner = config.opt_u32(&["ffn_hidden_size"])?;
    keys.set(
        "feed_forward_length",
        inner.unwrap_or(hidden.saturating_mul(4)),
    );
    keys.set("block_count", model.block_count()?);
    keys.set("attention.head_count", config.heads()?);
    keys.set("attention.head_count_kv", kv_heads(config)?);
    let epsilon = config.f64(&["layer_norm_epsilon"])? as f32;
    keys.set("attention.layer_norm_epsilon", epsilon);
    keys.file_type();
    Ok(())
}

/// Groups of query heads with their key and value head.
fn by_group(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let config = &model.config;
    let (heads, kv) = (u64::from(config.heads()?), u64::from(kv_heads(config)?));
    let dim = u64::from(config.hidden()?) / heads.max(1);
    let rows = if expr.shape().len() == 1 {
        expr.row_len()
    } else {
        expr.row_count()
    };
    if kv == 0 || heads % kv != 0 || rows != (heads + 2 * kv) * dim {
        return Err(Error::tensor(
            name,
            format!("has {rows} rows, which do not fit {heads} heads over {kv}"),
        ));
    }
    let fused = shaped(name, regroup_qkv(&expr, kv, heads / kv, dim))?;
    Ok(vec![(name.to_owned(), fused)])
}
