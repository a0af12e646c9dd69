//! Decoders that differ from Llama in a flag or two.

use super::super::{Action, Architecture, Keys, Model, PLAIN, Param, Part, Rule};
use super::llama::{LLAMA, PARAMS, head_dim, rope_dimension};
use super::{CORE, FFN, QK_NORM, QKV};
use crate::Error;
use crate::expr::Expr;

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "starcoder2",
        classes: &["Starcoder2ForCausalLM"],
        parts: &[CORE, QKV, &[Part::FfnNorm, Part::FfnDown, Part::FfnUp]],
        ..PLAIN
    },
    Architecture {
        name: "seed_oss",
        classes: &["SeedOssForCausalLM"],
        parts: &[CORE, QKV, FFN, &[Part::AttnPostNorm]],
        ..PLAIN
    },
    Architecture {
        name: "smollm3",
        classes: &["SmolLM3ForCausalLM"],
        ..LLAMA
    },
    Architecture {
        name: "arcee",
        classes: &["ArceeForCausalLM"],
        parts: &[
            CORE,
            QKV,
            &[Part::RopeFreqs, Part::FfnNorm, Part::FfnDown, Part::FfnUp],
        ],
        ..LLAMA
    },
    Architecture {
        name: "ernie4_5",
        classes: &["Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"],
        parts: &[CORE, QKV, FFN, &[Part::FfnNorm]],
        ..PLAIN
    },
    Architecture {
        name: "paddleocr",
        classes: &["PaddleOCRVLForConditionalGeneration"],
        parts: &[CORE, QKV, FFN, &[Part::FfnNorm]],
        ..PLAIN
    },
    Architecture {
        name: "apertus",
        classes: &["ApertusForCausalLM"],
        parts: &[CORE, QKV, QK_NORM, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        rules: &[
            // Scalars of the activation are metadata.
            Rule("*.mlp.act_fn.*", Action::Elsewhere),
            Rule(
                "*.attention_layernorm.weight",
                Action::Replace("attention_layernorm", "input_layernorm"),
            ),
            Rule(
                "*.feedforward_layernorm.weight",
                Action::Replace("feedforward_layernorm", "post_attention_layernorm"),
            ),
        ],
        // The class scales its rotation where the configuration says nothing of it.
        defaults: |config| {
            if config.rope("rope_type").is_none() {
                for (field, value) in [
                    ("factor", 8.0),
                    ("low_freq_factor", 1.0),
                    ("high_freq_factor", 4.0),
                    ("original_max_position_embeddings", 8192.0),
                    ("rope_theta", 12e6),
                ] {
                    config.set_rope_default(field, value);
                }
                config.set_rope_default("rope_type", "llama3");
            }
        },
        params: PARAMS,
        early: xielu,
        ..PLAIN
    },
    Architecture {
        name: "bitnet",
        classes: &["BitnetForCausalLM", "BitNetForCausalLM"],
        parts: &[
            CORE,
            QKV,
            FFN,
            &[Part::FfnNorm, Part::AttnSubNorm, Part::FfnSubNorm],
        ],
        // Published with the model type of Llama, whose class fills in the head's size.
        defaults: |config| {
            if config.str("model_type") == Some("llama") {
                head_dim(config);
            }
        },
        params: &[
            Param::Base,
            Param::SetStr("rope.scaling.type", "linear"),
            Param::SetF32("rope.scaling.factor", 1.0),
        ],
        rules: &[
            Rule("lm_head.weight", Action::DropIfTied),
            Rule(
                "*.attn_sub_norm.*",
                Action::Replace("attn_sub_norm", "inner_attn_ln"),
            ),
            Rule(
                "*.ffn_sub_norm.*",
                Action::Replace("ffn_sub_norm", "ffn_layernorm"),
            ),
            Rule("*_proj.weight", Action::Ternary),
        ],
        ..PLAIN
    },
    Architecture {
        name: "pangu-embedded",
        classes: &["PanguEmbeddedForCausalLM"],
        parts: &[CORE, QKV, FFN, &[Part::FfnNorm]],
        defaults: head_dim,
        params: PARAMS,
        rules: &[Rule("lm_head.weight", Action::DropIfTied)],
        ..PLAIN
    },
    Architecture {
        name: "maincoder",
        classes: &["MaincoderForCausalLM"],
        parts: &[CORE, QKV, QK_NORM, FFN, &[Part::FfnNorm]],
        params: &[
            Param::Base,
            Param::MaybeU32("rope.dimension_count", &["head_dim"]),
        ],
        ..PLAIN
    },
    Architecture {
        name: "jais2",
        classes: &["Jais2ForCausalLM"],
        parts: &[CORE, QKV, &[Part::FfnNorm, Part::FfnDown, Part::FfnUp]],
        defaults: head_dim,
        params: &[Param::Base, Param::With(rope_dimension)],
        ..PLAIN
    },
    Architecture {
        name: "nanbeige",
        classes: &["NanbeigeForCausalLM"],
        ..LLAMA
    },
];

/// The activation's parameters, one of each a layer, as arrays.
fn xielu(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    for field in ["alpha_n", "alpha_p", "beta", "eps"] {
        let mut values: Vec<f32> = Vec::new();
        for layer in 0..model.config.layers()? {
            let name = format!("model.layers.{layer}.mlp.act_fn.{field}");
            let stored = model
                .stored(&name)
                .ok_or_else(|| Error::tensor(&name, "is missing"))?;
            let value = Expr::load(stored)
                .f32_rows(0..1)
                .map_err(|error| Error::tensor(&name, error.to_string()))?;
            values.extend(value.first());
        }
        keys.metadata.set(format!("xielu.{field}"), values);
    }
    Ok(())
}
