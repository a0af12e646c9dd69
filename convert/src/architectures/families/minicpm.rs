//! MiniCPM: scales on a Llama; the third has latent attention that is not absorbed.

use super::super::{Action, Architecture, Keys, Model, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, MOE, QKV};
use crate::Error;

pub(super) const ALL: &[Architecture] = &[MINICPM, MINICPM3];

const MINICPM: Architecture = Architecture {
    name: "minicpm",
    classes: &["MiniCPMForCausalLM"],
    parts: &[
        CORE,
        QKV,
        FFN,
        MOE,
        &[
            Part::FfnNorm,
            Part::RopeFreqs,
            Part::RopeFactorsLong,
            Part::RopeFactorsShort,
        ],
    ],
    params: &[
        Param::Base,
        Param::F32("embedding_scale", &["scale_emb"]),
        Param::With(|model, keys| {
            let config = &model.config;
            let layers = f64::from(config.layers()?);
            let depth = config.f64(&["scale_depth"])? / layers.sqrt();
            keys.set("residual_scale", depth as f32);
            let width = f64::from(config.hidden()?) / config.f64(&["dim_model_base"])?;
            keys.set("logit_scale", width as f32);
            Ok(())
        }),
    ],
    rules: super::llama::PERMUTED,
    ..PLAIN
};

const MINICPM3: Architecture = Architecture {
    name: "minicpm3",
    classes: &["MiniCPM3ForCausalLM"],
    parts: &[
        CORE,
        FFN,
        &[
            Part::AttnQA,
            Part::AttnQB,
            Part::AttnKvAMqa,
            Part::AttnKvANorm,
            Part::AttnQANorm,
            Part::AttnKvB,
            Part::FfnNorm,
            Part::RopeFactorsLong,
            Part::RopeFactorsShort,
        ],
    ],
    params: &[Param::FileType, Param::With(params)],
    rules: &[Rule("lm_head.weight", Action::DropIfTied)],
    ..PLAIN
};

fn params(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    keys.set("context_length", config.u32(&["max_position_embeddings"])?);
    keys.set("embedding_length", config.hidden()?);
    keys.set("block_count", model.block_count()?);
    keys.set("feed_forward_length", config.u32(&["intermediate_size"])?);
    keys.set("attention.head_count", config.heads()?);
    keys.set("attention.head_count_kv", config.kv_heads()?);
    let epsilon = config.f64(&["rms_norm_eps"])? as f32;
    keys.set("attention.layer_norm_rms_epsilon", epsilon);
    keys.set("vocab_size", config.u32(&["vocab_size"])?);
    if let Some(rank) = config.opt_u32(&["q_lora_rank"])? {
        keys.set("attention.q_lora_rank", rank);
    }
    keys.set("attention.kv_lora_rank", config.u32(&["kv_lora_rank"])?);
    let rope = config.u32(&["qk_rope_head_dim"])?;
    keys.set(
        "attention.key_length",
        config.u32(&["qk_nope_head_dim"])? + rope,
    );
    keys.set("rope.dimension_count", rope);
    // Other scales than those that graphs have built in.
    let scale = config.f64(&["scale_emb"])?;
    if scale != 12.0 {
        keys.set("embedding_scale", scale as f32);
    }
    let depth = config.f64(&["scale_depth"])?;
    if depth != 1.4 {
        let layers = f64::from(config.layers()?);
        keys.set("residual_scale", (depth / layers.sqrt()) as f32);
    }
    let base = config.f64(&["dim_model_base"])?;
    if base != 256.0 {
        keys.set("logit_scale", (f64::from(config.hidden()?) / base) as f32);
    }
    Ok(())
}
