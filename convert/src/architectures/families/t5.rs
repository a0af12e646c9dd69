//! T5: an encoder and a decoder.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use crate::Error;
use crate::expr::Expr;

const T5: Architecture = Architecture {
    name: "t5",
    params: &[Param::With(params)],
    rules: &[
        Rule("*embed_tokens.weight", Action::With(first_embedding)),
        Rule("shared.weight", Action::With(first_embedding)),
        Rule("lm_head.weight", Action::With(own_head)),
    ],
    ..PLAIN
};

/// A head that is the embedding is left out, unless the decoder's output goes into it unscaled: what
/// reads a file without a head scales.
fn own_head(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    // mT5 never scales.
    let never = model.config.class() == Some("MT5ForConditionalGeneration");
    let unscaled = never || model.config.bool("scale_decoder_outputs") == Some(false);
    if !unscaled && super::flag(&model.config, "tie_word_embeddings") {
        return Ok(Vec::new());
    }
    Ok(vec![(name.to_owned(), expr)])
}

/// Embedding, head and encoder.
const ENCODER: &[Part] = &[
    Part::TokenEmbd,
    Part::Output,
    Part::EncAttnNorm,
    Part::EncAttnQ,
    Part::EncAttnK,
    Part::EncAttnV,
    Part::EncAttnOut,
    Part::EncAttnRelB,
    Part::EncFfnNorm,
    Part::EncFfnGate,
    Part::EncFfnDown,
    Part::EncFfnUp,
    Part::EncOutputNorm,
];

const DECODER: &[Part] = &[
    Part::DecAttnNorm,
    Part::DecAttnQ,
    Part::DecAttnK,
    Part::DecAttnV,
    Part::DecAttnOut,
    Part::DecAttnRelB,
    Part::DecCrossAttnNorm,
    Part::DecCrossAttnQ,
    Part::DecCrossAttnK,
    Part::DecCrossAttnV,
    Part::DecCrossAttnOut,
    Part::DecCrossAttnRelB,
    Part::DecFfnNorm,
    Part::DecFfnGate,
    Part::DecFfnDown,
    Part::DecFfnUp,
    Part::DecOutputNorm,
];

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        classes: &[
            "T5ForConditionalGeneration",
            "T5WithLMHeadModel",
            "MT5ForConditionalGeneration",
            "UMT5ForConditionalGeneration",
            "UMT5Model",
        ],
        parts: &[ENCODER, DECODER],
        ..T5
    },
    Architecture {
        name: "t5encoder",
        classes: &["T5EncoderModel"],
        parts: &[ENCODER],
        ..T5
    },
];

fn params(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let context = config.opt_u32(&["n_positions"])?.unwrap_or(512);
    keys.set("context_length", context);
    keys.set("embedding_length", config.u32(&["d_model"])?);
    keys.set("feed_forward_length", config.u32(&["d_ff"])?);
    let layers = config.layers()?;
    keys.set("block_count", layers);
    let decodes = model.architecture.name == "t5";
    if decodes {
        let decoder = config.opt_u32(&["num_decoder_layers"])?;
        keys.set("decoder_block_count", decoder.unwrap_or(layers));
    }
    keys.set("attention.head_count", config.u32(&["num_heads"])?);
    let dim = config.u32(&["d_kv"])?;
    keys.set("attention.key_length", dim);
    keys.set("attention.value_length", dim);
    let epsilon = config.f64(&["layer_norm_epsilon"])? as f32;
    keys.set("attention.layer_norm_epsilon", epsilon);
    keys.set(
        "attention.relative_buckets_count",
        config.u32(&["relative_attention_num_buckets"])?,
    );
    keys.set("attention.layer_norm_rms_epsilon", epsilon);
    if decodes {
        let start = config.opt_u32(&["decoder_start_token_id"])?;
        keys.set("decoder_start_token_id", start.unwrap_or(0));
    }
    keys.file_type();
    Ok(())
}

/// The embedding is shared by encoder and decoder, and may be stored under three names.
fn first_embedding(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    const NAMES: [&str; 3] = [
        "decoder.embed_tokens.weight",
        "encoder.embed_tokens.weight",
        "shared.weight",
    ];
    let first = NAMES.iter().find(|name| model.stored(name).is_some());
    if first != Some(&name) {
        return Ok(Vec::new());
    }
    Ok(vec![("shared.weight".to_owned(), expr)])
}
