//! Search of a single scale for a block whose codes follow from it by rounding.

use crate::simd::{Float, LANES, Simd};

/// How the codes of a type follow from a scale.
pub(crate) trait Rounding {
    /// Whether negative scales give codes that positive ones do not.
    const SIGNED: bool;

    /// Adds `w·x·q` and `w·q²` to the sums, `q` being the code values nearest to `x / scale`. Must
    /// be `#[inline(always)]`.
    fn add<S: Simd>(simd: S, x: f32, w: f32, scale: S::F, inverse: S::F, sums: &mut [S::F; 2]);
}

/// Finds the scale `d` for which `Σ w·(x - d·q(x / d))²` is least among 16 scales in geometric order
/// from `from` to `to` (8 of either sign if that matters) and then among 16 between the neighbours
/// of the best of them. Gives the least-squares scale for the codes found, or `None` if nothing
/// correlates (all weights or all values zero).
///
/// Sixteen scales run side by side; each lane adds in the order of the values, so that the result
/// is the same on every instruction set.
#[inline(always)]
pub(crate) fn best_scale<S: Simd, R: Rounding>(
    simd: S,
    values: &[f32],
    weights: &[f32],
    from: f32,
    to: f32,
) -> Option<f32> {
    // Roots by square roots, which are rounded correctly everywhere.
    let eighth = (to / from).sqrt().sqrt().sqrt();
    let ratio = if R::SIGNED { eighth } else { eighth.sqrt() };
    let mut scales = [from; LANES];
    for lane in 1..LANES {
        scales[lane] = match (R::SIGNED, lane % 2) {
            (true, 1) => -scales[lane - 1],
            (true, _) => scales[lane - 2] * ratio,
            (false, _) => scales[lane - 1] * ratio,
        };
    }
    let coarse = best_of::<S, R>(simd, values, weights, &scales)?;
    let step = (ratio * ratio).sqrt().sqrt().sqrt().sqrt();
    let mut scale = coarse.tried / ratio;
    for fine in &mut scales {
        scale *= step;
        *fine = scale;
    }
    match best_of::<S, R>(simd, values, weights, &scales) {
        Some(fine) if fine.explained > coarse.explained => Some(fine.fitted),
        _ => Some(coarse.fitted),
    }
}

/// The best of sixteen scales.
struct Found {
    tried: f32,
    /// The least-squares scale for its codes.
    fitted: f32,
    /// How much of `Σ w·x²` those explain.
    explained: f32,
}

#[inline(always)]
fn best_of<S: Simd, R: Rounding>(
    simd: S,
    values: &[f32],
    weights: &[f32],
    scales: &[f32; LANES],
) -> Option<Found> {
    let scale = simd.load(scales);
    let inverse = simd.splat(1.0) / scale;
    let mut sums = [simd.splat(0.0); 2];
    for (&x, &w) in values.iter().zip(weights) {
        R::add(simd, x, w, scale, inverse, &mut sums);
    }
    let (sum_xq, sum_qq) = (sums[0].to_array(), sums[1].to_array());
    let mut best: Option<Found> = None;
    for lane in 0..LANES {
        let fitted = sum_xq[lane] / sum_qq[lane];
        let explained = fitted * sum_xq[lane];
        let most = best.as_ref().map_or(0.0, |best| best.explained);
        // Neither holds for NaN: no code but zero.
        if fitted * scales[lane] > 0.0 && explained > most {
            best = Some(Found {
                tried: scales[lane],
                fitted,
                explained,
            });
        }
    }
    best
}
