//! The tensor types of GGUF: identifiers, names and block geometry.
//!
//! This table is the only place where a type's id, name and layout stand. How a type decodes and
//! encodes is `gristmill-quantize`'s business.

use std::fmt;
use std::str::FromStr;

/// A tensor type that a GGUF file may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types, missing_docs)]
#[repr(u32)]
pub enum TensorType {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q8_1 = 9,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    Q8_K = 15,
    IQ2_XXS = 16,
    IQ2_XS = 17,
    IQ3_XXS = 18,
    IQ1_S = 19,
    IQ4_NL = 20,
    IQ3_S = 21,
    IQ2_S = 22,
    IQ4_XS = 23,
    I8 = 24,
    I16 = 25,
    I32 = 26,
    I64 = 27,
    F64 = 28,
    IQ1_M = 29,
    BF16 = 30,
    TQ1_0 = 34,
    TQ2_0 = 35,
    MXFP4 = 39,
    NVFP4 = 40,
    Q1_0 = 41,
    Q2_0 = 42,
}

/// Values and bytes of one block of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockLayout {
    /// Consecutive values of a row that a block holds.
    pub values: usize,
    /// Bytes a block takes in the file.
    pub bytes: usize,
}

struct Entry(TensorType, &'static str, usize, usize);

/// Type, ggml's spelling of its name, values per block, bytes per block.
const TABLE: &[Entry] = &[
    Entry(TensorType::F32, "F32", 1, 4),
    Entry(TensorType::F16, "F16", 1, 2),
    Entry(TensorType::Q4_0, "Q4_0", 32, 18),
    Entry(TensorType::Q4_1, "Q4_1", 32, 20),
    Entry(TensorType::Q5_0, "Q5_0", 32, 22),
    Entry(TensorType::Q5_1, "Q5_1", 32, 24),
    Entry(TensorType::Q8_0, "Q8_0", 32, 34),
    Entry(TensorType::Q8_1, "Q8_1", 32, 36),
    Entry(TensorType::Q2_K, "Q2_K", 256, 84),
    Entry(TensorType::Q3_K, "Q3_K", 256, 110),
    Entry(TensorType::Q4_K, "Q4_K", 256, 144),
    Entry(TensorType::Q5_K, "Q5_K", 256, 176),
    Entry(TensorType::Q6_K, "Q6_K", 256, 210),
    Entry(TensorType::Q8_K, "Q8_K", 256, 292),
    Entry(TensorType::IQ2_XXS, "IQ2_XXS", 256, 66),
    Entry(TensorType::IQ2_XS, "IQ2_XS", 256, 74),
    Entry(TensorType::IQ3_XXS, "IQ3_XXS", 256, 98),
    Entry(TensorType::IQ1_S, "IQ1_S", 256, 50),
    Entry(TensorType::IQ4_NL, "IQ4_NL", 32, 18),
    Entry(TensorType::IQ3_S, "IQ3_S", 256, 110),
    Entry(TensorType::IQ2_S, "IQ2_S", 256, 82),
    Entry(TensorType::IQ4_XS, "IQ4_XS", 256, 136),
    Entry(TensorType::I8, "I8", 1, 1),
    Entry(TensorType::I16, "I16", 1, 2),
    Entry(TensorType::I32, "I32", 1, 4),
    Entry(TensorType::I64, "I64", 1, 8),
    Entry(TensorType::F64, "F64", 1, 8),
    Entry(TensorType::IQ1_M, "IQ1_M", 256, 56),
    Entry(TensorType::BF16, "BF16", 1, 2),
    Entry(TensorType::TQ1_0, "TQ1_0", 256, 54),
    Entry(TensorType::TQ2_0, "TQ2_0", 256, 66),
    Entry(TensorType::MXFP4, "MXFP4", 32, 17),
    Entry(TensorType::NVFP4, "NVFP4", 64, 36),
    Entry(TensorType::Q1_0, "Q1_0", 128, 18),
    Entry(TensorType::Q2_0, "Q2_0", 64, 18),
];

impl TensorType {
    /// Every type, in order of id.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|entry| entry.0)
    }

    /// The type with this GGUF id; `None` for removed and unknown ids.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::all().find(|ty| ty.id() == id)
    }

    /// The id stored in a GGUF file.
    pub const fn id(self) -> u32 {
        self as u32
    }

    fn entry(self) -> &'static Entry {
        TABLE
            .iter()
            .find(|entry| entry.0 == self)
            .expect("every variant has a row in the table")
    }

    /// ggml's name, in upper case.
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// Block geometry.
    pub fn layout(self) -> BlockLayout {
        let Entry(_, _, values, bytes) = *self.entry();
        BlockLayout { values, bytes }
    }

    /// Bytes of a row of `values` values; `None` if the row is not a whole number of blocks or the
    /// size overflows.
    pub fn row_bytes(self, values: u64) -> Option<u64> {
        let layout = self.layout();
        let per_block = layout.values as u64;
        if !values.is_multiple_of(per_block) {
            return None;
        }
        (values / per_block).checked_mul(layout.bytes as u64)
    }

    /// Bits per weight, block scales included.
    pub fn bits_per_weight(self) -> f64 {
        let layout = self.layout();
        layout.bytes as f64 * 8.0 / layout.values as f64
    }

    /// Whether values are quantized in blocks (not plain floats or integers).
    pub fn is_quantized(self) -> bool {
        self.layout().values > 1
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no tensor type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown tensor type `{0}`")]
pub struct UnknownTensorType(pub String);

impl FromStr for TensorType {
    type Err = UnknownTensorType;

    /// Names are matched without regard to case.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        TABLE
            .iter()
            .find(|entry| entry.1.eq_ignore_ascii_case(name))
            .map(|entry| entry.0)
            .ok_or_else(|| UnknownTensorType(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_round_trip() {
        for ty in TensorType::all() {
            assert_eq!(TensorType::from_id(ty.id()), Some(ty));
            assert_eq!(ty.name().to_lowercase().parse(), Ok(ty));
        }
        for removed in [4, 5, 31, 32, 33, 36, 37, 38, 43] {
            assert_eq!(TensorType::from_id(removed), None);
        }
    }

    #[test]
    fn row_bytes_wants_whole_blocks() {
        assert_eq!(TensorType::Q4_K.row_bytes(512), Some(288));
        assert_eq!(TensorType::Q4_K.row_bytes(300), None);
        assert_eq!(TensorType::F64.row_bytes(u64::MAX), None);
    }
}
