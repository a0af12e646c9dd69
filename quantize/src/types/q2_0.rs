//! Q2_0: 64 values of {-1, 0, 1, 2} times a half-precision scale.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::ternary::{largest, lower_scale, ternary};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::half::{f16_to_f32, f32_to_f16};
use crate::search::error::keep_better;
use crate::search::scale::{Rounding, best_scale};
use crate::simd::{Float, Kernel, Simd, dispatch};

/// Block of 18 bytes: scale `d`, 16 bytes of four two-bit codes, first value lowest.
/// `value = (code - 1) * d`.
pub(crate) struct Q2_0;

impl Format<18, 64> for Q2_0 {
    const TYPE: TensorType = TensorType::Q2_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;

    #[inline(always)]
    fn decode<S: Simd>(_: S, block: &[u8; 18], out: &mut [f32; 64]) {
        let d = f16_at(block, 0);
        for (out, &codes) in out.chunks_exact_mut(4).zip(&block[2..]) {
            for (j, value) in out.iter_mut().enumerate() {
                *value = (((codes >> (2 * j)) & 3) as i8 - 1) as f32 * d;
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
            let amax = largest(simd, values);
            *block = pack(f32_to_f16(amax), &ternary(simd, values, amax));
            if self.effort == Effort::Best
                && amax > 0.0
                && let Some(candidate) = best(simd, values, importance, amax)
            {
                keep_better::<S, Q2_0, 18, 64>(simd, block, &candidate, values, importance);
            }
        }
    }
}

/// The block with the best scale of either sign, all four codes used.
#[inline(always)]
fn best<S: Simd>(
    simd: S,
    values: &[f32; 64],
    importance: Option<&[f32; 64]>,
    amax: f32,
) -> Option<[u8; 18]> {
    let ones = [1.0; 64];
    let weights = importance.unwrap_or(&ones);
    let from = lower_scale(simd, values, amax);
    let d = best_scale::<S, Codes>(simd, values, weights, from, amax)?;
    let bits = f32_to_f16(d);
    let d = f16_to_f32(bits);
    if d == 0.0 || !d.is_finite() {
        return None;
    }
    // Against the decoded scale, without the rounding of a reciprocal.
    let (zero, one, scale) = (simd.splat(0.0), simd.splat(1.0), simd.splat(d));
    let mut levels = [0; 64];
    let chunks = values.as_chunks().0;
    for (levels, x) in levels.as_chunks_mut().0.iter_mut().zip(chunks) {
        let v = simd.load(x) / scale;
        let mut level = zero;
        for bound in [-0.5, 0.5, 1.5] {
            level = level + one.select(v.gt(simd.splat(bound)), zero);
        }
        *levels = level.to_u8();
    }
    Some(pack(bits, &levels))
}

#[inline(always)]
fn pack(d: u16, levels: &[u8; 64]) -> [u8; 18] {
    let mut block = [0; 18];
    block[..2].copy_from_slice(&d.to_le_bytes());
    for (byte, levels) in block[2..].iter_mut().zip(levels.as_chunks::<4>().0) {
        *byte = levels[0] | levels[1] << 2 | levels[2] << 4 | levels[3] << 6;
    }
    block
}

/// -1, 0, 1 and 2.
struct Codes;

impl Rounding for Codes {
    const SIGNED: bool = true;

    #[inline(always)]
    fn add<S: Simd>(simd: S, x: S::F, w: S::F, _: S::F, inverse: S::F, sums: &mut [S::F; 2]) {
        let (lo, hi) = (simd.splat(-1.0), simd.splat(2.0));
        let q = (x * inverse).max(lo).min(hi).round_ties_even();
        let wq = w * q;
        sums[0] = sums[0] + wq * x;
        sums[1] = sums[1] + wq * q;
    }
}
