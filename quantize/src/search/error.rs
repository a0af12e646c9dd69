//! The error of an encoding, and the choice of the better of two.

use super::{relative_weights, sum_lanes};
use crate::simd::{Float, LANES, Simd};
use crate::types::Format;

/// The least `Σ w·(x - s·y)²` of any `s` for a block's decoded values `y`. The scale that is stored does
/// not matter, since [`super::unshrunk`] has the last word on it. NaN if the block decodes to what is not
/// finite.
#[inline(always)]
fn residual<S, T, const BYTES: usize, const VALUES: usize>(
    simd: S,
    block: &[u8; BYTES],
    values: &[f32; VALUES],
    weights: &[f32; VALUES],
) -> f32
where
    S: Simd,
    T: Format<BYTES, VALUES>,
{
    let mut decoded = [0.0; VALUES];
    T::decode(simd, block, &mut decoded);
    let values = values.as_chunks::<LANES>().0;
    let weights = weights.as_chunks::<LANES>().0;
    let decoded = decoded.as_chunks::<LANES>().0;
    let zero = simd.splat(0.0);
    let (mut xx, mut xy, mut yy) = (zero, zero, zero);
    for ((x, w), y) in values.iter().zip(weights).zip(decoded) {
        let (x, y) = (simd.load(x), simd.load(y));
        let (wx, wy) = (simd.load(w) * x, simd.load(w) * y);
        xx = xx + wx * x;
        xy = xy + wx * y;
        yy = yy + wy * y;
    }
    let (xx, xy) = (sum_lanes(&xx.to_array()), sum_lanes(&xy.to_array()));
    let yy = sum_lanes(&yy.to_array());
    if xy <= 0.0 {
        return xx + yy;
    }
    // Not by a difference of the sums, which would cancel where the error is small.
    let scale = simd.splat(xy / yy);
    let mut error = zero;
    for ((x, w), y) in values.iter().zip(weights).zip(decoded) {
        let difference = simd.load(x) - scale * simd.load(y);
        error = error + simd.load(w) * (difference * difference);
    }
    sum_lanes(&error.to_array())
}

/// Replaces `block` by `candidate` if that has the smaller error; weights are one without importance.
#[inline(always)]
pub(crate) fn keep_better<S, T, const BYTES: usize, const VALUES: usize>(
    simd: S,
    block: &mut [u8; BYTES],
    candidate: &[u8; BYTES],
    values: &[f32; VALUES],
    importance: Option<&[f32; VALUES]>,
) where
    S: Simd,
    T: Format<BYTES, VALUES>,
{
    let weights = relative_weights(importance);
    let before = residual::<S, T, BYTES, VALUES>(simd, block, values, &weights);
    let after = residual::<S, T, BYTES, VALUES>(simd, candidate, values, &weights);
    // Where the reference overflows the format, so it stays: a job then refuses the weights, rather
    // than write some that are smaller by orders of magnitude.
    if after < before {
        *block = *candidate;
    }
}
