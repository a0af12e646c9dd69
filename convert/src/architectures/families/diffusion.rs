//! Decoders that see the whole text at once and fill in masks.

use super::super::{Architecture, Keys, Model, PLAIN, Param, Part};
use super::{CORE, FFN, MOE, QK_NORM, QKV, llama, qwen};
use crate::Error;

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "dream",
        classes: &["DreamModel"],
        parts: &[CORE, QKV, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        params: &[
            Param::Base,
            Param::SetBool("attention.causal", false),
            Param::With(mask),
        ],
        ..PLAIN
    },
    Architecture {
        name: "llada",
        classes: &["LLaDAModelLM"],
        parts: &[CORE, QKV, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        params: &[
            Param::Base,
            Param::U32("vocab_size", &["vocab_size"]),
            Param::With(llama::rope_dimension),
            Param::U32Or("context_length", &["max_sequence_length"], 4096),
            Param::U32Or("embedding_length", &["d_model"], 4096),
            Param::U32Or("feed_forward_length", &["mlp_hidden_size"], 12288),
            Param::SetBool("attention.causal", false),
            Param::With(unshifted),
        ],
        rules: llama::PERMUTED,
        ..PLAIN
    },
    Architecture {
        name: "llada-moe",
        classes: &["LLaDAMoEModel", "LLaDAMoEModelLM"],
        parts: &[CORE, QKV, QK_NORM, MOE, &[Part::FfnNorm]],
        params: &[
            Param::Base,
            Param::MaybeU32("expert_feed_forward_length", &["expert_intermediate_size"]),
            Param::With(|_, keys| {
                keys.metadata
                    .set("tokenizer.ggml.mask_token_id", 156_895u32);
                Ok(())
            }),
            Param::SetBool("attention.causal", false),
            Param::With(unshifted),
        ],
        ..PLAIN
    },
    Architecture {
        name: "rnd1",
        classes: &["RND1"],
        parts: &[CORE, QKV, QK_NORM, MOE, &[Part::FfnNorm]],
        params: &[
            qwen::MOE_PARAMS,
            Param::SetBool("attention.causal", false),
            Param::With(mask),
        ],
        ..PLAIN
    },
];

/// The token that stands for what is not known yet.
fn mask(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    if let Some(id) = model.config.opt_u32(&["mask_token_id"])? {
        keys.metadata.set("tokenizer.ggml.mask_token_id", id);
    }
    Ok(())
}

/// Logits belong to the token itself, not to the next one.
fn unshifted(_: &Model, keys: &mut Keys) -> Result<(), Error> {
    keys.metadata.set("diffusion.shift_logits", false);
    Ok(())
}
