//! Search of a single scale for a block whose codes follow from it by rounding.

use crate::simd::{Float, LANES, Mask, Simd};

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
/// Sixteen scales run side by side; each lane adds in a fixed order, so that the result
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

/// Partial sums.
const PARTS: usize = 4;

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
    // Several sums, which the CPU can add to at the same time.
    let zero = simd.splat(0.0);
    let mut parts = [[zero; 2]; PARTS];
    let chunks = values.chunks(PARTS).zip(weights.chunks(PARTS));
    for (x, w) in chunks {
        for ((sums, &x), &w) in parts.iter_mut().zip(x).zip(w) {
            R::add(simd, x, w, scale, inverse, sums);
        }
    }
    let (mut sum_xq, mut sum_qq) = (zero, zero);
    for [xq, qq] in parts {
        sum_xq = sum_xq + xq;
        sum_qq = sum_qq + qq;
    }
    let fitted = sum_xq / sum_qq;
    // Nothing is explained where no code but zero is chosen, or the sign would turn.
    let sound = (fitted * scale).gt(zero);
    let explained = (fitted * sum_xq).select(sound, zero);
    let most = explained.greatest();
    let lane = explained.eq(simd.splat(most)).bits().trailing_zeros() as usize;
    let (explained, fitted) = (explained.to_array(), fitted.to_array());
    (most > 0.0).then(|| Found {
        tried: scales[lane],
        fitted: fitted[lane],
        explained: explained[lane],
    })
}
