//! Hyper-parameters: config.json with its many spellings.

mod class_defaults;
mod rope;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value as Json, json};

use class_defaults::class_defaults;
use rope::mirror_rope;

use crate::Error;

/// Sub-configurations that hold the text model's fields.
const TEXT_CONFIGS: [&str; 6] = [
    "text_config",
    "llm_config",
    "lm_config",
    "language_config",
    "lfm",
    "thinker_config",
];

/// Names of the number of layers.
const LAYERS: [&str; 4] = ["n_layers", "num_hidden_layers", "n_layer", "num_layers"];

/// The class of models in Mistral's own format, whose params.json names none.
pub(crate) const MISTRAL_FORMAT: &str = "MistralForCausalLM (params.json)";

/// A model's configuration: the text model's fields merged over the root's, and the rotary
/// parameters brought into one form.
#[derive(Debug, Clone)]
pub struct Config {
    fields: Json,
    /// Of the model's configuration class, for fields that are not there at all.
    defaults: Map<String, Json>,
    class: Option<String>,
    /// Names of the fields that were asked for.
    heeded: Arc<Mutex<HashSet<String>>>,
}

impl Config {
    /// Reads a configuration as published.
    pub fn new(published: &Json) -> Self {
        let mut fields = published.as_object().cloned().unwrap_or_default();
        let class = |config: &Map<String, Json>| {
            let names = config.get("architectures")?.as_array()?;
            names.first()?.as_str().map(ToOwned::to_owned)
        };
        let mut named = class(&fields);
        for key in TEXT_CONFIGS {
            let sub = published.get(key).map(|sub| match sub.get("text_config") {
                Some(inner) => inner,
                None => sub,
            });
            if let Some(Json::Object(text)) = sub {
                named = class(text).or(named);
                for (field, value) in text {
                    fields.insert(field.clone(), value.clone());
                }
            }
        }
        if named.is_none()
            && let Some(layer) = published.pointer("/ssm_cfg/layer").and_then(Json::as_str)
        {
            named = Some(format!("{layer}ForCausalLM"));
        }
        if named.is_none() && fields.contains_key("dim") && fields.contains_key("n_layers") {
            named = Some(MISTRAL_FORMAT.to_owned());
            // Its mixtures state their experts in a field of their own.
            if let Some(moe) = published.get("moe").and_then(Json::as_object) {
                for (field, own) in [
                    ("num_local_experts", "num_experts"),
                    ("num_experts_per_tok", "num_experts_per_tok"),
                ] {
                    if let Some(value) = moe.get(own) {
                        fields.insert(field.to_owned(), value.clone());
                    }
                }
            }
        }
        mirror_rope(&mut fields);
        let defaults = class_defaults(published, &fields);
        for name in ["rope_theta", "partial_rotary_factor"] {
            if let Some(Json::Object(rope)) = fields.get_mut("rope_parameters")
                && rope.get(name).is_none_or(Json::is_null)
                && let Some(value) = defaults.get(name)
            {
                rope.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(Json::Object(rope)) = fields.get_mut("rope_parameters")
            && !rope.contains_key("sliding_attention")
            && let Some(base) = defaults.get("rope_local_theta")
        {
            rope.insert("sliding_attention".into(), json!({ "rope_theta": base }));
        }
        Self {
            fields: Json::Object(fields),
            defaults,
            class: named,
            heeded: Arc::default(),
        }
    }

    /// Whether anybody asked for a field: what is never asked for has no effect.
    pub(crate) fn is_heeded(&self, field: &str) -> bool {
        self.heeded().contains(field)
    }

    fn heeded(&self) -> MutexGuard<'_, HashSet<String>> {
        // A set of names is whole at any time.
        self.heeded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model class, if the configuration names one.
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }

    /// All fields.
    pub fn json(&self) -> &Json {
        &self.fields
    }

    /// A field that is present and not `null`, or absent and given by the model's class.
    pub fn get(&self, field: &str) -> Option<&Json> {
        let value = match self.fields.get(field) {
            Some(value) => Some(value).filter(|value| !value.is_null()),
            None => self.defaults.get(field),
        }?;
        self.heed(field);
        Some(value)
    }

    fn heed(&self, field: &str) {
        let mut heeded = self.heeded();
        if !heeded.contains(field) {
            heeded.insert(field.to_owned());
        }
    }

    /// As [`Config::get`], for those who only look whether somebody else heeds the field.
    pub(crate) fn stated(&self, field: &str) -> Option<&Json> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// The first of these fields that is present and not `null`; without one, the first that the
    /// model's class gives.
    pub fn first(&self, fields: &[&'static str]) -> Option<(&'static str, &Json)> {
        let stated = fields.iter().find(|field| self.stated(field).is_some());
        match stated {
            Some(&field) => Some((field, self.get(field)?)),
            None => fields
                .iter()
                .find_map(|&field| Some((field, self.get(field)?))),
        }
    }

    /// Sets a field that is absent or `null`: the default of the model's class.
    pub(crate) fn set_default(&mut self, field: &str, value: impl Into<Json>) {
        if self.stated(field).is_none()
            && let Json::Object(fields) = &mut self.fields
        {
            fields.insert(field.to_owned(), value.into());
        }
    }

    /// Sets a rotary parameter that is absent: the default of the model's class.
    pub(crate) fn set_rope_default(&mut self, field: &str, value: impl Into<Json>) {
        if self.rope(field).is_none()
            && let Some(Json::Object(rope)) = self.fields.get_mut("rope_parameters")
        {
            rope.insert(field.to_owned(), value.into());
        }
    }

    /// Sets the rotary base of layers with a window, if it is absent.
    pub(crate) fn set_local_rope_default(&mut self, base: f64) {
        self.set_rope_default("sliding_attention", json!({ "rope_theta": base }));
    }

    /// Removes a field that the architecture does not heed.
    pub(crate) fn remove(&mut self, field: &str) {
        self.defaults.remove(field);
        if let Json::Object(fields) = &mut self.fields {
            fields.shift_remove(field);
        }
    }

    /// Sets a field.
    pub(crate) fn set(&mut self, field: &str, value: impl Into<Json>) {
        if let Json::Object(fields) = &mut self.fields {
            fields.insert(field.to_owned(), value.into());
        }
    }

    /// A non-negative integer that fits GGUF's u32.
    ///
    /// # Errors
    /// If the field is there and is something else.
    pub fn opt_u32(&self, fields: &[&'static str]) -> Result<Option<u32>, Error> {
        let Some((field, value)) = self.first(fields) else {
            return Ok(None);
        };
        as_u32(value).map(Some).ok_or_else(|| {
            Error::config(field, format!("is {value}, not an unsigned 32-bit number"))
        })
    }

    /// As [`Config::opt_u32`], for a field that must be there.
    ///
    /// # Errors
    /// If none of the fields is there, or it is no such number.
    pub fn u32(&self, fields: &[&'static str]) -> Result<u32, Error> {
        self.opt_u32(fields)?.ok_or_else(|| missing(fields))
    }

    /// A number.
    ///
    /// # Errors
    /// If the field is there and is no number.
    pub fn opt_f64(&self, fields: &[&'static str]) -> Result<Option<f64>, Error> {
        let Some((field, value)) = self.first(fields) else {
            return Ok(None);
        };
        as_f64(value)
            .map(Some)
            .ok_or_else(|| Error::config(field, format!("is {value}, not a number")))
    }

    /// As [`Config::opt_f64`], for a field that must be there.
    ///
    /// # Errors
    /// If none of the fields is there, or it is no number.
    pub fn f64(&self, fields: &[&'static str]) -> Result<f64, Error> {
        self.opt_f64(fields)?.ok_or_else(|| missing(fields))
    }

    /// A boolean.
    pub fn bool(&self, field: &str) -> Option<bool> {
        self.get(field)?.as_bool()
    }

    /// A string.
    pub fn str(&self, field: &str) -> Option<&str> {
        self.get(field)?.as_str()
    }

    /// A list.
    pub fn list(&self, field: &str) -> Option<&[Json]> {
        Some(self.get(field)?.as_array()?.as_slice())
    }

    /// Number of attention heads.
    ///
    /// # Errors
    /// If the configuration does not state it.
    pub fn heads(&self) -> Result<u32, Error> {
        self.u32(&["num_attention_heads", "n_head", "n_heads", "num_heads"])
    }

    /// Number of key and value heads: the attention heads where nothing else is stated.
    ///
    /// # Errors
    /// If the configuration states neither.
    pub fn kv_heads(&self) -> Result<u32, Error> {
        match self.opt_u32(&["num_key_value_heads", "n_kv_heads"])? {
            Some(heads) => Ok(heads),
            None => self.heads(),
        }
    }

    /// Width of the residual stream.
    ///
    /// # Errors
    /// If the configuration does not state it.
    pub fn hidden(&self) -> Result<u32, Error> {
        self.u32(&["hidden_size", "n_embd", "dim", "d_model"])
    }

    /// Values of a head: stated, or the width over the heads.
    ///
    /// # Errors
    /// If the configuration states neither.
    pub fn head_dim(&self) -> Result<u32, Error> {
        match self.opt_u32(&["head_dim"])? {
            Some(dim) => Ok(dim),
            None => Ok(self.hidden()? / self.heads()?.max(1)),
        }
    }

    /// Number of layers.
    ///
    /// # Errors
    /// If the configuration does not state it, or states more than any model has: lists with an item
    /// for each layer are made before a layer is looked for.
    pub fn layers(&self) -> Result<u32, Error> {
        const MOST: u32 = 1 << 16;
        match self.u32(&LAYERS)? {
            layers if layers > MOST => {
                let problem = format!("is {layers}; no model has more than {MOST} layers");
                Err(Error::config("num_hidden_layers", problem))
            }
            layers => Ok(layers),
        }
    }

    /// A field of the rotary parameters.
    pub fn rope(&self, field: &str) -> Option<&Json> {
        let value = self.fields.get("rope_parameters")?.get(field);
        let value = value.filter(|value| !value.is_null())?;
        self.heed(field);
        Some(value)
    }

    /// A number of the rotary parameters.
    pub fn rope_f64(&self, field: &str) -> Option<f64> {
        as_f64(self.rope(field)?)
    }

    /// The kind of rotary scaling: `default` where none is stated.
    pub fn rope_type(&self) -> &str {
        self.rope("rope_type")
            .and_then(Json::as_str)
            .unwrap_or("default")
    }
}

/// An integer; a float without a fraction counts.
pub(crate) fn as_u32(value: &Json) -> Option<u32> {
    match value.as_u64() {
        Some(value) => value.try_into().ok(),
        None => value
            .as_f64()
            .filter(|v| v.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(v))
            .map(|v| v as u32),
    }
}

/// A number, or the object that transformers writes for one that JSON lacks.
pub(crate) fn as_f64(value: &Json) -> Option<f64> {
    value
        .as_f64()
        .or_else(|| match value.get("__float__").and_then(Json::as_str)? {
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            "NaN" => Some(f64::NAN),
            _ => None,
        })
}

fn missing(fields: &[&str]) -> Error {
    let others = fields.get(1..).unwrap_or_default();
    let reason = if others.is_empty() {
        "is missing".to_owned()
    } else {
        format!(
            "is missing (and so are its other names: {})",
            others.join(", ")
        )
    };
    Error::config(fields.first().copied().unwrap_or_default(), reason)
}

#[cfg(test)]
mod tests {
    use super::class_defaults::CLASS_DEFAULTS;
    use super::*;

    #[test]
    fn both_spellings_of_rope_agree() {
        let old = Config::new(&json!({
            "rope_theta": 5e5, "rope_scaling": {"type": "yarn", "factor": 4.0}
        }));
        let new = Config::new(&json!({
            "rope_parameters": {"rope_theta": 5e5, "rope_type": "yarn", "factor": 4.0}
        }));
        for config in [old, new] {
            assert_eq!(config.rope_type(), "yarn");
            assert_eq!(config.rope_f64("rope_theta"), Some(5e5));
            assert_eq!(config.rope_f64("factor"), Some(4.0));
        }
    }

    #[test]
    fn class_defaults_stand_behind_what_is_stated() {
        for line in CLASS_DEFAULTS.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            assert_eq!(columns.len(), 3, "{line}");
            for column in &columns[1..] {
                serde_json::from_str::<Map<String, Json>>(column).unwrap();
            }
        }
        let config = Config::new(&json!({"model_type": "umt5", "layer_norm_epsilon": null}));
        assert_eq!(config.opt_f64(&["layer_norm_epsilon"]).unwrap(), None);
        let config = Config::new(&json!({"model_type": "umt5", "d_kv": 16}));
        assert_eq!(config.f64(&["layer_norm_epsilon"]).unwrap(), 1e-6);
        assert_eq!(config.stated("layer_norm_epsilon"), None);
        let config =
            Config::new(&json!({"model_type": "llava", "text_config": {"model_type": "llama"}}));
        assert_eq!(config.rope_f64("rope_theta"), Some(10000.0));
        // Another name of a field is the field.
        let config = Config::new(&json!({"model_type": "nomic_bert", "n_embd": 64}));
        assert_eq!(config.hidden().unwrap(), 64);
    }

    #[test]
    fn mixtures_in_mistrals_own_format() {
        let config = Config::new(&json!({
            "dim": 64, "n_layers": 2, "moe": {"num_experts": 8, "num_experts_per_tok": 2}
        }));
        assert_eq!(config.class(), Some(MISTRAL_FORMAT));
        assert_eq!(config.u32(&["num_local_experts"]).unwrap(), 8);
        assert_eq!(config.u32(&["num_experts_per_tok"]).unwrap(), 2);
    }

    #[test]
    fn text_config_is_merged_over_the_root() {
        let config = Config::new(&json!({
            "architectures": ["A"], "vocab_size": 1,
            "text_config": {"vocab_size": 7, "hidden_size": 64.0}
        }));
        assert_eq!(config.class(), Some("A"));
        assert_eq!(config.u32(&["vocab_size"]).unwrap(), 7);
        assert_eq!(config.hidden().unwrap(), 64);
        let error = config
            .u32(&["n_layers", "n_layer"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("n_layers"), "{error}");
        assert!(config.opt_u32(&["architectures"]).is_err());
    }
}
