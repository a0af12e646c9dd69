//! Every value of plain tensors and every scale of quantized ones must be finite.

use std::ops::Range;

use rayon::prelude::*;

use super::Findings;
use super::Severity::Error;
use crate::copy::row_chunks;
use crate::error::Subject;
use crate::file::File;
use crate::source::{ReadError, Source};
use crate::tensor_type::TensorType;

/// Bytes of rows that are looked at as one piece of work.
const CHUNK_BYTES: u64 = 4 << 20;

/// What of a block must be finite. Offsets are bytes from the block's start.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Integers, and formats in which every bit pattern is a number.
    Nothing,
    /// f16 numbers at these offsets.
    Half(&'static [usize]),
    /// An f32 number at the start.
    Single,
    /// An f64 number at the start, which must also fit f32.
    Double,
    /// A bf16 number at the start.
    Brain,
    /// A power of two at the start, as one byte whose highest value means NaN.
    Exponent,
    /// An f16 number in the top four bits of each of four words at this offset.
    Scattered(usize),
}

fn rule(ty: TensorType) -> Rule {
    use TensorType as T;
    match ty {
        T::F32 | T::Q8_K => Rule::Single,
        T::F64 => Rule::Double,
        T::BF16 => Rule::Brain,
        T::MXFP4 => Rule::Exponent,
        T::IQ1_M => Rule::Scattered(48),
        T::I8 | T::I16 | T::I32 | T::I64 | T::NVFP4 => Rule::Nothing,
        T::Q4_1 | T::Q5_1 | T::Q8_1 | T::Q4_K | T::Q5_K => Rule::Half(&[0, 2]),
        T::Q2_K => Rule::Half(&[80, 82]),
        T::Q3_K => Rule::Half(&[108]),
        T::Q6_K => Rule::Half(&[208]),
        T::TQ1_0 => Rule::Half(&[52]),
        T::TQ2_0 => Rule::Half(&[64]),
        T::F16
        | T::Q1_0
        | T::Q2_0
        | T::Q4_0
        | T::Q5_0
        | T::Q8_0
        | T::IQ1_S
        | T::IQ2_XXS
        | T::IQ2_XS
        | T::IQ2_S
        | T::IQ3_XXS
        | T::IQ3_S
        | T::IQ4_NL
        | T::IQ4_XS => Rule::Half(&[0]),
    }
}

/// Little-endian word of a block; the offset is inside it.
fn word(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn half_is_finite(bits: u16) -> bool {
    bits & 0x7C00 != 0x7C00
}

impl Rule {
    fn holds(self, block: &[u8]) -> bool {
        match self {
            Self::Nothing => true,
            Self::Half(offsets) => offsets.iter().all(|&at| half_is_finite(word(block, at))),
            Self::Single => word(block, 2) & 0x7F80 != 0x7F80,
            Self::Double => block
                .try_into()
                .is_ok_and(|bytes| (f64::from_le_bytes(bytes) as f32).is_finite()),
            Self::Brain => word(block, 0) & 0x7F80 != 0x7F80,
            Self::Exponent => block[0] != u8::MAX,
            Self::Scattered(at) => {
                let bits = (0..4).fold(0, |bits, i| {
                    bits | (word(block, at + 2 * i) >> 12) << (4 * i)
                });
                half_is_finite(bits)
            }
        }
    }
}

/// Blocks that break the rule: how many, and the first by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bad {
    count: u64,
    first: Option<u64>,
}

impl Bad {
    /// Adds what was found further on.
    fn and(self, later: Self) -> Self {
        Self {
            count: self.count + later.count,
            first: match (self.first, later.first) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }
}

/// Looks at whole blocks of a type; `before` blocks came before them.
fn scan(ty: TensorType, bytes: &[u8], before: u64) -> Bad {
    let rule = rule(ty);
    if matches!(rule, Rule::Nothing) {
        return Bad::default();
    }
    let mut bad = Bad::default();
    for (block, number) in bytes.chunks_exact(ty.layout().bytes).zip(before..) {
        if !rule.holds(block) {
            bad.count += 1;
            bad.first.get_or_insert(number);
        }
    }
    bad
}

fn scan_tensor(file: &File, tensor: usize) -> Result<Bad, ReadError> {
    let info = &file.tensors()[tensor];
    let blocks_per_row = info.row_len() / info.ty.layout().values as u64;
    let chunks: Vec<Range<u64>> = row_chunks(info, CHUNK_BYTES).collect();
    chunks
        .into_par_iter()
        .map(|rows| {
            let bytes = file.rows(tensor, rows.clone())?;
            let bad = scan(info.ty, &bytes, rows.start * blocks_per_row);
            drop(bytes);
            file.release(tensor, rows);
            Ok(bad)
        })
        .try_reduce(Bad::default, |a, b| Ok(a.and(b)))
}

/// Checks all tensors of a model.
pub(super) fn check_data<'a>(file: &'a File, findings: &mut Findings<'a>) {
    for (tensor, info) in file.tensors().iter().enumerate() {
        let (part, place) = file.tensor_place(tensor);
        findings.file = &part.path;
        let subject = Subject::Tensor(info.name.clone());
        match scan_tensor(file, tensor) {
            Ok(Bad { first: None, .. }) => {}
            Ok(Bad {
                count,
                first: Some(first),
            }) => {
                let layout = info.ty.layout();
                let value = first * layout.values as u64;
                let (row, column) = (value / info.row_len(), value % info.row_len());
                let message = if info.ty.is_quantized() {
                    format!(
                        "{count} blocks with a scale that is not finite, the first in row {row} \
                         at value {column}"
                    )
                } else {
                    format!(
                        "{count} values that are not finite, the first in row {row} at value \
                         {column}"
                    )
                };
                let offset = place.start + first * layout.bytes as u64;
                findings
                    .add(Error, "data-not-finite", subject, offset, message)
                    .help("make the file anew from its source, and check that for the same rows");
            }
            Err(error) => {
                findings.add(
                    Error,
                    "data-unreadable",
                    subject,
                    place.start,
                    error.to_string(),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_scale_is_found_in_every_type_that_has_one() {
        for ty in TensorType::all() {
            let size = ty.layout().bytes;
            let mut bytes = vec![0u8; size * 5];
            assert_eq!(scan(ty, &bytes, 0), Bad::default(), "{ty}");
            // All bits set is a NaN in every floating format.
            bytes[3 * size..4 * size].fill(0xFF);
            let expected = match rule(ty) {
                Rule::Nothing => Bad::default(),
                _ => Bad {
                    count: 1,
                    first: Some(10),
                },
            };
            assert_eq!(scan(ty, &bytes, 7), expected, "{ty}");
        }
    }

    #[test]
    fn every_scale_counts() {
        for ty in TensorType::all() {
            if let Rule::Half(offsets) = rule(ty) {
                for &at in offsets {
                    let mut block = vec![0u8; ty.layout().bytes];
                    // +infinity
                    block[at + 1] = 0x7C;
                    assert_eq!(scan(ty, &block, 0).count, 1, "{ty} at {at}");
                    // the largest finite number
                    block[at..at + 2].copy_from_slice(&0x7BFFu16.to_le_bytes());
                    assert_eq!(scan(ty, &block, 0).count, 0, "{ty} at {at}");
                }
            }
        }
        let mut f64s = f64::from(f32::MAX).to_le_bytes().to_vec();
        f64s.extend(1e39f64.to_le_bytes());
        assert_eq!(scan(TensorType::F64, &f64s, 0).first, Some(1));
    }
}
