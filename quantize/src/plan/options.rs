//! What a user may ask for beyond a preset.

use std::str::FromStr;

use bstr::BString;
use fancy_regex::{Regex, RegexBuilder};
use gristmill_gguf::{TensorType, Value};

use crate::nearest::nearest;

/// Changes to a preset's choices.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Every tensor that may be quantized gets the preset's default type.
    pub pure: bool,
    /// The output tensor keeps its type.
    pub leave_output_tensor: bool,
    /// Type of the output tensor, and of a token embedding that serves as output.
    pub output_tensor_type: Option<TensorType>,
    /// Type of the token embedding.
    pub token_embedding_type: Option<TensorType>,
    /// Types for tensors whose name a pattern matches; the first that matches counts.
    pub tensor_types: Vec<TypePattern>,
    /// Types of named tensors; they go before everything else.
    pub exact: Vec<(BString, TensorType)>,
    /// Layers to leave out; the others are numbered anew.
    pub prune_layers: Vec<u64>,
    /// Metadata keys to set.
    pub overrides: Vec<KeyOverride>,
    /// Whether tensors that are already quantized may be quantized again.
    pub allow_requantize: bool,
    /// Tensors stay in the source's order and, if that is split, in its parts.
    pub keep_split: bool,
    /// Refuse a plan in which a tensor's rows do not fit the type chosen for it.
    pub no_fallback: bool,
}

/// `PATTERN=TYPE`: tensors whose name a regular expression matches anywhere get a type.
#[derive(Debug, Clone)]
pub struct TypePattern {
    text: String,
    pattern: Regex,
    /// The type.
    pub ty: TensorType,
}

impl TypePattern {
    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the pattern is found in the name. Letters match in either case: names are lower
    /// case, and llama.cpp's tool lower-cases patterns (which spoils `\D`; it is not done here).
    pub fn matches(&self, name: &BString) -> bool {
        // A pattern that exhausts its backtracking limit is no match.
        std::str::from_utf8(name).is_ok_and(|name| self.pattern.is_match(name).unwrap_or(false))
    }
}

impl PartialEq for TypePattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.ty == other.ty
    }
}

/// An option's text that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No `=` in it.
    #[error("`{text}` is not of the form {form}")]
    Form {
        /// What was given.
        text: String,
        /// What is expected.
        form: &'static str,
    },
    /// The pattern is no regular expression.
    #[error("`{pattern}` is no regular expression: {reason}")]
    Pattern {
        /// What was given.
        pattern: String,
        /// The parser's words.
        reason: String,
    },
    /// No such tensor type.
    #[error("unknown tensor type `{word}`{}", .nearest.map_or_else(String::new, |name| format!(", did you mean `{name}`?")))]
    Type {
        /// What was given.
        word: String,
        /// The nearest type's name, if one is near.
        nearest: Option<&'static str>,
    },
    /// A value that does not fit its type.
    #[error("`{text}`: {reason}")]
    Value {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Parses a tensor type that weights can be stored in.
///
/// # Errors
/// If the word names no such type; the nearest is suggested.
pub fn parse_type(word: &str) -> Result<TensorType, OptionError> {
    word.parse()
        .ok()
        .filter(|&ty| holds_weights(ty))
        .ok_or_else(|| OptionError::Type {
            word: word.to_owned(),
            nearest: nearest(
                word,
                TensorType::all()
                    .filter(|&ty| holds_weights(ty))
                    .map(TensorType::name),
            ),
        })
}

/// Whether weights can be written in this type: not integers, `F64`, or the formats of activations.
pub fn holds_weights(ty: TensorType) -> bool {
    use TensorType as T;
    !matches!(
        ty,
        T::Q8_1 | T::Q8_K | T::I8 | T::I16 | T::I32 | T::I64 | T::F64
    )
}

impl FromStr for TypePattern {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || OptionError::Form {
            text: text.to_owned(),
            form: "PATTERN=TYPE",
        };
        let (pattern, ty) = text.split_once('=').ok_or_else(form)?;
        if pattern.is_empty() || ty.is_empty() {
            return Err(form());
        }
        Ok(Self {
            ty: parse_type(ty)?,
            pattern: RegexBuilder::new(pattern)
                .case_insensitive(true)
                .build()
                .map_err(|error| OptionError::Pattern {
                    pattern: pattern.to_owned(),
                    reason: error.to_string(),
                })?,
            text: pattern.to_owned(),
        })
    }
}

/// `KEY=TYPE:VALUE`: a metadata key to set.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyOverride {
    /// The key.
    pub key: String,
    /// Its new value.
    pub value: Value,
}

impl FromStr for KeyOverride {
    type Err = OptionError;

    /// `int` gives a `u32` (an `i32` if negative), `float` an `f32`, `bool` and `str` what they say.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || OptionError::Form {
            text: text.to_owned(),
            form: "KEY=int|float|bool|str:VALUE",
        };
        let bad = |reason| OptionError::Value {
            text: text.to_owned(),
            reason,
        };
        let (key, typed) = text.split_once('=').ok_or_else(form)?;
        let (ty, value) = typed.split_once(':').ok_or_else(form)?;
        if key.is_empty() {
            return Err(form());
        }
        if key.len() > 127 {
            return Err(bad("the key is longer than 127 bytes"));
        }
        let value = match ty {
            "int" => value
                .parse::<u32>()
                .map(Value::from)
                .or_else(|_| value.parse::<i32>().map(Value::from))
                .map_err(|_| bad("the value is no 32-bit integer"))?,
            "float" => value
                .parse::<f32>()
                .map(Value::from)
                .map_err(|_| bad("the value is no number"))?,
            "bool" => value
                .parse::<bool>()
                .map(Value::from)
                .map_err(|_| bad("the value is neither true nor false"))?,
            "str" if value.len() > 127 => return Err(bad("the value is longer than 127 bytes")),
            "str" => value.into(),
            _ => return Err(form()),
        };
        Ok(Self {
            key: key.to_owned(),
            value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_anywhere_in_either_case() {
        let pattern: TypePattern = r"blk\.\D*1\.FFN_(?!gate)=q5_k".parse().unwrap();
        assert_eq!(pattern.ty, TensorType::Q5_K);
        assert!(pattern.matches(&"blk.1.ffn_up.weight".into()));
        assert!(!pattern.matches(&"blk.1.ffn_gate.weight".into()));
    }

    #[test]
    fn bad_patterns_say_why() {
        let error = |text: &str| text.parse::<TypePattern>().unwrap_err();
        assert!(matches!(error("attn"), OptionError::Form { .. }));
        assert!(matches!(error("a(=Q4_K"), OptionError::Pattern { .. }));
        assert_eq!(
            error("a=Q4K").to_string(),
            "unknown tensor type `Q4K`, did you mean `Q4_K`?"
        );
        assert!(matches!(error("a=I32"), OptionError::Type { .. }));
    }

    #[test]
    fn overrides_are_typed() {
        let value = |text: &str| text.parse::<KeyOverride>().map(|o| o.value);
        assert_eq!(value("a.b=int:7"), Ok(Value::U32(7)));
        assert_eq!(value("a.b=int:-7"), Ok(Value::I32(-7)));
        assert_eq!(value("a.b=float:0.5"), Ok(Value::F32(0.5)));
        assert_eq!(value("a.b=bool:true"), Ok(Value::Bool(true)));
        assert_eq!(value("a.b=str:x=y:z"), Ok("x=y:z".into()));
        for bad in [
            "a.b",
            "a.b=7",
            "a.b=int:x",
            "a.b=bool:1",
            "=int:1",
            "a=u8:1",
        ] {
            assert!(value(bad).is_err(), "{bad}");
        }
    }
}
