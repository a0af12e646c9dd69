//! A scale and a minimum for a group of values: `x ≈ scale·l + min`, `l` in `0..=top`, `min ≤ 0`.

use crate::simd::{Float, Mask, Simd};

/// The inverse scales that [`reference_affine`] tries: `(first + step·i + top) / (max - min)`.
#[derive(Clone, Copy)]
pub(crate) struct AffineSteps {
    pub(crate) first: f32,
    pub(crate) step: f32,
    /// The last `i`.
    pub(crate) last: u32,
    /// Compares candidates by `Σw|error|` instead of `Σw·error²`.
    pub(crate) absolute: bool,
}

impl AffineSteps {
    /// Those that ggml uses wherever there is importance.
    pub(crate) const WEIGHTED: Self = Self {
        first: -0.9,
        step: 0.05,
        last: 36,
        absolute: false,
    };

    /// What an error counts for.
    #[inline(always)]
    fn weigh<F: Float>(&self, error: F, w: F) -> F {
        if self.absolute {
            w * error.abs()
        } else {
            w * (error * error)
        }
    }
}

/// ggml's `make_qkx2_quants` and `make_qkx3_quants`. Gives the scale and the minimum (at most 0),
/// and the levels in `levels`.
#[inline(always)]
pub(crate) fn reference_affine<S: Simd, const N: usize>(
    simd: S,
    top: i32,
    steps: AffineSteps,
    x: &[S::F; N],
    w: &[S::F; N],
    levels: &mut [S::F; N],
) -> (S::F, S::F) {
    let zero = simd.splat(0.0);
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = w[0];
    let mut sum_x = w[0] * x[0];
    for (&x, &w) in x.iter().zip(w).skip(1) {
        min = x.min(min);
        max = x.max(max);
        sum_w = sum_w + w;
        sum_x = sum_x + w * x;
    }
    min = zero.select(min.gt(zero), min);
    let flat = !max.gt(min);
    let floor = min;

    let mut inverse = simd.splat(top as f32) / (max - min);
    let mut scale = simd.splat(1.0) / inverse;
    let mut best = zero;
    for (&x, &w) in x.iter().zip(w) {
        let l = (inverse * (x - min)).nearest(0, top);
        best = best + steps.weigh(scale * l + min - x, w);
    }
    // The levels kept are those of `inverse` and `origin`.
    let mut origin = min;
    let mut candidate = [zero; N];
    for i in 0..=steps.last {
        let target = steps.first + steps.step * i as f32 + top as f32;
        let this_inverse = simd.splat(target) / (max - min);
        let (mut sum_l, mut sum_ll, mut sum_xl) = (zero, zero, zero);
        for ((l, &x), &w) in candidate.iter_mut().zip(x).zip(w) {
            *l = (this_inverse * (x - min)).nearest(0, top);
            let wl = w * *l;
            sum_l = sum_l + wl;
            sum_ll = sum_ll + wl * *l;
            sum_xl = sum_xl + wl * x;
        }
        let determinant = sum_w * sum_ll - sum_l * sum_l;
        let solvable = determinant.gt(zero);
        if !solvable.any() {
            continue;
        }
        let this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        let this_min = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
        let above = this_min.gt(zero);
        let this_min = zero.select(above, this_min);
        let this_scale = (sum_xl / sum_ll).select(above, this_scale);
        let mut error = zero;
        for ((&l, &x), &w) in candidate.iter().zip(x).zip(w) {
            error = error + steps.weigh(this_scale * l + this_min - x, w);
        }
        let better = solvable & error.lt(best);
        if better.any() {
            best = error.select(better, best);
            inverse = this_inverse.select(better, inverse);
            origin = min.select(better, origin);
            scale = this_scale.select(better, scale);
            // As in ggml, later candidates start from the minimum accepted here.
            min = this_min.select(better, min);
        }
    }
    for (level, &x) in levels.iter_mut().zip(x) {
        let l = (inverse * (x - origin)).nearest(0, top);
        *level = zero.select(flat, l);
    }
    (zero.select(flat, scale), floor.select(flat, min))
}
