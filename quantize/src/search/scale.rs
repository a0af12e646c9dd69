//! Search of a single scale for a block whose codes follow from it by rounding.

use crate::simd::{Float, LANES, Simd};

/// Finds the scale `d` for which `Σ w·(x - d·q(x / d))²` is least, `q` being the type's nearest code
/// value, among 16 scales that divide `from..=to` evenly and then among 16 around the best of them.
/// Returns the least-squares scale for the codes found, or `None` if nothing correlates (all
/// weights or all values zero).
///
/// Sixteen scales run side by side; each lane adds in the order of the values, so the result is the
/// same on every instruction set.
#[inline(always)]
pub(crate) fn best_scale<S: Simd>(
    simd: S,
    values: &[f32],
    weights: &[f32],
    from: f32,
    to: f32,
    quantize: impl Fn(S::F) -> S::F,
) -> Option<(f32, f32)> {
    let mut best = None;
    let mut start = from;
    let mut step = (to - from) / (LANES - 1) as f32;
    for _ in 0..2 {
        let scales: [f32; LANES] = std::array::from_fn(|i| start + step * i as f32);
        let found = best_of(simd, values, weights, &scales, &quantize);
        let Some((lane, scale, score)) = found else {
            break;
        };
        if best.is_none_or(|(_, least)| score > least) {
            best = Some((scale, score));
        }
        // The second round looks between the neighbours of the best.
        start = scales[lane] - step;
        step = 2.0 * step / (LANES - 1) as f32;
    }
    best
}

/// The lane whose codes explain most of the values, its least-squares scale, and how much of
/// `Σ w·x²` they explain.
#[inline(always)]
fn best_of<S: Simd>(
    simd: S,
    values: &[f32],
    weights: &[f32],
    scales: &[f32; LANES],
    quantize: &impl Fn(S::F) -> S::F,
) -> Option<(usize, f32, f32)> {
    let inverse = simd.splat(1.0) / simd.load(scales);
    let (mut qx, mut qq) = (simd.splat(0.0), simd.splat(0.0));
    for (&x, &w) in values.iter().zip(weights) {
        let q = quantize(simd.splat(x) * inverse);
        let wq = simd.splat(w) * q;
        qx = qx + wq * simd.splat(x);
        qq = qq + wq * q;
    }
    let (qx, qq) = (qx.to_array(), qq.to_array());
    let mut best = None;
    for lane in 0..LANES {
        let score = qx[lane] * qx[lane] / qq[lane];
        // Not so for NaN: no code but zero.
        if score > best.map_or(0.0, |(_, _, least)| least) {
            best = Some((lane, qx[lane] / qq[lane], score));
        }
    }
    best
}
