//! Standard metadata keys and their types.

use std::collections::HashMap;
use std::sync::LazyLock;

use bstr::{BStr, ByteSlice};

use crate::metadata::Metadata;
use crate::value::{Value, ValueType};

/// The architecture's name; prefix of its own keys. Required.
pub const ARCHITECTURE: &str = "general.architecture";
/// Alignment of tensor data, u32; 32 if absent.
pub const ALIGNMENT: &str = "general.alignment";
/// What the file is: `model`, `adapter`, `mmproj`, `imatrix`; a model if absent.
pub const TYPE: &str = "general.type";
/// Version of the quantized formats, u32; 2 today.
pub const QUANTIZATION_VERSION: &str = "general.quantization_version";
/// The preset most tensors are in, as a number, u32.
pub const FILE_TYPE: &str = "general.file_type";

const TABLE: &str = include_str!("keys.tsv");

/// The types that a standard key may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyType {
    /// The type of a single value, unless only arrays are allowed.
    pub scalar: Option<ValueType>,
    /// Whether an array is allowed.
    pub array: bool,
    /// The type of an array's elements, where only one is read.
    pub element: Option<ValueType>,
}

impl KeyType {
    fn parse(text: &str) -> Option<Self> {
        let scalar = |name| {
            (0..13)
                .filter_map(ValueType::from_id)
                .find(|ty| ty.name() == name)
        };
        let (scalar, array, element) = match text {
            "array" => (None, true, None),
            text => match (
                text.strip_prefix("array or "),
                text.strip_prefix("array of "),
            ) {
                (Some(name), _) => (Some(scalar(name)?), true, None),
                (_, Some(name)) => (None, true, Some(scalar(name)?)),
                _ => (Some(scalar(text)?), false, None),
            },
        };
        Some(Self {
            scalar,
            array,
            element,
        })
    }

    /// Whether the value has exactly such a type, as llama.cpp wants it.
    pub fn admits(self, value: &Value) -> bool {
        match value {
            Value::Array(array) => {
                self.array
                    && self
                        .element
                        .is_none_or(|element| array.element_type() == element)
            }
            value => self.scalar == Some(value.value_type()),
        }
    }

    /// Whether the value is of the right kind (integer, float, boolean, text, array), perhaps of
    /// another width.
    pub fn admits_kind(self, value: &Value) -> bool {
        match value {
            Value::Array(array) => {
                self.array
                    && self
                        .element
                        .is_none_or(|element| kind(element) == kind(array.element_type()))
            }
            value => self
                .scalar
                .is_some_and(|scalar| kind(scalar) == kind(value.value_type())),
        }
    }
}

impl std::fmt::Display for KeyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.scalar, self.array, self.element) {
            (Some(scalar), false, _) => f.write_str(scalar.name()),
            (Some(scalar), true, _) => write!(f, "{} or an array", scalar.name()),
            (None, _, Some(element)) => write!(f, "an array of {}", element.name()),
            (None, _, None) => f.write_str("an array"),
        }
    }
}

/// Integers, floats and the rest, whatever their width.
fn kind(ty: ValueType) -> u32 {
    use ValueType as T;
    match ty {
        T::U8 | T::I8 | T::U16 | T::I16 | T::U32 | T::I32 | T::U64 | T::I64 => T::U32.id(),
        T::F32 | T::F64 => T::F32.id(),
        other => other.id(),
    }
}

static KEYS: LazyLock<HashMap<&'static str, KeyType>> = LazyLock::new(|| {
    TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(key, ty)| Some((key, KeyType::parse(ty)?)))
        .collect()
});

/// The type of a standard key in a file of this architecture; `None` for a key that is not
/// standard.
pub fn type_of(key: &BStr, architecture: Option<&str>) -> Option<KeyType> {
    let key = key.to_str().ok()?;
    if let Some(found) = KEYS.get(key) {
        return Some(*found);
    }
    let own = architecture.and_then(|name| key.strip_prefix(name)?.strip_prefix('.'));
    if let Some(rest) = own {
        return KEYS.get(format!("{{arch}}.{rest}").as_str()).copied();
    }
    if key.starts_with("tokenizer.chat_template.") {
        return KEYS.get("tokenizer.chat_template.{name}").copied();
    }
    // `general.base_model.0.name` and the like
    let mut segments: Vec<&str> = key.split('.').collect();
    let number = segments
        .iter_mut()
        .find(|segment| segment.parse::<u32>().is_ok())?;
    *number = "{id}";
    KEYS.get(segments.join(".").as_str()).copied()
}

/// The architecture that the metadata name.
pub fn architecture(metadata: &Metadata) -> Option<&str> {
    metadata.str(ARCHITECTURE)
}

/// A key of an architecture: `llama` and `block_count` make `llama.block_count`.
pub fn of(architecture: &str, name: &str) -> String {
    format!("{architecture}.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_understood() {
        let rows = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(KEYS.len(), rows);
        assert!(rows > 300);
    }

    #[test]
    fn patterns_are_filled() {
        let name = |key: &str| type_of(key.into(), Some("gpt-oss")).map(|ty| ty.to_string());
        assert_eq!(name("gpt-oss.block_count").unwrap(), "u32");
        assert_eq!(name("llama.block_count"), None);
        assert_eq!(name("general.base_model.12.name").unwrap(), "str");
        assert_eq!(name("tokenizer.chat_template.rag").unwrap(), "str");
        assert_eq!(
            name("gpt-oss.feed_forward_length").unwrap(),
            "u32 or an array"
        );
        assert_eq!(
            name("tokenizer.ggml.token_type").unwrap(),
            "an array of i32"
        );
        assert_eq!(name("my.own"), None);
    }
}
