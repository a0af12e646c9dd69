//! GLM 4 and 4.5.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::deepseek::prediction_layers;
use super::{CORE, FFN, MOE, NEXTN, QK_NORM, QKV, SHARED, gather, partial_rotary, shaped};
use crate::Error;
use crate::expr::{Expr, Strided};

const GLM4_MOE: Architecture = Architecture {
    name: "glm4moe",
    parts: &[
        CORE,
        QKV,
        QK_NORM,
        FFN,
        MOE,
        SHARED,
        NEXTN,
        &[Part::AttnPostNorm, Part::FfnExpProbsB],
    ],
    params: &[
        Param::Base,
        Param::With(|model, keys| partial_rotary(model, keys, 0.5)),
        Param::MaybeU32("expert_feed_forward_length", &["moe_intermediate_size"]),
        Param::MaybeU32("expert_shared_count", &["n_shared_experts"]),
        Param::MaybeU32("leading_dense_block_count", &["first_k_dense_replace"]),
        Param::SetU32("expert_gating_func", 2),
        Param::MaybeF32("expert_weights_scale", &["routed_scaling_factor"]),
        Param::MaybeBool("expert_weights_norm", "norm_topk_prob"),
        Param::MaybeU32("nextn_predict_layers", &["num_nextn_predict_layers"]),
    ],
    rules: &[Rule("*.rotary_emb.*", Action::Drop)],
    extra_layers: prediction_layers,
    ..PLAIN
};

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "glm4",
        classes: &["Glm4ForCausalLM", "Glm4vForConditionalGeneration"],
        rules: HALVED,
        parts: &[
            CORE,
            QKV,
            &[
                Part::FfnNorm,
                Part::FfnDown,
                Part::FfnUp,
                Part::AttnPostNorm,
                Part::FfnPostNorm,
            ],
        ],
        params: &[
            Param::Base,
            Param::With(|model, keys| partial_rotary(model, keys, 0.5)),
        ],
        ..PLAIN
    },
    Architecture {
        name: "glm4",
        classes: &["GlmOcrForConditionalGeneration"],
        rules: HALVED,
        parts: &[
            CORE,
            QKV,
            NEXTN,
            &[
                Part::FfnNorm,
                Part::FfnDown,
                Part::FfnUp,
                Part::AttnPostNorm,
                Part::FfnPostNorm,
            ],
        ],
        params: &[
            Param::Base,
            Param::With(|model, keys| partial_rotary(model, keys, 0.5)),
            Param::MaybeU32("nextn_predict_layers", &["num_nextn_predict_layers"]),
        ],
        extra_layers: prediction_layers,
        ..PLAIN
    },
    Architecture {
        classes: &["Glm4MoeForCausalLM", "Glm4vMoeForConditionalGeneration"],
        ..GLM4_MOE
    },
    Architecture {
        classes: &["SolarOpenForCausalLM"],
        defaults: |config| config.set_rope_default("partial_rotary_factor", 1.0),
        ..GLM4_MOE
    },
    Architecture {
        name: "chatglm",
        classes: &[
            "GlmForCausalLM",
            "ChatGLMModel",
            "ChatGLMForConditionalGeneration",
        ],
        parts: &[
            CORE,
            QKV,
            &[Part::AttnQkv, Part::FfnNorm, Part::FfnDown, Part::FfnUp],
        ],
        params: &[Param::With(chatglm)],
        rules: &[
            Rule("*.rotary_pos_emb.inv_freq", Action::Drop),
            Rule("transformer.*", Action::Replace("transformer.", "")),
        ],
        ..PLAIN
    },
];

/// Rows of queries and keys from pairs to halves, where rotation has sections.
const HALVED: &[Rule] = &[
    Rule("*.q_proj.*", Action::With(halves)),
    Rule("*.k_proj.*", Action::With(halves)),
];

fn halves(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let config = &model.config;
    if config.rope("mrope_section").is_none() {
        return Ok(vec![(name.to_owned(), expr)]);
    }
    let dim = u64::from(config.head_dim()?).max(1);
    let share = config.rope_f64("partial_rotary_factor").unwrap_or(0.5);
    let half = ((dim as f64 * share) as u64).min(dim) / 2;
    let rows = match *expr.shape() {
        [values] => values,
        _ => expr.row_count(),
    };
    let views: Vec<Strided> = (0..rows / dim)
        .map(|head| head * dim)
        .flat_map(|first| {
            [
                Strided::new(first, [(2, 1), (half, 2)]),
                Strided::range(first + 2 * half..first + dim),
            ]
        })
        .filter(|view| view.len() > 0)
        .collect();
    Ok(vec![(
        name.to_owned(),
        shaped(name, gather(&expr, &views))?,
    )])
}

fn chatglm(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let hidden = config.u32(&["hidden_size", "n_embed"])?;
    let heads = config.u32(&["n_head", "num_attention_heads"])?;
    let kv_heads = config.opt_u32(&["multi_query_group_num", "num_key_value_heads"])?;
    keys.set(
        "context_length",
        config.opt_u32(&["seq_length"])?.unwrap_or(hidden),
    );
    keys.set("embedding_length", hidden);
    let width = config.opt_u32(&["ffn_hidden_size", "intermediate_size"])?;
    keys.set("feed_forward_length", width.unwrap_or(4 * hidden));
    keys.set("block_count", model.block_count()?);
    keys.set("attention.head_count", heads);
    keys.set("attention.head_count_kv", kv_heads.unwrap_or(heads));
    let epsilon = config.opt_f64(&["layernorm_epsilon"])?.unwrap_or(1e-5);
    keys.set("attention.layer_norm_rms_epsilon", epsilon as f32);
    keys.file_type();
    let stated = config.opt_u32(&["attention_dim"])?;
    let dim = f64::from(stated.unwrap_or(hidden / heads.max(1)));
    let share = config.rope_f64("partial_rotary_factor").unwrap_or(0.5);
    keys.set("rope.dimension_count", (dim * share) as u32);
    // The reference writes this tokenizer key with the model's own.
    keys.metadata.set("tokenizer.ggml.add_bos_token", false);
    let ratio = config.opt_f64(&["rope_ratio"])?.unwrap_or(1.0);
    keys.set("rope.freq_base", (10000.0 * ratio) as f32);
    Ok(())
}
