//! DeepSeek: many experts and, since the second, latent attention; what shares its graph.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, MLA, MOE, NEXTN, QKV, SHARED, llama, shaped};
use crate::Error;
use crate::config::{Config, as_u32};
use crate::expr::{Expr, Strided};

const DEEPSEEK2: Architecture = Architecture {
    name: "deepseek2",
    parts: &[
        CORE,
        FFN,
        MOE,
        SHARED,
        MLA,
        NEXTN,
        &[Part::AttnQ, Part::FfnNorm, Part::FfnExpProbsB],
    ],
    defaults: one_latent_head,
    params: PARAMS,
    rules: &[
        Rule("lm_head.weight", Action::DropIfTied),
        Rule("*layers.*", Action::With(without_prediction)),
        Rule("*.kv_b_proj.weight", Action::With(split_kv_b)),
    ],
    ..PLAIN
};

/// Keys that every one of the family has.
const PARAMS: &[Param] = &[
    Param::Base,
    Param::With(dense_layers),
    Param::U32("vocab_size", &["vocab_size"]),
    Param::With(latent),
    Param::U32(
        "expert_feed_forward_length",
        &["moe_intermediate_size", "intermediate_size"],
    ),
    Param::U32Or("expert_shared_count", &["n_shared_experts"], 0),
    Param::MaybeF32("expert_weights_scale", &["routed_scaling_factor"]),
    Param::With(|model, keys| {
        if super::flag(&model.config, "norm_topk_prob") {
            keys.set("expert_weights_norm", true);
        }
        Ok(())
    }),
    Param::U32("rope.dimension_count", &["qk_rope_head_dim"]),
    Param::With(|model, keys| {
        if let Some(scale) = model.config.rope_f64("mscale_all_dim") {
            keys.set("rope.scaling.yarn_log_multiplier", (0.1 * scale) as f32);
        }
        Ok(())
    }),
];

/// Keys, the prediction layers, and the indexer of sparse attention.
const SPARSE_PARAMS: &[Param] = &[
    Param::With(all_params),
    Param::MaybeU32("nextn_predict_layers", &["num_nextn_predict_layers"]),
    Param::U32("attention.indexer.head_count", &["index_n_heads"]),
    Param::U32("attention.indexer.key_length", &["index_head_dim"]),
    Param::U32("attention.indexer.top_k", &["index_topk"]),
];

/// The indexer of sparse attention.
const INDEXER: &[Part] = &[
    Part::IndexerKNorm,
    Part::IndexerProj,
    Part::IndexerAttnK,
    Part::IndexerAttnQB,
];

const KEEPING_PREDICTION: &[Rule] = &[
    Rule("lm_head.weight", Action::DropIfTied),
    Rule("*.kv_b_proj.weight", Action::With(split_kv_b)),
];

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        classes: &[
            "DeepseekV2ForCausalLM",
            "DeepseekV3ForCausalLM",
            "KimiK25ForConditionalGeneration",
            "YoutuForCausalLM",
            "YoutuVLForConditionalGeneration",
        ],
        ..DEEPSEEK2
    },
    Architecture {
        classes: &["KimiVLForConditionalGeneration"],
        defaults: one_latent_head_unsized,
        ..DEEPSEEK2
    },
    Architecture {
        classes: &["Glm4MoeLiteForCausalLM"],
        defaults: one_latent_head_unsized,
        params: &[
            Param::With(all_params),
            Param::With(|model, keys| {
                let layers = prediction_layers(model)?;
                if layers > 0 {
                    keys.set("nextn_predict_layers", layers);
                }
                Ok(())
            }),
        ],
        rules: KEEPING_PREDICTION,
        extra_layers: prediction_layers,
        ..DEEPSEEK2
    },
    Architecture {
        name: "deepseek32",
        classes: &["DeepseekV32ForCausalLM"],
        parts: SPARSE,
        params: SPARSE_PARAMS,
        rules: KEEPING_PREDICTION,
        extra_layers: prediction_layers,
        ..DEEPSEEK2
    },
    Architecture {
        name: "glm-dsa",
        classes: &["GlmMoeDsaForCausalLM"],
        parts: SPARSE,
        params: &[
            Param::With(all_params),
            Param::With(|model, keys| {
                let dim = f64::from(model.config.u32(&["qk_rope_head_dim"])?);
                let share = model.config.rope_f64("partial_rotary_factor");
                keys.set("rope.dimension_count", (dim * share.unwrap_or(1.0)) as u32);
                Ok(())
            }),
            Param::MaybeU32("nextn_predict_layers", &["num_nextn_predict_layers"]),
            Param::U32("attention.indexer.head_count", &["index_n_heads"]),
            Param::U32("attention.indexer.key_length", &["index_head_dim"]),
            Param::U32("attention.indexer.top_k", &["index_topk"]),
            Param::With(|model, keys| {
                // Without a list every layer chooses for itself.
                let full = match model.config.list("indexer_types") {
                    Some(types) => types.iter().map(|ty| ty.as_str() == Some("full")).collect(),
                    None => vec![true; model.config.layers()? as usize],
                };
                keys.set("attention.indexer.types", full);
                Ok(())
            }),
        ],
        rules: KEEPING_PREDICTION,
        extra_layers: prediction_layers,
        ..DEEPSEEK2
    },
    Architecture {
        name: "mistral4",
        classes: &["Mistral3ForConditionalGeneration"],
        only: Some(|config| config.str("model_type") == Some("mistral4")),
        parts: &[
            CORE,
            FFN,
            MOE,
            SHARED,
            MLA,
            &[
                Part::AttnQ,
                Part::FfnNorm,
                Part::FfnGateUpExp,
                Part::FfnExpProbsB,
            ],
        ],
        rules: &[
            Rule("lm_head.weight", Action::DropIfTied),
            Rule("*.kv_b_proj.weight", Action::With(split_kv_b)),
            Rule(
                "*.gate_up_proj",
                Action::Replace("gate_up_proj", "gate_up_proj.weight"),
            ),
            Rule(
                "*.experts.down_proj",
                Action::Replace("down_proj", "down_proj.weight"),
            ),
        ],
        ..DEEPSEEK2
    },
    Architecture {
        name: "kimi-linear",
        classes: &["KimiLinearForCausalLM", "KimiLinearModel"],
        parts: &[
            CORE,
            QKV,
            FFN,
            MOE,
            SHARED,
            MLA,
            KIMI_DELTA,
            &[Part::FfnNorm, Part::FfnExpProbsB],
        ],
        params: &[
            Param::Base,
            Param::U32("vocab_size", &["vocab_size"]),
            Param::With(kimi_delta),
            Param::With(latent_ranks),
            Param::U32("rope.dimension_count", &["qk_rope_head_dim"]),
            Param::With(latent_heads),
            Param::With(|model, keys| {
                keys.set("attention.value_length", model.config.head_dim()?);
                Ok(())
            }),
            Param::U32("expert_feed_forward_length", &["moe_intermediate_size"]),
            Param::U32(
                "expert_shared_count",
                &["num_shared_experts", "n_shared_experts"],
            ),
            Param::U32("leading_dense_block_count", &["first_k_dense_replace"]),
            Param::F32("expert_weights_scale", &["routed_scaling_factor"]),
            Param::BoolUnless("expert_weights_norm", "moe_renormalize", true),
            Param::With(kimi_groups),
        ],
        rules: &[
            Rule("*_conv1d.weight", Action::With(kimi_convolution)),
            Rule("*.A_log", Action::NegExp),
            Rule("*.dt_bias", Action::Replace("dt_bias", "dt_proj.bias")),
            Rule("*.kv_b_proj.weight", Action::With(split_kv_b)),
        ],
        ..DEEPSEEK2
    },
    Architecture {
        name: "deepseek",
        classes: &["DeepseekForCausalLM"],
        parts: &[
            CORE,
            QKV,
            FFN,
            MOE,
            SHARED,
            &[Part::RopeFreqs, Part::FfnNorm],
        ],
        params: &[
            Param::Base,
            Param::With(llama::rope_dimension),
            Param::SetStr("rope.scaling.type", "none"),
            Param::U32("leading_dense_block_count", &["first_k_dense_replace"]),
            Param::U32("vocab_size", &["vocab_size"]),
            Param::U32("expert_feed_forward_length", &["moe_intermediate_size"]),
            Param::SetF32("expert_weights_scale", 1.0),
            Param::U32("expert_shared_count", &["n_shared_experts"]),
        ],
        rules: llama::PERMUTED,
        ..PLAIN
    },
];

const SPARSE: &[&[Part]] = &[
    CORE,
    FFN,
    MOE,
    SHARED,
    MLA,
    NEXTN,
    INDEXER,
    &[Part::AttnQ, Part::FfnNorm, Part::FfnExpProbsB],
];

/// Kimi's delta attention, with a gate of low rank.
pub(super) const KIMI_DELTA: &[Part] = &[
    Part::SsmConv1dQ,
    Part::SsmConv1dK,
    Part::SsmConv1dV,
    Part::SsmFA,
    Part::SsmFB,
    Part::SsmGA,
    Part::SsmGB,
    Part::SsmBeta,
    Part::SsmA,
    Part::SsmDt,
    Part::SsmNorm,
];

/// Sizes of delta attention, and which layers have the other kind (they are counted from 1).
fn kimi_delta(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let field = "linear_attn_config";
    let config = model.config.get(field).unwrap_or(&serde_json::Value::Null);
    let number = |name: &str| config.get(name).and_then(as_u32);
    let layers = config.get("full_attn_layers").and_then(|v| v.as_array());
    let layers = layers.ok_or_else(|| Error::config(field, "does not list `full_attn_layers`"))?;
    let layers: Vec<Option<u32>> = layers.iter().map(as_u32).collect();
    let heads: Vec<i32> = (1..=model.config.layers()?)
        .map(|layer| i32::from(layers.contains(&Some(layer))))
        .collect();
    keys.set("attention.head_count_kv", heads);
    if let Some(taps) = number("short_conv_kernel_size") {
        keys.set("ssm.conv_kernel", taps);
    }
    if let Some(dim) = number("head_dim") {
        keys.set("kda.head_dim", dim);
    }
    Ok(())
}

/// Groups of experts, where there is a choice of them.
fn kimi_groups(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let groups = model.config.opt_u32(&["num_expert_group"])?;
    if let Some(groups) = groups.filter(|&groups| groups > 1) {
        let used = model.config.u32(&["topk_group"])?;
        keys.set("expert_group_count", groups);
        keys.set("expert_group_used_count", used);
    }
    Ok(())
}

/// A kernel for each channel, in four dimensions.
pub(super) fn kimi_convolution(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let taps = expr.row_len();
    let kernels = shaped(
        name,
        expr.reshape(&[taps, 1, expr.elements() / taps.max(1), 1]),
    )?;
    Ok(vec![(name.to_owned(), kernels)])
}

fn all_params(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    PARAMS.iter().try_for_each(|param| param.write(model, keys))
}

/// Layers that predict further tokens.
pub(super) fn prediction_layers(model: &Model) -> Result<u32, Error> {
    let layers = model.config.opt_u32(&["num_nextn_predict_layers"])?;
    Ok(layers.unwrap_or_default())
}

/// Layers without experts: the first ones, or all.
fn dense_layers(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let stated = config.opt_u32(&["first_k_dense_replace"])?;
    let layers = match (stated, config.opt_u32(&["n_routed_experts"])?) {
        (Some(layers), _) => layers,
        (None, Some(_)) => 0,
        (None, None) => config.layers()?,
    };
    keys.set("leading_dense_block_count", layers);
    Ok(())
}

/// In its compressed form attention has one key and value head.
fn one_latent_head(config: &mut Config) {
    config.set_default("rms_norm_eps", 1e-6);
    config.set("num_key_value_heads", 1);
    if let Some(dim) = config.get("qk_rope_head_dim").cloned() {
        config.set_default("head_dim", dim);
    }
}

/// The same for classes that fill in no size of a head.
fn one_latent_head_unsized(config: &mut Config) {
    let stated = config.get("head_dim").is_some();
    one_latent_head(config);
    if !stated {
        config.remove("head_dim");
    }
}

/// Sizes of latent attention, compressed and per head.
pub(super) fn latent(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    latent_ranks(model, keys)?;
    latent_heads(model, keys)
}

fn latent_ranks(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    if let Some(rank) = config.opt_u32(&["q_lora_rank"])? {
        keys.set("attention.q_lora_rank", rank);
    }
    keys.set("attention.kv_lora_rank", config.u32(&["kv_lora_rank"])?);
    Ok(())
}

fn latent_heads(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let rank = config.u32(&["kv_lora_rank"])?;
    let (nope, rope) = (
        config.u32(&["qk_nope_head_dim"])?,
        config.u32(&["qk_rope_head_dim"])?,
    );
    keys.set("attention.key_length", rank + rope);
    keys.set("attention.value_length", rank);
    keys.set("attention.key_length_mla", nope + rope);
    keys.set("attention.value_length_mla", config.u32(&["v_head_dim"])?);
    Ok(())
}

/// Layers beyond the configured number predict further tokens; this graph has no use for them.
fn without_prediction(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    if super::layer_of(name)? >= model.config.layers()? {
        return Ok(Vec::new());
    }
    Ok(vec![(name.to_owned(), expr)])
}

/// Keys (transposed, to multiply the query) and values out of the latent, head by head.
pub(super) fn split_kv_b(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let config = &model.config;
    let heads = u64::from(config.heads()?);
    let nope = u64::from(config.u32(&["qk_nope_head_dim"])?);
    let value = u64::from(config.u32(&["v_head_dim"])?);
    if expr.row_count() != heads * (nope + value) {
        return Err(Error::tensor(
            name,
            format!(
                "has {} rows, the configuration wants {heads} heads of {nope} + {value}",
                expr.row_count()
            ),
        ));
    }
    let head = nope + value;
    let keys = Strided::new(0, [(heads, head), (nope, 1)]);
    let keys = shaped(name, expr.rows_view(keys, &[nope, heads]))?;
    let values = Strided::new(nope, [(heads, head), (value, 1)]);
    let values = shaped(name, expr.rows_view(values, &[value, heads]))?;
    Ok(vec![
        (
            name.replace("kv_b_proj", "k_b_proj"),
            shaped(name, keys.transpose())?,
        ),
        (name.replace("kv_b_proj", "v_b_proj"), values),
    ])
}
