//! DeciLM and Nemotron 51B: heads and widths that differ from layer to layer.

use serde_json::Value as Json;

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, QKV, layer_of, llama, shaped};
use crate::Error;
use crate::config::{Config, as_f64, as_u32};
use crate::expr::Expr;

pub(super) const ALL: &[Architecture] = &[Architecture {
    name: "deci",
    classes: &["DeciLMForCausalLM"],
    parts: &[CORE, QKV, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
    params: &[
        Param::With(params),
        Param::U32("vocab_size", &["vocab_size"]),
        Param::With(llama::rope_dimension),
    ],
    rules: &[
        Rule("*.q_proj.*", Action::PermuteQ),
        Rule("*.k_proj.*", Action::With(key)),
    ],
    ..PLAIN
}];

/// What a layer has: query heads, key and value heads, width of the feed-forward network.
struct Block {
    heads: u32,
    kv_heads: u32,
    width: u32,
}

/// The layers of a configuration that describes them one by one.
fn blocks(config: &Config) -> Result<Option<Vec<Block>>, Error> {
    let Some(list) = config.list("block_configs") else {
        return Ok(None);
    };
    let heads = config.heads()?;
    let hidden = f64::from(config.hidden()?);
    let block = |block: &Json| {
        let per_kv = block
            .pointer("/attention/n_heads_in_group")
            .and_then(as_u32);
        let linear = block
            .pointer("/attention/replace_with_linear")
            .and_then(Json::as_bool);
        let share = block
            .pointer("/ffn/ffn_mult")
            .and_then(as_f64)
            .unwrap_or(0.0);
        Block {
            heads: if per_kv.is_some() || linear == Some(true) {
                heads
            } else {
                0
            },
            kv_heads: per_kv.map_or(0, |per_kv| heads / per_kv.max(1)),
            width: ((2.0 * share * hidden / 3.0) as u32).next_multiple_of(256),
        }
    };
    Ok(Some(list.iter().map(block).collect()))
}

fn params(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let Some(blocks) = blocks(config)? else {
        Param::Base.write(model, keys)?;
        if let Some(list) = config.get("num_key_value_heads_per_layer") {
            keys.u32_or_list(
                "attention.head_count_kv",
                "num_key_value_heads_per_layer",
                list,
            )?;
        }
        return Ok(());
    };
    let list = |of: fn(&Block) -> u32| -> Vec<i32> {
        blocks.iter().map(|block| of(block).cast_signed()).collect()
    };
    if let Some(base) = config.rope_f64("rope_theta") {
        keys.set("rope.freq_base", base as f32);
    }
    keys.set("attention.head_count_kv", list(|block| block.kv_heads));
    keys.set("attention.head_count", list(|block| block.heads));
    keys.set("feed_forward_length", list(|block| block.width));
    keys.set("block_count", model.block_count()?);
    keys.set("context_length", config.u32(&["max_position_embeddings"])?);
    keys.set("embedding_length", config.hidden()?);
    let epsilon = config.f64(&["rms_norm_eps"])? as f32;
    keys.set("attention.layer_norm_rms_epsilon", epsilon);
    let dim = config.hidden()? / config.heads()?.max(1);
    keys.set("attention.key_length", dim);
    keys.set("attention.value_length", dim);
    keys.file_type();
    Ok(())
}

/// Key rows, as many heads as the layer has.
fn key(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let config = &model.config;
    let layer = layer_of(name)? as usize;
    let listed = config.list("num_key_value_heads_per_layer");
    let heads = match (listed, blocks(config)?) {
        (Some(list), _) => list.get(layer).and_then(as_u32),
        (None, Some(blocks)) => blocks.get(layer).map(|block| block.kv_heads),
        (None, None) => Some(config.kv_heads()?),
    };
    let heads = heads.ok_or_else(|| Error::tensor(name, "belongs to no layer"))?;
    let rows = shaped(name, expr.permute_heads(heads.into()))?;
    Ok(vec![(name.to_owned(), rows)])
}
