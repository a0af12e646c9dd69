//! What the types of -1, 0 and 1 share.

use std::marker::PhantomData;

use super::{Effort, Format, Rows};
use crate::half::{f16_to_f32, f32_to_f16};
use crate::search::error::keep_better;
use crate::search::scale::{Rounding, best_scale};
use crate::search::sum_lanes;
use crate::simd::{Float, Kernel, LANES, Simd, dispatch};

/// A type of 256 digits -1, 0, 1 and a scale.
pub(super) trait Ternary<const BYTES: usize>: Format<BYTES, 256> {
    /// A block of scale bits and digits.
    fn pack(d: u16, digits: &[i8; 256]) -> [u8; BYTES];
}

/// Encodes rows of a ternary type.
pub(super) fn encode<T: Ternary<BYTES>, const BYTES: usize>(
    rows: &Rows<'_>,
    effort: Effort,
    blocks: &mut [[u8; BYTES]],
) {
    dispatch(
        rows.isa,
        Encode::<T, BYTES> {
            rows,
            effort,
            blocks,
            ty: PhantomData,
        },
    );
}

struct Encode<'a, T, const BYTES: usize> {
    rows: &'a Rows<'a>,
    effort: Effort,
    blocks: &'a mut [[u8; BYTES]],
    ty: PhantomData<T>,
}

impl<T: Ternary<BYTES>, const BYTES: usize> Kernel for Encode<'_, T, BYTES> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (block, (values, importance)) in self.blocks.iter_mut().zip(self.rows.blocks()) {
            let amax = values.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
            *block = T::pack(f32_to_f16(amax), &ternary(values, amax));
            if self.effort == Effort::Best
                && amax > 0.0
                && let Some(candidate) = best::<S, T, BYTES>(simd, values, importance, amax)
            {
                keep_better::<T, BYTES, 256>(block, &candidate, values, importance);
            }
        }
    }
}

/// The block with the best scale.
#[inline(always)]
fn best<S: Simd, T: Ternary<BYTES>, const BYTES: usize>(
    simd: S,
    values: &[f32; 256],
    importance: Option<&[f32; 256]>,
    amax: f32,
) -> Option<[u8; BYTES]> {
    let ones = [1.0; 256];
    let weights = importance.unwrap_or(&ones);
    let from = lower_scale(simd, values, amax);
    let magnitudes = values.map(f32::abs);
    let d = best_scale::<S, Digits>(simd, &magnitudes, weights, from, amax)?;
    let bits = f32_to_f16(d);
    let bound = 0.5 * f16_to_f32(bits);
    let digits = values.map(|x| i8::from(x > bound) - i8::from(x < -bound));
    Some(T::pack(bits, &digits))
}

/// Values in units of their largest magnitude, rounded away from zero at the half, as ggml does.
#[inline(always)]
pub(super) fn ternary<const N: usize>(values: &[f32; N], amax: f32) -> [i8; N] {
    let inverse = 1.0 / amax;
    // Where the reciprocal overflows, ggml's codes mean zero or nothing.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    values.map(|x| {
        let v = x * inverse;
        i8::from(v >= 0.5) - i8::from(v <= -0.5)
    })
}

/// A scale below which the best one will not lie: half the mean magnitude.
#[inline(always)]
pub(super) fn lower_scale<S: Simd, const N: usize>(simd: S, values: &[f32; N], amax: f32) -> f32 {
    let mut sum = simd.splat(0.0);
    for x in values.as_chunks::<LANES>().0 {
        sum = sum + simd.load(x).abs();
    }
    let mean = sum_lanes(&sum.to_array()) / N as f32;
    (0.5 * mean).clamp(amax / 4096.0, amax)
}

/// Magnitudes of digits: 0 and 1.
struct Digits;

impl Rounding for Digits {
    const SIGNED: bool = false;

    #[inline(always)]
    fn add<S: Simd>(simd: S, x: f32, w: f32, scale: S::F, _: S::F, sums: &mut [S::F; 2]) {
        let zero = simd.splat(0.0);
        let is_one = simd.splat(2.0 * x).gt(scale);
        sums[0] = sums[0] + simd.splat(w * x).select(is_one, zero);
        sums[1] = sums[1] + simd.splat(w).select(is_one, zero);
    }
}
