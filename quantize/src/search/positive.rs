//! A scale for values that are not negative: `x ≈ scale·l`, `l` in `0..=top`.

use super::EPSILON;
use crate::simd::{Float, Mask, Simd};

/// Outside what `nearest` can give: no bound.
const UNBOUNDED: i32 = 1 << 22;

/// An integer modulo 256.
#[inline(always)]
fn as_u8<S: Simd>(simd: S, l: S::F) -> S::F {
    // How many times 256 fits, rounded down: no integer lies on a tie.
    let wraps = (l - simd.splat(127.5)) * simd.splat(1.0 / 256.0);
    (l - simd.splat(256.0) * wraps.round_ties_even()).select(l.lt(simd.splat(0.0)), l)
}

/// ggml's `make_qp_quants`. Gives the scale, and the levels in `levels`. A negative value's level
/// is kept modulo 256, as ggml keeps it.
#[inline(always)]
pub(crate) fn reference_positive<S: Simd, const N: usize>(
    simd: S,
    top: i32,
    x: &[S::F; N],
    w: &[S::F; N],
    levels: &mut [S::F; N],
) -> S::F {
    let zero = simd.splat(0.0);
    let mut max = zero;
    for &x in x {
        max = x.max(max);
    }
    let is_zero = max.lt(simd.splat(EPSILON));

    let mut inverse = simd.splat(top as f32) / max;
    let scale = simd.splat(1.0) / inverse;
    let mut best = zero;
    for (&x, &w) in x.iter().zip(w) {
        let difference = x - scale * as_u8(simd, (inverse * x).nearest(-UNBOUNDED, UNBOUNDED));
        best = best + w * difference * difference;
    }
    for step in (-4..=4).filter(|&step| step != 0) {
        let this_inverse = simd.splat(0.1 * step as f32 + top as f32) / max;
        let this_scale = simd.splat(1.0) / this_inverse;
        let mut error = zero;
        for (&x, &w) in x.iter().zip(w) {
            let difference = x - this_scale * (this_inverse * x).nearest(-UNBOUNDED, top);
            error = error + w * difference * difference;
        }
        let better = error.lt(best);
        best = error.select(better, best);
        inverse = this_inverse.select(better, inverse);
    }

    let (mut sum_xl, mut sum_ll) = (zero, zero);
    for ((level, &x), &w) in levels.iter_mut().zip(x).zip(w) {
        let l = (inverse * x).nearest(-UNBOUNDED, top);
        *level = as_u8(simd, l);
        sum_xl = sum_xl + w * x * l;
        sum_ll = sum_ll + w * l * l;
    }
    for _ in 0..5 {
        let mut any_moved = false;
        for ((level, &x), &w) in levels.iter_mut().zip(x).zip(w) {
            let l = *level;
            let rest_xl = sum_xl - w * x * l;
            let rest_ll = sum_ll - w * l * l;
            let new = (x * rest_ll / rest_xl).nearest(-UNBOUNDED, top);
            let new_xl = rest_xl + w * x * new;
            let new_ll = rest_ll + w * new * new;
            let better = (new_xl * new_xl * sum_ll).gt(sum_xl * sum_xl * new_ll);
            let moves = rest_xl.gt(zero) & rest_ll.gt(zero) & !new.eq(l) & better;
            if moves.any() {
                any_moved = true;
                sum_xl = new_xl.select(moves, sum_xl);
                sum_ll = new_ll.select(moves, sum_ll);
                *level = as_u8(simd, new).select(moves, l);
            }
        }
        if !any_moved {
            break;
        }
    }
    for level in levels {
        *level = zero.select(is_zero, *level);
    }
    let scale = (sum_xl / sum_ll).select(sum_ll.gt(zero), zero);
    zero.select(is_zero, scale)
}
