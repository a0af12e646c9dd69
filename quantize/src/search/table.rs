//! One scale for 32 values that are coded by the table of IQ4_NL, sixteen blocks in lanes.

use super::{EPSILON, signed_extreme};
use crate::codebooks::IQ4_VALUES;
use crate::simd::{Float, Mask, Simd};

/// Values in a block.
const N: usize = 32;

/// What `f` adds up over the steps between neighbouring table values that lie below `v`.
///
/// ggml compares the rounded distances to both neighbours and goes up at a tie. Around their
/// midpoint both distances are exact, so that comparing with the midpoint decides the same.
#[inline(always)]
fn climb<S: Simd>(simd: S, v: S::F, start: f32, step: impl Fn(f32, f32) -> f32) -> S::F {
    let zero = simd.splat(0.0);
    IQ4_VALUES.windows(2).fold(simd.splat(start), |sum, pair| {
        let (low, high) = (f32::from(pair[0]), f32::from(pair[1]));
        let below = v.lt(simd.splat(0.5 * (low + high)));
        sum + zero.select(below, simd.splat(step(low, high)))
    })
}

/// The table value nearest to `v`.
#[inline(always)]
pub(crate) fn nearest_value<S: Simd>(simd: S, v: S::F) -> S::F {
    climb(simd, v, f32::from(IQ4_VALUES[0]), |low, high| high - low)
}

/// The code of the table value nearest to `v`.
#[inline(always)]
pub(crate) fn nearest_code<S: Simd>(simd: S, v: S::F) -> S::F {
    climb(simd, v, 0.0, |_, _| 1.0)
}

/// `Σwxq` and `Σwqq` for the codes of one inverse scale.
#[inline(always)]
fn sums<S: Simd>(simd: S, x: &[S::F; N], w: &[S::F; N], inverse: S::F) -> (S::F, S::F) {
    let mut sum_xq = simd.splat(0.0);
    let mut sum_qq = sum_xq;
    for (&x, &w) in x.iter().zip(w) {
        let q = nearest_value(simd, inverse * x);
        let wq = w * q;
        sum_xq = sum_xq + wq * x;
        sum_qq = sum_qq + wq * q;
    }
    (sum_xq, sum_qq)
}

/// ggml's scale: sixteen inverse scales around the one that maps the extreme value to -127.
#[inline(always)]
pub(crate) fn reference_table<S: Simd>(simd: S, x: &[S::F; N], w: &[S::F; N]) -> S::F {
    let zero = simd.splat(0.0);
    let (extreme, magnitude) = signed_extreme(simd, x);
    let is_zero = magnitude.lt(simd.splat(EPSILON));
    let first = (zero - extreme) / simd.splat(-127.0);
    let (sum_xq, sum_qq) = sums(simd, x, w, simd.splat(1.0) / first);
    let mut scale = (sum_xq / sum_qq).select(sum_qq.gt(zero), zero);
    let mut best = scale * sum_xq;
    for step in -7..=7 {
        let inverse = simd.splat((step - 127) as f32) / extreme;
        let (sum_xq, sum_qq) = sums(simd, x, w, inverse);
        let better = sum_qq.gt(zero) & (sum_xq * sum_xq).gt(best * sum_qq);
        if better.any() {
            scale = (sum_xq / sum_qq).select(better, scale);
            best = (scale * sum_xq).select(better, best);
        }
    }
    zero.select(is_zero, scale)
}
