//! One signed scale for a group of values: `x ≈ scale·l`, `l` in `-half..half`.

use super::EPSILON;
use crate::simd::{Float, Mask, Simd, products};

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

/// `Σwxl` and `Σwll` for the levels of one inverse scale; `wx` are the products `w·x`.
#[inline(always)]
fn sums<S: Simd, const N: usize>(
    simd: S,
    half: i32,
    x: &[S::F; N],
    w: &[S::F; N],
    wx: &[S::F; N],
    inverse: S::F,
) -> (S::F, S::F) {
    let (lo, hi) = (simd.splat(-half as f32), simd.splat((half - 1) as f32));
    let mut sum_xl = simd.splat(0.0);
    let mut sum_ll = sum_xl;
    for ((&x, &w), &wx) in x.iter().zip(w).zip(wx) {
        let l = (inverse * x).round_ties_even().max(lo).min(hi);
        sum_xl = sum_xl + wx * l;
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
    let wx = products(w, x);
    let zero = simd.splat(0.0);
    let (extreme, magnitude) = signed_extreme(simd, x);
    let is_zero = magnitude.lt(simd.splat(EPSILON));
    let mut chosen = simd.splat(-half as f32) / extreme;
    let (sum_xl, sum_ll) = sums(simd, half, x, w, &wx, chosen);
    let mut scale = (sum_xl / sum_ll).select(!sum_ll.eq(zero), zero);
    let mut best = scale * sum_xl;
    for step in (-9..=9).filter(|&step| step != 0) {
        let inverse = simd.splat(-(half as f32 + 0.1 * step as f32)) / extreme;
        let (sum_xl, sum_ll) = sums(simd, half, x, w, &wx, inverse);
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

/// Scales of both signs that [`real_scale`] tries, as shares of the one that maps the extreme value
/// to the end of the levels.
const SHARES: std::ops::RangeInclusive<f32> = 0.8..=1.5;

/// The scale with the least `Σ w·(x - scale·l)²` of `2·tries` searched, refitted by least squares.
#[inline(always)]
pub(crate) fn real_scale<S: Simd, const N: usize>(
    simd: S,
    half: i32,
    tries: u32,
    x: &[S::F; N],
    w: &[S::F; N],
) -> S::F {
    let wx = products(w, x);
    let zero = simd.splat(0.0);
    let (extreme, _) = signed_extreme(simd, x);
    let (mut best, mut chosen) = (zero, zero);
    for i in 0..2 * tries {
        let end = if i < tries { -half } else { half - 1 };
        let progress = (i % tries) as f32 / (tries - 1) as f32;
        let share = SHARES.start() + (SHARES.end() - SHARES.start()) * progress;
        let inverse = simd.splat(end as f32 * share) / extreme;
        let (sum_xl, sum_ll) = sums(simd, half, x, w, &wx, inverse);
        let score = sum_xl * sum_xl / sum_ll;
        let better = score.gt(best);
        best = score.select(better, best);
        chosen = (sum_xl / sum_ll).select(better, chosen);
    }
    chosen
}

/// A search of many scales of both signs for the least `Σ w·(x - d·l)²`, `d` being an f16. Results
/// as of [`reference_symmetric`].
#[inline(always)]
pub(crate) fn best_symmetric<S: Simd, const N: usize>(
    simd: S,
    half: i32,
    x: &[S::F; N],
    w: &[S::F; N],
    levels: &mut [S::F; N],
) -> S::F {
    let wx = products(w, x);
    let mut d = real_scale(simd, half, 24, x, w).round_to_f16();
    let mut least = symmetric_error(simd, half, x, w, d);
    let mut next = d;
    for _ in 0..2 {
        let (sum_xl, sum_ll) = sums(simd, half, x, w, &wx, simd.splat(1.0) / next);
        next = (sum_xl / sum_ll).round_to_f16();
        let error = symmetric_error(simd, half, x, w, next);
        let better = error.lt(least);
        least = error.select(better, least);
        d = next.select(better, d);
    }
    let inverse = simd.splat(1.0) / d;
    for (level, &x) in levels.iter_mut().zip(x) {
        *level = (inverse * x).nearest(-half, half - 1) + simd.splat(half as f32);
    }
    d
}

/// A super-block of sixteen sub-blocks, one a lane, whose scales are integers times one f16.
pub(crate) struct SuperBlock<'a, F, const N: usize> {
    /// Half the number of levels.
    pub(crate) half: i32,
    /// Integer scales are in `-scale_half..scale_half`.
    pub(crate) scale_half: i32,
    pub(crate) x: &'a [F; N],
    pub(crate) w: &'a [F; N],
}

impl<F: Float, const N: usize> SuperBlock<'_, F, N> {
    /// Searches `d` and the integer scales that leave little `Σ w·(x - d·scale·l)²`; gives them, and
    /// the levels plus `half`.
    #[inline(always)]
    pub(crate) fn search<S: Simd<F = F>>(&self, simd: S) -> (f32, F, [F; N]) {
        let real = real_scale(simd, self.half, 16, self.x, self.w);
        let extreme = real.to_array().into_iter().fold(0.0f32, |extreme, scale| {
            if scale.abs() > extreme.abs() {
                scale
            } else {
                extreme
            }
        });
        let mut best = (f32::INFINITY, 0.0, real);
        for t in 0..5 {
            let t = 0.5 * t as f32;
            let d = extreme / (t - self.scale_half as f32);
            let d = simd.splat(d).round_to_f16().to_array()[0];
            let (error, scales) = self.scales(simd, d, real, 1);
            if error < best.0 {
                best = (error, d, scales);
            }
        }
        for _ in 0..1 {
            let d = self.refit(simd, best.1, best.2);
            let (error, scales) = self.scales(simd, d, simd.splat(best.1) * best.2, 6);
            if error < best.0 {
                best = (error, d, scales);
            }
        }
        let inverse = simd.splat(1.0) / (simd.splat(best.1) * best.2);
        let mut levels = *self.x;
        for level in &mut levels {
            *level = (*level * inverse).nearest(-self.half, self.half - 1)
                + simd.splat(self.half as f32);
        }
        (best.1, best.2, levels)
    }

    /// The least-squares `d` for the levels that `d` and `scales` give.
    #[inline(always)]
    fn refit<S: Simd<F = F>>(&self, simd: S, d: f32, scales: F) -> f32 {
        let wx = products(self.w, self.x);
        let inverse = simd.splat(1.0) / (simd.splat(d) * scales);
        let (sum_xl, sum_ll) = sums(simd, self.half, self.x, self.w, &wx, inverse);
        let sum_xl: f32 = (scales * sum_xl).to_array().into_iter().sum();
        let sum_ll: f32 = (scales * scales * sum_ll).to_array().into_iter().sum();
        simd.splat(sum_xl / sum_ll).round_to_f16().to_array()[0]
    }

    /// The integer scales of least error within `reach` of `real / d`, and the error.
    #[inline(always)]
    fn scales<S: Simd<F = F>>(&self, simd: S, d: f32, real: F, reach: i32) -> (f32, F) {
        let d = simd.splat(d);
        let lo = simd.splat(-self.scale_half as f32);
        let hi = simd.splat((self.scale_half - 1) as f32);
        let center = (real / d).round_ties_even();
        let mut scales = center;
        let mut least = simd.splat(f32::INFINITY);
        let tries = 2 * reach + 1;
        for i in 0..2 * tries {
            let near = center + simd.splat((i % tries - reach) as f32);
            let near = if i < tries {
                near
            } else {
                simd.splat(0.0) - near
            };
            let scale = near.max(lo).min(hi);
            let error = symmetric_error(simd, self.half, self.x, self.w, d * scale);
            let better = error.lt(least);
            least = error.select(better, least);
            scales = scale.select(better, scales);
        }
        (least.to_array().into_iter().sum(), scales)
    }
}

/// `Σ w·(x - d·l)²`, every `l` being the nearest to `x / d`.
#[inline(always)]
pub(crate) fn symmetric_error<S: Simd, const N: usize>(
    simd: S,
    half: i32,
    x: &[S::F; N],
    w: &[S::F; N],
    d: S::F,
) -> S::F {
    let (lo, hi) = (simd.splat(-half as f32), simd.splat((half - 1) as f32));
    let inverse = simd.splat(1.0) / d;
    let mut sum = simd.splat(0.0);
    for (&x, &w) in x.iter().zip(w) {
        let l = (x * inverse).round_ties_even().max(lo).min(hi);
        let difference = x - d * l;
        sum = sum + w * (difference * difference);
    }
    sum
}
