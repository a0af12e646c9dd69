//! The presets of `llama-quantize`: names, ids and default tensor types.
//!
//! Which type each tensor gets under a preset is [`crate::plan`]'s business.

use std::fmt;
use std::str::FromStr;

use gristmill_gguf::TensorType;

use crate::nearest::nearest;

/// A named choice of tensor types for a whole model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types, missing_docs)]
pub enum Preset {
    F32,
    /// Keeps every tensor as it is.
    Copy,
    F16,
    Q4_0,
    Q4_1,
    Q8_0,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K_S,
    Q3_K_M,
    Q3_K_L,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
    IQ2_XXS,
    IQ2_XS,
    Q2_K_S,
    IQ3_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ3_M,
    IQ2_S,
    IQ2_M,
    IQ4_XS,
    IQ1_M,
    BF16,
    TQ1_0,
    TQ2_0,
    MXFP4_MOE,
    Q1_0,
    Q2_0,
}

#[derive(Clone, Copy)]
struct Row {
    preset: Preset,
    name: &'static str,
    alias: Option<&'static str>,
    /// `general.file_type` of the files written.
    id: u32,
    default: Option<TensorType>,
}

const fn row(preset: Preset, name: &'static str, id: u32, default: TensorType) -> Row {
    Row {
        preset,
        name,
        alias: None,
        id,
        default: Some(default),
    }
}

const fn aliased(row: Row, alias: &'static str) -> Row {
    Row {
        alias: Some(alias),
        ..row
    }
}

/// In order of id. The i-quant "S" and "M" presets of two bits start from the next smaller type
/// and raise some tensors, hence their defaults.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    row(Preset::F32,       "F32",        0, TensorType::F32),
    Row { preset: Preset::Copy, name: "COPY", alias: None, id: 0, default: None },
    row(Preset::F16,       "F16",        1, TensorType::F16),
    row(Preset::Q4_0,      "Q4_0",       2, TensorType::Q4_0),
    row(Preset::Q4_1,      "Q4_1",       3, TensorType::Q4_1),
    row(Preset::Q8_0,      "Q8_0",       7, TensorType::Q8_0),
    row(Preset::Q5_0,      "Q5_0",       8, TensorType::Q5_0),
    row(Preset::Q5_1,      "Q5_1",       9, TensorType::Q5_1),
    row(Preset::Q2_K,      "Q2_K",      10, TensorType::Q2_K),
    row(Preset::Q3_K_S,    "Q3_K_S",    11, TensorType::Q3_K),
    aliased(row(Preset::Q3_K_M, "Q3_K_M", 12, TensorType::Q3_K), "Q3_K"),
    row(Preset::Q3_K_L,    "Q3_K_L",    13, TensorType::Q3_K),
    row(Preset::Q4_K_S,    "Q4_K_S",    14, TensorType::Q4_K),
    aliased(row(Preset::Q4_K_M, "Q4_K_M", 15, TensorType::Q4_K), "Q4_K"),
    row(Preset::Q5_K_S,    "Q5_K_S",    16, TensorType::Q5_K),
    aliased(row(Preset::Q5_K_M, "Q5_K_M", 17, TensorType::Q5_K), "Q5_K"),
    row(Preset::Q6_K,      "Q6_K",      18, TensorType::Q6_K),
    row(Preset::IQ2_XXS,   "IQ2_XXS",   19, TensorType::IQ2_XXS),
    row(Preset::IQ2_XS,    "IQ2_XS",    20, TensorType::IQ2_XS),
    row(Preset::Q2_K_S,    "Q2_K_S",    21, TensorType::Q2_K),
    row(Preset::IQ3_XS,    "IQ3_XS",    22, TensorType::IQ3_S),
    row(Preset::IQ3_XXS,   "IQ3_XXS",   23, TensorType::IQ3_XXS),
    row(Preset::IQ1_S,     "IQ1_S",     24, TensorType::IQ1_S),
    row(Preset::IQ4_NL,    "IQ4_NL",    25, TensorType::IQ4_NL),
    row(Preset::IQ3_S,     "IQ3_S",     26, TensorType::IQ3_S),
    row(Preset::IQ3_M,     "IQ3_M",     27, TensorType::IQ3_S),
    row(Preset::IQ2_S,     "IQ2_S",     28, TensorType::IQ2_XS),
    row(Preset::IQ2_M,     "IQ2_M",     29, TensorType::IQ2_S),
    row(Preset::IQ4_XS,    "IQ4_XS",    30, TensorType::IQ4_XS),
    row(Preset::IQ1_M,     "IQ1_M",     31, TensorType::IQ1_M),
    row(Preset::BF16,      "BF16",      32, TensorType::BF16),
    row(Preset::TQ1_0,     "TQ1_0",     36, TensorType::TQ1_0),
    row(Preset::TQ2_0,     "TQ2_0",     37, TensorType::TQ2_0),
    row(Preset::MXFP4_MOE, "MXFP4_MOE", 38, TensorType::MXFP4),
    row(Preset::Q1_0,      "Q1_0",      40, TensorType::Q1_0),
    row(Preset::Q2_0,      "Q2_0",      41, TensorType::Q2_0),
];

impl Preset {
    /// Every preset, in order of id.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.preset)
    }

    fn row(self) -> &'static Row {
        TABLE
            .iter()
            .find(|row| row.preset == self)
            .expect("every preset has a row in the table")
    }

    /// ggml's name, in upper case.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The number stored as `general.file_type`. [`Preset::Copy`] has none of its own.
    pub fn id(self) -> u32 {
        self.row().id
    }

    /// The preset with this number; 0 is [`Preset::F32`].
    pub fn from_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.id == id).map(|row| row.preset)
    }

    /// The type that tensors get for which no rule says otherwise; `None` for [`Preset::Copy`].
    pub fn default_type(self) -> Option<TensorType> {
        self.row().default
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A word that names no preset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown preset `{word}`{}", suggestion(*nearest))]
pub struct UnknownPreset {
    /// What was asked for.
    pub word: String,
    /// The nearest name, if one is near.
    pub nearest: Option<&'static str>,
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean `{name}`?"))
}

impl FromStr for Preset {
    type Err = UnknownPreset;

    /// A name or alias without regard to case, or the decimal id.
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let names = || {
            TABLE
                .iter()
                .flat_map(|row| [Some(row.name), row.alias].into_iter().flatten())
        };
        if let Some(row) = TABLE.iter().find(|row| {
            [Some(row.name), row.alias]
                .into_iter()
                .flatten()
                .any(|name| name.eq_ignore_ascii_case(word))
        }) {
            return Ok(row.preset);
        }
        word.parse()
            .ok()
            .and_then(Self::from_id)
            .ok_or_else(|| UnknownPreset {
                word: word.to_owned(),
                nearest: nearest(word, names()),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_aliases_and_ids() {
        for preset in Preset::all() {
            assert_eq!(preset.name().to_lowercase().parse(), Ok(preset));
            if preset != Preset::Copy {
                assert_eq!(preset.id().to_string().parse(), Ok(preset));
            }
        }
        assert_eq!("q4_k".parse(), Ok(Preset::Q4_K_M));
        assert_eq!("0".parse(), Ok(Preset::F32));
    }

    #[test]
    fn suggests_the_nearest() {
        let unknown = |word: &str| word.parse::<Preset>().unwrap_err();
        assert_eq!(unknown("Q4_KM").nearest, Some("Q4_K_M"));
        assert_eq!(unknown("iq4xs").nearest, Some("IQ4_XS"));
        assert_eq!(unknown("39").nearest, None);
        assert_eq!(unknown("something else").nearest, None);
        assert_eq!(
            unknown("q6k").to_string(),
            "unknown preset `q6k`, did you mean `Q6_K`?"
        );
    }
}
