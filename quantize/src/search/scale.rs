//! Search of a single scale for a block whose codes follow from it by rounding.

use crate::simd::{Float, LANES, Simd};

/// A type's nearest code value.
pub(crate) trait Nearest {
    /// Of `v`, in units of the scale. Must be `#[inline(always)]`.
    fn nearest<S: Simd>(simd: S, v: S::F) -> S::F;
}

/// Finds the scale `d > 0` for which `Σ w·(x - d·q(x / d))²` is least, `q` being the type's nearest
/// code value, among 16 scales in geometric order from `from` to `to` and then among 16 between the
/// neighbours of the best of them. Gives the least-squares scale for the codes found and how much
/// of `Σ w·x²` they explain, or `None` if nothing correlates (all weights or all values zero).
///
/// Sixteen scales run side by side; each lane adds in the order of the values, so that the result
/// is the same on every instruction set.
#[inline(always)]
pub(crate) fn best_scale<S: Simd, T: Nearest>(
    simd: S,
    values: &[f32],
    weights: &[f32],
    from: f32,
    to: f32,
) -> Option<(f32, f32)> {
    let mut best = None;
    let mut start = from;
    let mut ratio = sixteenth_root(to / from);
    for _ in 0..2 {
        let mut scale = start;
        let scales: [f32; LANES] = std::array::from_fn(|_| {
            scale *= ratio;
            scale
        });
        let Some((lane, scale, score)) = best_of::<S, T>(simd, values, weights, &scales) else {
            break;
        };
        if best.is_none_or(|(_, most)| score > most) {
            best = Some((scale, score));
        }
        start = scales[lane] / ratio;
        ratio = sixteenth_root(ratio * ratio);
    }
    best
}

/// By square roots, which are rounded correctly everywhere.
#[inline(always)]
fn sixteenth_root(value: f32) -> f32 {
    value.sqrt().sqrt().sqrt().sqrt()
}

/// The lane whose codes explain most, its least-squares scale, and how much they explain.
#[inline(always)]
fn best_of<S: Simd, T: Nearest>(
    simd: S,
    values: &[f32],
    weights: &[f32],
    scales: &[f32; LANES],
) -> Option<(usize, f32, f32)> {
    let inverse = simd.splat(1.0) / simd.load(scales);
    let (mut sum_xq, mut sum_qq) = (simd.splat(0.0), simd.splat(0.0));
    for (&x, &w) in values.iter().zip(weights) {
        let q = T::nearest(simd, simd.splat(x) * inverse);
        let wq = simd.splat(w) * q;
        sum_xq = sum_xq + wq * simd.splat(x);
        sum_qq = sum_qq + wq * q;
    }
    let (sum_xq, sum_qq) = (sum_xq.to_array(), sum_qq.to_array());
    let mut best = None;
    for lane in 0..LANES {
        let scale = sum_xq[lane] / sum_qq[lane];
        let score = scale * sum_xq[lane];
        // Not so for NaN: no code but zero.
        if scale > 0.0 && score > best.map_or(0.0, |(_, _, most)| most) {
            best = Some((lane, scale, score));
        }
    }
    best
}
