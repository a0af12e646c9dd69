//! Nearest E2M1 numbers for a given scale, and the error they leave.

use super::sum_lanes;
use crate::simd::{Float, LANES, Simd};

/// Midpoint between neighbouring code values, and their distance.
const STEPS: [(f32, f32); 7] = [
    (0.5, 1.0),
    (1.5, 1.0),
    (2.5, 1.0),
    (3.5, 1.0),
    (5.0, 2.0),
    (7.0, 2.0),
    (10.0, 4.0),
];

/// Sixteen magnitudes as doubled E2M1 numbers, for a scale that is half the block's. A tie goes to
/// the smaller number. `scale` must not be zero.
///
/// ggml compares the rounded distances to all sixteen code values. Around each of the midpoints
/// below both distances are exact, so that comparing with the midpoint decides the same.
#[inline(always)]
pub(crate) fn nearest_magnitude<S: Simd>(simd: S, magnitudes: S::F, scale: f32) -> S::F {
    let zero = simd.splat(0.0);
    let mut sum = zero;
    for (midpoint, step) in STEPS {
        let above = magnitudes.gt(simd.splat(midpoint * scale));
        sum = sum + simd.splat(step).select(above, zero);
    }
    sum
}

/// `Σ w·(|x| - scale·q)²` over values in lanes, `q` their nearest codes.
#[inline(always)]
pub(crate) fn error<S: Simd, const N: usize>(
    simd: S,
    magnitudes: &[[f32; LANES]; N],
    weights: &[[f32; LANES]; N],
    scale: f32,
) -> f32 {
    let mut sum = simd.splat(0.0);
    for (x, w) in magnitudes.iter().zip(weights) {
        let x = simd.load(x);
        let difference = x - simd.splat(scale) * nearest_magnitude(simd, x, scale);
        sum = sum + simd.load(w) * (difference * difference);
    }
    sum_lanes(&sum.to_array())
}

/// The codes of values in lanes: those of [`nearest_magnitude`]. Zero is code 0 for either sign.
#[inline(always)]
pub(crate) fn codes<S: Simd>(simd: S, values: &[f32; LANES], scale: f32) -> [u8; LANES] {
    if scale == 0.0 {
        return [0; LANES];
    }
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let values = simd.load(values);
    let mut code = zero;
    for (midpoint, _) in STEPS {
        let above = values.abs().gt(simd.splat(midpoint * scale));
        code = code + one.select(above, zero);
    }
    let negative = values.lt(zero) & code.gt(zero);
    (code + simd.splat(8.0).select(negative, zero)).to_u8()
}
