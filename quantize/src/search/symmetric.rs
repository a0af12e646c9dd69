//! One signed scale for a group of values: `x ≈ scale·l`, `l` in `-half..half`.

use super::EPSILON;
use crate::simd::{Float, Mask, Simd};

/// Of each lane the value largest by magnitude (the first such), with its sign, and the magnitude.
#[inline(always)]
pub(crate) fn signed_extreme<S: Simd, const N: usize>(simd: S, x: &[S::F; N]) -> (S::F, S::F) {
    let mut extreme = simd.splat(0.0);
    let mut magnitude = extreme;
    for &x in x {
        let larger = x.abs().gt(magnitude);
        magnitude = x.abs().select(larger, magnitude);
        extreme = x.select(larger, extreme);
    }
    (extreme, magnitude)
}

/// `Σwxl` and `Σwll` for the levels of one inverse scale.
#[inline(always)]
fn sums<S: Simd, const N: usize>(
    simd: S,
    half: i32,
    x: &[S::F; N],
    w: &[S::F; N],
    inverse: S::F,
) -> (S::F, S::F) {
    let (lo, hi) = (simd.splat(-half as f32), simd.splat((half - 1) as f32));
    let mut sum_xl = simd.splat(0.0);
    let mut sum_ll = sum_xl;
    for (&x, &w) in x.iter().zip(w) {
        let l = (inverse * x).round_ties_even().max(lo).min(hi);
        sum_xl = sum_xl + w * x * l;
        sum_ll = sum_ll + w * l * l;
    }
    (sum_xl, sum_ll)
}

/// ggml's `make_qx_quants` (weighted mode): nineteen inverse scales around the one that maps the
/// extreme value to `-half`. Gives the scale, and in `levels` the levels plus `half`.
#[inline(always)]
pub(crate) fn reference_symmetric<S: Simd, const N: usize>(
    simd: S,
    half: i32,
    x: &[S::F; N],
    w: &[S::F; N],
    levels: &mut [S::F; N],
) -> S::F {
    let zero = simd.splat(0.0);
    let (extreme, magnitude) = signed_extreme(simd, x);
    let is_zero = magnitude.lt(simd.splat(EPSILON));
    let mut chosen = simd.splat(-half as f32) / extreme;
    let (sum_xl, sum_ll) = sums(simd, half, x, w, chosen);
    let mut scale = (sum_xl / sum_ll).select(!sum_ll.eq(zero), zero);
    let mut best = scale * sum_xl;
    for step in (-9..=9).filter(|&step| step != 0) {
        let inverse = simd.splat(-(half as f32 + 0.1 * step as f32)) / extreme;
        let (sum_xl, sum_ll) = sums(simd, half, x, w, inverse);
        let better = sum_ll.gt(zero) & (sum_xl * sum_xl).gt(best * sum_ll);
        if better.any() {
            scale = (sum_xl / sum_ll).select(better, scale);
            best = (scale * sum_xl).select(better, best);
            chosen = inverse.select(better, chosen);
        }
    }
    let (lo, hi) = (simd.splat(-half as f32), simd.splat((half - 1) as f32));
    for (level, &x) in levels.iter_mut().zip(x) {
        let l = (chosen * x).round_ties_even().max(lo).min(hi);
        *level = zero.select(is_zero, l + simd.splat(half as f32));
    }
    zero.select(is_zero, scale)
}

/// ggml's `make_q3_quants`: one inverse scale, then up to five passes that move single levels.
/// Weights are `x²`. Results as of [`reference_symmetric`].
#[inline(always)]
pub(crate) fn reference_symmetric_greedy<S: Simd, const N: usize>(
    simd: S,
    half: i32,
    x: &[S::F; N],
    levels: &mut [S::F; N],
) -> S::F {
    let zero = simd.splat(0.0);
    let (lo, hi) = (simd.splat(-half as f32), simd.splat((half - 1) as f32));
    let (extreme, magnitude) = signed_extreme(simd, x);
    let is_zero = magnitude.lt(simd.splat(EPSILON));
    let inverse = lo / extreme;
    let (mut sum_xl, mut sum_ll) = (zero, zero);
    for (level, &x) in levels.iter_mut().zip(x) {
        let l = (inverse * x).round_ties_even().max(lo).min(hi);
        let w = x * x;
        sum_xl = sum_xl + w * x * l;
        sum_ll = sum_ll + w * l * l;
        *level = l;
    }
    for _ in 0..5 {
        let mut any_moved = false;
        for (level, &x) in levels.iter_mut().zip(x) {
            let l = *level;
            let w = x * x;
            let rest_xl = sum_xl - w * x * l;
            let rest_ll = sum_ll - w * l * l;
            let new = (x * rest_ll / rest_xl).nearest(-half, half - 1);
            let new_xl = rest_xl + w * x * new;
            let new_ll = rest_ll + w * new * new;
            let better = (new_xl * new_xl * sum_ll).gt(sum_xl * sum_xl * new_ll);
            let moves = rest_xl.gt(zero) & !new.eq(l) & new_ll.gt(zero) & better;
            if moves.any() {
                any_moved = true;
                sum_xl = new_xl.select(moves, sum_xl);
                sum_ll = new_ll.select(moves, sum_ll);
                *level = new.select(moves, l);
            }
        }
        if !any_moved {
            break;
        }
    }
    for level in levels {
        *level = zero.select(is_zero, *level + simd.splat(half as f32));
    }
    let scale = (sum_xl / sum_ll).select(sum_ll.gt(zero), zero);
    zero.select(is_zero, scale)
}
