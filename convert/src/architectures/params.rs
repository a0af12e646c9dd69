//! Hyper-parameters as metadata keys.

use gristmill_gguf::{Metadata, Value};
use serde_json::Value as Json;

use super::Model;
use crate::Error;
use crate::config::{as_f64, as_u32};

/// A metadata key of an architecture, or several, in the order in which they are written. Keys
/// stand here without the architecture's name in front.
pub(crate) enum Param {
    /// The keys that every decoder has, and `general.file_type`.
    Base,
    /// `general.file_type`.
    FileType,
    /// A number that the configuration must state under one of these names.
    U32(&'static str, &'static [&'static str]),
    /// A number that it may state.
    MaybeU32(&'static str, &'static [&'static str]),
    /// A float that the configuration must state under one of these names.
    F32(&'static str, &'static [&'static str]),
    /// A float that it may state.
    MaybeF32(&'static str, &'static [&'static str]),
    /// A number, this one where the configuration states none.
    U32Or(&'static str, &'static [&'static str], u32),
    /// A float, only where it is not what the graph of the architecture has built in: files of
    /// models that the reference converts rightly have no such key.
    F32Unless(&'static str, &'static str, f64),
    /// A flag, likewise.
    BoolUnless(&'static str, &'static str, bool),
    /// A flag that the configuration may state.
    MaybeBool(&'static str, &'static str),
    /// A constant of the architecture.
    SetBool(&'static str, bool),
    /// A constant of the architecture.
    SetU32(&'static str, u32),
    /// A constant of the architecture.
    SetF32(&'static str, f32),
    /// A constant of the architecture.
    SetStr(&'static str, &'static str),
    /// Whatever follows other rules.
    With(fn(&Model, &mut Keys) -> Result<(), Error>),
}

/// Metadata being written for an architecture.
pub(crate) struct Keys<'a> {
    pub(super) architecture: &'static str,
    pub(super) file_type: u32,
    pub(super) metadata: &'a mut Metadata,
}

impl Keys<'_> {
    /// Sets a key of the architecture.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        let key = format!("{}.{key}", self.architecture);
        self.metadata.set(key, value);
    }

    pub(super) fn file_type(&mut self) {
        self.metadata.set("general.file_type", self.file_type);
    }

    fn optional(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(key, value);
        }
    }

    /// Sets a key whose value may be one number or one per layer.
    pub(super) fn u32_or_list(
        &mut self,
        key: &str,
        field: &str,
        value: &Json,
    ) -> Result<(), Error> {
        let number = |value: &Json| {
            as_u32(value).ok_or_else(|| {
                Error::config(field, format!("has {value}, not an unsigned 32-bit number"))
            })
        };
        if let Some(list) = value.as_array() {
            let list = list
                .iter()
                .map(|item| number(item).map(u32::cast_signed))
                .collect::<Result<Vec<i32>, _>>()?;
            self.set(key, list);
        } else {
            self.set(key, number(value)?);
        }
        Ok(())
    }
}

/// Keys of one number each that come first: key, names in configurations.
const SIZES: [(&str, &[&str]); 5] = [
    (
        "context_length",
        &[
            "max_position_embeddings",
            "n_ctx",
            "n_positions",
            "max_length",
            "max_sequence_length",
            "model_max_length",
        ],
    ),
    ("embedding_length", &["hidden_size", "n_embd", "dim"]),
    (
        "feed_forward_length",
        &[
            "prefix_dense_intermediate_size",
            "dense_intermediate_size",
            "intermediate_size",
            "n_inner",
            "hidden_dim",
        ],
    ),
    (
        "attention.head_count",
        &["num_attention_heads", "n_head", "n_heads"],
    ),
    (
        "attention.head_count_kv",
        &["num_key_value_heads", "n_kv_heads"],
    ),
];

/// Keys of experts: key, names in configurations.
const EXPERTS: [(&str, &[&str]); 4] = [
    (
        "expert_count",
        &["num_local_experts", "num_experts", "n_routed_experts"],
    ),
    (
        "expert_used_count",
        &[
            "num_experts_per_tok",
            "num_experts_per_token",
            "top_k_experts",
        ],
    ),
    ("expert_group_count", &["n_group"]),
    ("expert_group_used_count", &["topk_group"]),
];

/// Names of the field that says how routers score.
const GATING: [&str; 6] = [
    "score_function",
    "scoring_func",
    "score_func",
    "moe_router_activation",
    "moe_router_activation_func",
    "expert_selection_fn",
];

impl Param {
    pub(super) fn write(&self, model: &Model, keys: &mut Keys) -> Result<(), Error> {
        let config = &model.config;
        match *self {
            Self::Base => base(model, keys)?,
            Self::FileType => keys.file_type(),
            Self::U32(key, names) => keys.set(key, config.u32(names)?),
            Self::MaybeU32(key, names) => keys.optional(key, config.opt_u32(names)?),
            Self::F32(key, names) => keys.set(key, config.f64(names)? as f32),
            Self::MaybeF32(key, names) => {
                keys.optional(key, config.opt_f64(names)?.map(|v| v as f32));
            }
            Self::U32Or(key, names, default) => {
                keys.set(key, config.opt_u32(names)?.unwrap_or(default));
            }
            Self::F32Unless(key, field, built_in) => {
                let value = config.opt_f64(&[field])?.filter(|&value| value != built_in);
                keys.optional(key, value.map(|v| v as f32));
            }
            Self::BoolUnless(key, field, built_in) => {
                keys.optional(key, config.bool(field).filter(|&value| value != built_in));
            }
            Self::MaybeBool(key, field) => keys.optional(key, config.bool(field)),
            Self::SetBool(key, value) => keys.set(key, value),
            Self::SetU32(key, value) => keys.set(key, value),
            Self::SetF32(key, value) => keys.set(key, value),
            Self::SetStr(key, value) => keys.set(key, value),
            Self::With(write) => write(model, keys)?,
        }
        Ok(())
    }
}

fn base(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    keys.set("block_count", model.block_count()?);
    for (key, names) in SIZES {
        if let Some((field, value)) = config.first(names) {
            keys.u32_or_list(key, field, value)?;
        }
    }
    if config.bool("is_causal") == Some(false) {
        keys.set("attention.causal", false);
    }
    rope_scaling(model, keys);
    if let Some(sections) = config.rope("mrope_section").and_then(Json::as_array) {
        let mut sections: Vec<i32> = sections
            .iter()
            .filter_map(as_u32)
            .map(u32::cast_signed)
            .collect();
        sections.resize(4, 0);
        keys.set("rope.dimension_sections", sections);
    }
    keys.optional(
        "rope.freq_base",
        config.rope_f64("rope_theta").map(|base| base as f32),
    );
    let local = config.rope("sliding_attention");
    let local = local.and_then(|local| as_f64(local.get("rope_theta")?));
    keys.optional("rope.freq_base_swa", local.map(|base| base as f32));
    let rms = config.opt_f64(&["rms_norm_eps", "norm_eps"])?;
    keys.optional("attention.layer_norm_rms_epsilon", rms.map(|e| e as f32));
    let norm = config.opt_f64(&["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"])?;
    keys.optional("attention.layer_norm_epsilon", norm.map(|e| e as f32));
    for (key, names) in EXPERTS {
        if let Some((field, value)) = config.first(names) {
            keys.u32_or_list(key, field, value)?;
        }
    }
    if let Some((field, score)) = config.first(&GATING) {
        keys.set("expert_gating_func", gating(field, score)?);
    }
    if let Some(dim) = config.opt_u32(&["head_dim"])? {
        keys.set("attention.key_length", dim);
        keys.set("attention.value_length", dim);
    }
    keys.file_type();
    Ok(())
}

/// The number of a router's scoring function.
pub(super) fn gating(field: &str, score: &Json) -> Result<u32, Error> {
    match score.as_str() {
        Some("softmax") => Ok(1),
        // `noaux_tc` is a way to choose experts; its scores are sigmoids.
        Some("sigmoid" | "noaux_tc") => Ok(2),
        Some("sqrtsoftplus") => Ok(4),
        _ => Err(Error::config(
            field,
            format!("is {score}; known are softmax, sigmoid, sqrtsoftplus"),
        )),
    }
}

/// `rope.scaling.*`, for the kinds of scaling that keys describe.
fn rope_scaling(model: &Model, keys: &mut Keys) {
    let config = &model.config;
    let float = |name: &str| config.rope_f64(name).map(|v| v as f32);
    match config.rope_type() {
        "linear" => {
            keys.set("rope.scaling.type", "linear");
            keys.optional("rope.scaling.factor", float("factor"));
        }
        "yarn" => {
            keys.set("rope.scaling.type", "yarn");
            keys.optional("rope.scaling.factor", float("factor"));
            keys.optional(
                "rope.scaling.original_context_length",
                config
                    .rope("original_max_position_embeddings")
                    .and_then(as_u32),
            );
            keys.optional(
                "rope.scaling.yarn_ext_factor",
                float("extrapolation_factor"),
            );
            keys.optional(
                "rope.scaling.yarn_attn_factor",
                float("attention_factor").or_else(|| float("attn_factor")),
            );
            keys.optional("rope.scaling.yarn_beta_fast", float("beta_fast"));
            keys.optional("rope.scaling.yarn_beta_slow", float("beta_slow"));
        }
        _ => {}
    }
}
