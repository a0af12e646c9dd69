//! Q1_0: 128 signs, one half-precision scale.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::{Effort, Format, ImportanceUse, Rows};
use crate::half::f32_to_f16;
use crate::search::sum_lanes;
use crate::simd::{Float, Kernel, Simd, dispatch};

/// Block of 18 bytes: scale `d`, 16 bytes of bits. `value = bit ? d : -d`.
pub(crate) struct Q1_0;

impl Format<18, 128> for Q1_0 {
    const TYPE: TensorType = TensorType::Q1_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;

    #[inline(always)]
    fn decode(block: &[u8; 18], out: &mut [f32; 128]) {
        let d = f16_at(block, 0);
        for (out, &bits) in out.chunks_exact_mut(8).zip(&block[2..]) {
            for (j, value) in out.iter_mut().enumerate() {
                *value = if (bits >> j) & 1 == 1 { d } else { -d };
            }
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 18]]) {
        dispatch(
            rows.isa,
            Encode {
                rows,
                effort,
                blocks,
            },
        );
    }
}

struct Encode<'a> {
    rows: &'a Rows<'a>,
    effort: Effort,
    blocks: &'a mut [[u8; 18]],
}

impl Kernel for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (block, (values, importance)) in self.blocks.iter_mut().zip(self.rows.blocks()) {
            let mut d = values.iter().fold(0.0, |sum, x| sum + x.abs()) / 128.0;
            if let (Effort::Best, Some(importance)) = (self.effort, importance) {
                d = mean_magnitude(simd, values, importance).unwrap_or(d);
            }
            block[..2].copy_from_slice(&f32_to_f16(d).to_le_bytes());
            for (bits, values) in block[2..].iter_mut().zip(values.as_chunks::<8>().0) {
                *bits = (0..8).fold(0, |bits, j| bits | u8::from(values[j] >= 0.0) << j);
            }
        }
    }
}

/// The scale of least error: the magnitudes' mean, weighted. `None` if all weights are zero.
#[inline(always)]
fn mean_magnitude<S: Simd>(simd: S, values: &[f32; 128], weights: &[f32; 128]) -> Option<f32> {
    let (mut sum, mut total) = (simd.splat(0.0), simd.splat(0.0));
    for (x, w) in values.as_chunks().0.iter().zip(weights.as_chunks().0) {
        sum = sum + simd.load(w) * simd.load(x).abs();
        total = total + simd.load(w);
    }
    let total = sum_lanes(&total.to_array());
    (total > 0.0).then(|| sum_lanes(&sum.to_array()) / total)
}
