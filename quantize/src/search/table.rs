//! One scale for 32 values that are coded by the table of IQ4_NL, sixteen blocks in lanes.

use super::{EPSILON, signed_extreme};
use crate::codebooks::IQ4_VALUES;
use crate::simd::{Float, LANES, Mask, Simd, scatter_levels};

/// Values in a block.
const N: usize = 32;

/// The table value nearest to `v`, or its code.
///
/// ggml compares the rounded distances to both neighbours and goes up at a tie. Around their
/// midpoint both distances are exact, so that comparing with the midpoint decides the same.
#[inline(always)]
fn nearest<S: Simd, const CODE: bool>(simd: S, v: S::F) -> S::F {
    let zero = simd.splat(0.0);
    let mut sum = simd.splat(if CODE { 0.0 } else { f32::from(IQ4_VALUES[0]) });
    for pair in IQ4_VALUES.windows(2) {
        let (low, high) = (f32::from(pair[0]), f32::from(pair[1]));
        let below = v.lt(simd.splat(0.5 * (low + high)));
        let step = simd.splat(if CODE { 1.0 } else { high - low });
        sum = sum + zero.select(below, step);
    }
    sum
}

/// The table value nearest to `v`.
#[inline(always)]
pub(crate) fn nearest_value<S: Simd>(simd: S, v: S::F) -> S::F {
    nearest::<S, false>(simd, v)
}

/// The codes of the values nearest to `x·inverse`.
#[inline(always)]
pub(crate) fn codes<S: Simd>(simd: S, x: &[S::F; N], inverse: S::F) -> [[u8; N]; LANES] {
    let mut codes = [simd.splat(0.0); N];
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = nearest::<S, true>(simd, inverse * x);
    }
    scatter_levels(&codes)
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

/// ggml's weights: importance with the roots of squares around `mean`, or squares alone.
#[inline(always)]
pub(crate) fn reference_weights<S: Simd>(
    x: &[S::F; N],
    importance: Option<&[S::F; N]>,
    mean: S::F,
) -> [S::F; N] {
    let mut w = *x;
    for j in 0..N {
        w[j] = match importance {
            Some(v) => v[j] * (mean + x[j] * x[j]).sqrt(),
            None => x[j] * x[j],
        };
    }
    w
}
