//! The plain form of the float product.

use gristmill_quantize::half::{bf16_to_f32, f16_to_f32};

use super::{STRANDS, Stored};

/// The product of a stored row and a token of as many values.
pub(super) fn dot(stored: Stored, row: &[u8], x: &[f32]) -> f32 {
    match stored {
        Stored::F32 => strands(row.as_chunks().0, x, f32::from_le_bytes),
        Stored::F16 => strands(row.as_chunks().0, x, |b| f16_to_f32(u16::from_le_bytes(b))),
        Stored::Bf16 => strands(row.as_chunks().0, x, |b| bf16_to_f32(u16::from_le_bytes(b))),
    }
}

#[inline(always)]
fn strands<const BYTES: usize>(
    row: &[[u8; BYTES]],
    x: &[f32],
    value: impl Fn([u8; BYTES]) -> f32,
) -> f32 {
    assert_eq!(row.len(), x.len());
    let mut strands = [0.0f32; STRANDS];
    let (row, row_rest) = row.as_chunks::<STRANDS>();
    let (x, x_rest) = x.as_chunks::<STRANDS>();
    for (row, x) in row.iter().zip(x) {
        for i in 0..STRANDS {
            strands[i] += value(row[i]) * x[i];
        }
    }
    for (i, (&weight, x)) in row_rest.iter().zip(x_rest).enumerate() {
        strands[i] += value(weight) * x;
    }
    strands.iter().sum()
}
