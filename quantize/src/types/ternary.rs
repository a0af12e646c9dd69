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
    /// A block of scale bits and digits plus one.
    fn pack(d: u16, digits: &[u8; 256]) -> [u8; BYTES];
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
            let amax = largest(simd, values);
            *block = T::pack(f32_to_f16(amax), &ternary(simd, values, amax));
            if self.effort == Effort::Best
                && amax > 0.0
                && let Some(candidate) = best::<S, T, BYTES>(simd, values, importance, amax)
            {
                keep_better::<S, T, BYTES, 256>(simd, block, &candidate, values, importance);
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
    let mut magnitudes = *values;
    for x in &mut magnitudes {
        *x = x.abs();
    }
    let d = best_scale::<S, Digits>(simd, &magnitudes, weights, from, amax)?;
    let bits = f32_to_f16(d);
    let digits = digits(simd, values, 1.0, 0.5 * f16_to_f32(bits));
    Some(T::pack(bits, &digits))
}

/// The largest magnitude.
#[inline(always)]
pub(super) fn largest<S: Simd, const N: usize>(simd: S, values: &[f32; N]) -> f32 {
    let mut largest = simd.splat(0.0);
    for x in values.as_chunks::<LANES>().0 {
        largest = simd.load(x).abs().max(largest);
    }
    largest.greatest()
}

/// Values in units of their largest magnitude, rounded away from zero at the half, as ggml does; plus one.
#[inline(always)]
pub(super) fn ternary<S: Simd, const N: usize>(simd: S, values: &[f32; N], amax: f32) -> [u8; N] {
    const BELOW_HALF: f32 = 0.5f32.next_down();
    let inverse = 1.0 / amax;
    // Where the reciprocal overflows, ggml's codes mean zero or nothing.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    digits(simd, values, inverse, BELOW_HALF)
}

/// One, and one more or less where a value times `factor` is above `bound` or below its negative.
#[inline(always)]
fn digits<S: Simd, const N: usize>(simd: S, values: &[f32; N], factor: f32, bound: f32) -> [u8; N] {
    let (zero, one, two) = (simd.splat(0.0), simd.splat(1.0), simd.splat(2.0));
    let (factor, above, below) = (simd.splat(factor), simd.splat(bound), simd.splat(-bound));
    let mut digits = [0; N];
    let chunks = values.as_chunks::<LANES>().0;
    for (digits, x) in digits.as_chunks_mut().0.iter_mut().zip(chunks) {
        let v = simd.load(x) * factor;
        *digits = two
            .select(v.gt(above), zero.select(v.lt(below), one))
            .to_u8();
    }
    digits
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
    fn add<S: Simd>(simd: S, x: S::F, w: S::F, scale: S::F, _: S::F, sums: &mut [S::F; 2]) {
        let w = w.select((x + x).gt(scale), simd.splat(0.0));
        sums[0] = sums[0] + w * x;
        sums[1] = sums[1] + w;
    }
}
