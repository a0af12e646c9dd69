//! Recipes: everything that decides an output's bytes, and what it was made of, as a TOML file.

use std::collections::BTreeMap;

use bstr::{BString, ByteSlice};
use gristmill_gguf::{TensorType, Value};
use serde::{Deserialize, Serialize};

use crate::plan::{OptionError, Options, Plan, parse_type};
use crate::preset::{Preset, UnknownPreset};
use crate::types::Effort;

/// What one quantized output is made by.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The preset it starts from, and whose number the file carries.
    pub preset: Preset,
    /// Changes to it.
    pub options: Options,
    /// How hard the encoders search.
    pub effort: Effort,
}

impl From<Preset> for Recipe {
    fn from(preset: Preset) -> Self {
        Self {
            preset,
            options: Options::default(),
            effort: Effort::default(),
        }
    }
}

/// What a file was made of: enough to tell whether making it again gives the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of Gristmill.
    pub version: String,
    /// Digest of the source, see [`crate::job::digest_source`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Digest of the importance matrix, see [`crate::importance::Importance::digest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importance: Option<String>,
    /// The importance matrix's file, as it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importance_file: Option<String>,
}

/// Why a recipe cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// Not TOML, or not of the form of a recipe.
    #[error("no recipe: {0}")]
    Form(#[from] toml::de::Error),
    /// No such preset.
    #[error(transparent)]
    Preset(#[from] UnknownPreset),
    /// An option that cannot be understood.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// No such effort.
    #[error("unknown effort `{0}`: known are reference and best")]
    Effort(String),
}

/// A recipe as it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    preset: String,
    effort: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pure: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    leave_output_tensor: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    allow_requantize: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    no_fallback: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    keep_split: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output_tensor_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token_embedding_type: Option<String>,
    /// `PATTERN=TYPE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tensor_types: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prune_layers: Vec<u64>,
    /// `KEY=TYPE:VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    override_kv: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_with: Option<Provenance>,
    /// Types by tensor name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    tensors: BTreeMap<String, String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_false(value: &bool) -> bool {
    !value
}

impl Recipe {
    /// The recipe with the type of every tensor of a plan written out, so that it does not depend
    /// on the preset's rules.
    #[must_use]
    pub fn with_types(&self, plan: &Plan) -> Self {
        let types = plan.tensors.iter();
        let exact = types.map(|tensor| (tensor.info.name.clone(), tensor.info.ty));
        Self {
            options: Options {
                exact: exact.collect(),
                ..self.options.clone()
            },
            ..self.clone()
        }
    }

    /// The recipe as a TOML document.
    pub fn to_toml(&self, made_with: &Provenance) -> String {
        let options = &self.options;
        let name = |ty: TensorType| ty.name().to_owned();
        let tensors = options.exact.iter();
        let stored = Stored {
            preset: self.preset.name().to_owned(),
            effort: self.effort.name().to_owned(),
            pure: options.pure,
            leave_output_tensor: options.leave_output_tensor,
            allow_requantize: options.allow_requantize,
            no_fallback: options.no_fallback,
            keep_split: options.keep_split,
            output_tensor_type: options.output_tensor_type.map(name),
            token_embedding_type: options.token_embedding_type.map(name),
            tensor_types: options
                .tensor_types
                .iter()
                .map(|pattern| format!("{}={}", pattern.text(), pattern.ty))
                .collect(),
            prune_layers: options.prune_layers.clone(),
            override_kv: options
                .overrides
                .iter()
                .map(|set| format!("{}={}", set.key, typed(&set.value)))
                .collect(),
            made_with: Some(made_with.clone()),
            tensors: tensors
                .map(|(tensor, ty)| (tensor.to_str_lossy().into_owned(), name(*ty)))
                .collect(),
        };
        toml::to_string(&stored)
            .expect("strings, tables and numbers of 32 bits are always representable")
    }

    /// Reads a TOML document.
    ///
    /// # Errors
    /// If it is no recipe, or names presets, types or options that do not exist.
    pub fn from_toml(text: &str) -> Result<(Self, Option<Provenance>), RecipeError> {
        let stored: Stored = toml::from_str(text)?;
        let optional = |word: Option<String>| word.map(|word| parse_type(&word)).transpose();
        let options = Options {
            pure: stored.pure,
            leave_output_tensor: stored.leave_output_tensor,
            allow_requantize: stored.allow_requantize,
            no_fallback: stored.no_fallback,
            keep_split: stored.keep_split,
            output_tensor_type: optional(stored.output_tensor_type)?,
            token_embedding_type: optional(stored.token_embedding_type)?,
            tensor_types: parse_all(&stored.tensor_types)?,
            prune_layers: stored.prune_layers,
            overrides: parse_all(&stored.override_kv)?,
            exact: stored
                .tensors
                .into_iter()
                .map(|(tensor, word)| Ok((BString::from(tensor), exact_type(&word)?)))
                .collect::<Result<_, OptionError>>()?,
        };
        let efforts = [Effort::Reference, Effort::Best];
        let effort = efforts
            .into_iter()
            .find(|effort| effort.name() == stored.effort)
            .ok_or(RecipeError::Effort(stored.effort))?;
        let recipe = Self {
            preset: stored.preset.parse()?,
            options,
            effort,
        };
        Ok((recipe, stored.made_with))
    }
}

/// Any type: tensors that keep theirs, integers among them, are listed too.
fn exact_type(word: &str) -> Result<TensorType, OptionError> {
    word.parse().or_else(|_| parse_type(word))
}

fn parse_all<T: std::str::FromStr<Err = OptionError>>(
    texts: &[String],
) -> Result<Vec<T>, OptionError> {
    texts.iter().map(|text| text.parse()).collect()
}

fn typed(value: &Value) -> String {
    match value {
        Value::Bool(value) => format!("bool:{value}"),
        Value::F32(value) => format!("float:{value}"),
        Value::U32(value) => format!("int:{value}"),
        Value::I32(value) => format!("int:{value}"),
        // An override is parsed from one of these forms.
        other => format!("str:{}", other.as_str().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let mut recipe = Recipe::from(Preset::Q4_K_M);
        recipe.options = Options {
            pure: true,
            output_tensor_type: Some(TensorType::Q8_0),
            tensor_types: vec![r"ffn_(up|gate)\.=IQ4_XS".parse().unwrap()],
            prune_layers: vec![3, 5],
            keep_split: true,
            overrides: vec![
                "a.b=int:-3".parse().unwrap(),
                "a.c=float:0.1".parse().unwrap(),
                "a.d=str:x=\"y\"".parse().unwrap(),
            ],
            exact: vec![
                ("blk.0.attn_q.weight".into(), TensorType::Q5_K),
                ("blk.0.ids".into(), TensorType::I32),
            ],
            ..Options::default()
        };
        let made_with = Provenance {
            version: "1.2.3".into(),
            source: Some("xxh3-128:00".into()),
            ..Provenance::default()
        };
        let text = recipe.to_toml(&made_with);
        let (again, provenance) = Recipe::from_toml(&text).unwrap();
        assert_eq!(provenance, Some(made_with.clone()));
        assert_eq!(again.to_toml(&made_with), text);
        assert_eq!(again.options.tensor_types, recipe.options.tensor_types);
        assert_eq!(again.options.overrides, recipe.options.overrides);
        assert_eq!(again.options.exact, recipe.options.exact);
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| Recipe::from_toml(text).unwrap_err().to_string();
        let good = "preset = \"Q4_K_M\"\neffort = \"best\"\n";
        assert!(Recipe::from_toml(good).is_ok());
        assert!(error("preset = 3").contains("no recipe"));
        assert!(error(&good.replace("best", "most")).contains("unknown effort `most`"));
        assert!(error(&good.replace("Q4_K_M", "Q4KM")).contains("did you mean `Q4_K_M`"));
        assert!(error(&format!("{good}colour = 1")).contains("colour"));
        assert!(error(&format!("{good}[tensors]\na = \"Q9\"")).contains("unknown tensor type"));
    }
}
