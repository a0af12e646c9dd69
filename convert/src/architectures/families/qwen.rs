//! Qwen 2 and 3, dense and with experts.

use serde_json::Value as Json;

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule, clean};
use super::mixtures::{transposed_down, transposed_gate_up};
use super::{CORE, FFN, MOE, QK_NORM, QKV, SHARED, layer_of, llama, split_gate_up};
use crate::Error;
use crate::expr::Expr;

/// Widths of the experts.
pub(super) const MOE_PARAMS: Param = Param::With(|model, keys| {
    const WIDTHS: [Param; 2] = [
        Param::MaybeU32("expert_feed_forward_length", &["moe_intermediate_size"]),
        Param::MaybeU32(
            "expert_shared_feed_forward_length",
            &["shared_expert_intermediate_size"],
        ),
    ];
    Param::Base.write(model, keys)?;
    WIDTHS.iter().try_for_each(|param| param.write(model, keys))
});

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "qwen2",
        classes: &[
            "Qwen2ForCausalLM",
            "Qwen2Model",
            "Qwen2AudioForConditionalGeneration",
            "AudioFlamingo3ForConditionalGeneration",
            "DotsOCRForCausalLM",
            "KORMoForCausalLM",
        ],
        parts: &[CORE, QKV, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        ..PLAIN
    },
    Architecture {
        name: "qwen3",
        classes: &[
            "Qwen3ForCausalLM",
            "Qwen3Model",
            "StepVLForConditionalGeneration",
        ],
        parts: &[CORE, QKV, QK_NORM, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        ..PLAIN
    },
    Architecture {
        name: "qwen2moe",
        classes: &["Qwen2MoeForCausalLM"],
        parts: &[
            CORE,
            QKV,
            FFN,
            MOE,
            SHARED,
            &[Part::FfnNorm, Part::FfnGateInpShexp],
        ],
        params: &[
            MOE_PARAMS,
            Param::BoolUnless("expert_weights_norm", "norm_topk_prob", false),
        ],
        ..PLAIN
    },
    Architecture {
        name: "qwen3moe",
        classes: &["Qwen3MoeForCausalLM"],
        parts: &[CORE, QKV, QK_NORM, FFN, MOE, &[Part::FfnNorm]],
        params: &[
            MOE_PARAMS,
            Param::BoolUnless("expert_weights_norm", "norm_topk_prob", true),
        ],
        ..PLAIN
    },
    Architecture {
        name: "qwen",
        classes: &["QWenLMHeadModel"],
        parts: &[CORE, FFN, &[Part::AttnQkv, Part::FfnNorm]],
        params: &[
            Param::U32("context_length", &["max_position_embeddings"]),
            Param::With(|model, keys| {
                keys.set("block_count", model.block_count()?);
                keys.set("embedding_length", model.config.hidden()?);
                Ok(())
            }),
            Param::U32("feed_forward_length", &["intermediate_size"]),
            Param::With(|model, keys| {
                let base = model.config.opt_f64(&["rotary_emb_base"])?;
                keys.set("rope.freq_base", base.unwrap_or(1e4) as f32);
                Ok(())
            }),
            Param::With(llama::rope_dimension),
            Param::U32("attention.head_count", &["num_attention_heads"]),
            Param::F32("attention.layer_norm_rms_epsilon", &["layer_norm_epsilon"]),
            Param::FileType,
        ],
        ..PLAIN
    },
    Architecture {
        name: "qwen2vl",
        classes: &[
            "Qwen2VLForConditionalGeneration",
            "Qwen2VLModel",
            "Qwen2_5_VLForConditionalGeneration",
            "Qwen2_5OmniModel",
        ],
        parts: &[CORE, QKV, FFN, &[Part::FfnNorm]],
        rules: WITHOUT_THINKER,
        ..PLAIN
    },
    Architecture {
        name: "qwen3vl",
        classes: &[
            "Qwen3VLForConditionalGeneration",
            "Qwen3ASRForConditionalGeneration",
        ],
        parts: &[CORE, QKV, QK_NORM, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        params: &[Param::Base, Param::With(deepstack)],
        rules: WITHOUT_THINKER,
        ..PLAIN
    },
    Architecture {
        name: "qwen3vlmoe",
        classes: &[
            "Qwen3VLMoeForConditionalGeneration",
            "Qwen3OmniMoeForConditionalGeneration",
        ],
        parts: &[CORE, QKV, QK_NORM, MOE, &[Part::FfnNorm]],
        params: &[
            MOE_PARAMS,
            Param::With(deepstack),
            Param::BoolUnless("expert_weights_norm", "norm_topk_prob", true),
        ],
        rules: &[
            Rule("*thinker.*", Action::Replace("thinker.", "")),
            Rule("*.experts.gate_up_proj*", Action::With(gate_up)),
            Rule("*.experts.down_proj*", Action::With(down)),
        ],
        ..PLAIN
    },
];

/// Omni models keep the text model under a name of its own.
const WITHOUT_THINKER: &[Rule] = &[Rule("*thinker.*", Action::Replace("thinker.", ""))];

/// How many layers add what the vision tower gives them.
fn deepstack(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let indexes = model.config.get("vision_config").or_else(|| {
        let thinker = model.config.get("thinker_config")?;
        thinker.get("vision_config")
    });
    let indexes = indexes.and_then(|vision| vision.get("deepstack_visual_indexes"));
    let count = indexes.and_then(Json::as_array).map_or(0, Vec::len);
    keys.set("n_deepstack_layers", count as u32);
    Ok(())
}

/// Stacked matrices are published with their inputs first; newer files have them last, which is
/// GGUF's order.
fn inputs_first(model: &Model, name: &str, expr: &Expr) -> Result<bool, Error> {
    let width = u64::from(model.config.hidden()?);
    let inner = u64::from(model.config.u32(&["moe_intermediate_size"])?);
    let sizes = |name: &str| match name.contains("gate_up_proj") {
        true => (width, 2 * inner),
        false => (inner, width),
    };
    let (inputs, outputs) = sizes(name);
    if inputs != outputs {
        return Ok(expr.shape().get(1) == Some(&inputs));
    }
    // A square matrix does not tell, but then its partner in the layer does.
    let partner = match name.contains("gate_up_proj") {
        true => name.replace("gate_up_proj", "down_proj"),
        false => name.replace("down_proj", "gate_up_proj"),
    };
    let stored = model.tensors.iter().find(|t| clean(&t.name) == partner);
    Ok(stored.is_none_or(|stored| stored.shape.get(1) == Some(&sizes(&partner).0)))
}

fn gate_up(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    if inputs_first(model, name, &expr)? {
        return transposed_gate_up(model, name, expr);
    }
    let layer = layer_of(name)?;
    let names = ["gate", "up"].map(|part| format!("blk.{layer}.ffn_{part}_exps.weight"));
    split_gate_up(name, &expr, &names[0], &names[1])
}

fn down(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let transpose = inputs_first(model, name, &expr)?;
    let name = name.trim_end_matches(".weight");
    if transpose {
        return transposed_down(model, name, expr);
    }
    Ok(vec![(format!("{name}.weight"), expr)])
}
