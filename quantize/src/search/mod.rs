//! Searches that several tensor types share: sixteen blocks at a time, one a lane.
//!
//! Those named `reference_*` take exactly ggml's decisions, so that its bytes come out.

use std::array::from_fn;

mod affine;
mod affine_best;
pub(crate) mod error;
pub(crate) mod fp4;
pub(crate) mod lattice;
pub(crate) mod lattice_best;
pub(crate) mod multiples;
mod neighbours;
pub(crate) mod points;
mod positive;
pub(crate) mod scale;
pub(crate) mod shifted;
pub(crate) mod shifted_best;
mod symmetric;
pub(crate) mod table;
pub(crate) mod unshrunk;

pub(crate) use affine::{AffineSteps, reference_affine};
pub(crate) use affine_best::{AffineGroup, AffineSuperBlocks, best_affine};
pub(crate) use positive::reference_positive;
pub(crate) use symmetric::{
    SuperBlock, best_symmetric, reference_symmetric, reference_symmetric_greedy, signed_extreme,
};

use crate::simd::{Float, LANES};

/// Below this, ggml takes a group of values for zero.
pub(crate) const EPSILON: f32 = 1e-15;

/// Sums lanes in a fixed order.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: &[f32; LANES]) -> f32 {
    let eight: [f32; 8] = from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// ggml's `nearest_int`: adds 1.5·2^23 and reads the low bits. Ties to even within ±2^22; beyond
/// that it wraps, and NaN gives 0, which encoders of ggml's bytes must reproduce.
#[inline(always)]
pub(crate) fn nearest_int(value: f32) -> i32 {
    ((value + 12_582_912.0).to_bits() & 0x007F_FFFF) as i32 - 0x0040_0000
}

/// ggml's weights where there is importance: `v·sqrt(mean_square + x²)`.
#[inline(always)]
pub(crate) fn reference_weights<F: Float, const N: usize>(
    v: &[F; N],
    x: &[F; N],
    mean_square: F,
) -> [F; N] {
    let mut w = *v;
    for (w, &x) in w.iter_mut().zip(x) {
        *w = *w * (mean_square + x * x).sqrt();
    }
    w
}

/// What effort `best` weighs the squared errors of a block with: importance relative to the largest,
/// one without importance. Values of no importance keep a trace of weight, so that they too are
/// encoded well where that costs nothing.
#[inline(always)]
pub(crate) fn relative_weights<const N: usize>(importance: Option<&[f32; N]>) -> [f32; N] {
    const TRACE: f32 = 1e-9;
    let Some(importance) = importance else {
        return [1.0; N];
    };
    let largest = largest_magnitude(importance);
    let inverse = if largest > 0.0 { 1.0 / largest } else { 1.0 };
    from_fn(|i| importance[i] * inverse + TRACE)
}

/// The largest `|x|`; 0 for NaN alone.
#[inline(always)]
pub(crate) fn largest_magnitude<const N: usize>(x: &[f32; N]) -> f32 {
    // Eight partial results make it a vector operation.
    let mut largest = [0.0f32; 8];
    for chunk in x.chunks_exact(8) {
        for (largest, x) in largest.iter_mut().zip(chunk) {
            *largest = if x.abs() > *largest {
                x.abs()
            } else {
                *largest
            };
        }
    }
    largest.into_iter().fold(0.0, f32::max)
}
