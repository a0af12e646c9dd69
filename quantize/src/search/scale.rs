//! Search of a single scale for a block whose codes follow from it by rounding.

use super::sum_lanes;
use crate::simd::{Float, LANES, Mask, Simd};

/// How the codes of a type follow from a scale.
pub(crate) trait Rounding {
    /// Whether negative scales give codes that positive ones do not.
    const SIGNED: bool;

    /// Adds `w·x·q` and `w·q²` to the sums, `q` being the code values nearest to `x / scale`. Must
    /// be `#[inline(always)]`.
    fn add<S: Simd>(simd: S, x: S::F, w: S::F, scale: S::F, inverse: S::F, sums: &mut [S::F; 2]);
}

/// Finds a scale `d` for which `Σ w·(x - d·q(x / d))²` is small: the least among 16 scales in geometric
/// order from `from` to `to` (8 of either sign if that matters), and then fitted by least squares to the
/// codes found for it, as often as that finds others. `None` if nothing correlates (all weights or all
/// values zero). There must be a multiple of sixteen values.
#[inline(always)]
pub(crate) fn best_scale<S: Simd, R: Rounding>(
    simd: S,
    values: &[f32],
    weights: &[f32],
    from: f32,
    to: f32,
) -> Option<f32> {
    /// Most fits.
    const FITS: usize = 4;
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
    let mut best = best_of::<S, R>(simd, values, weights, &scales)?;
    for _ in 0..FITS {
        let next = fit::<S, R>(simd, values, weights, best.scale);
        if next.explained > best.explained {
            best = next;
        } else {
            break;
        }
    }
    Some(best.scale)
}

/// A scale that fits some codes by least squares.
struct Fitted {
    scale: f32,
    /// How much of `Σ w·x²` it explains with them.
    explained: f32,
}

/// The best of sixteen scales, one a lane; each lane adds in a fixed order, so that the result is the
/// same on every instruction set.
#[inline(always)]
fn best_of<S: Simd, R: Rounding>(
    simd: S,
    values: &[f32],
    weights: &[f32],
    scales: &[f32; LANES],
) -> Option<Fitted> {
    /// Partial sums, which the CPU can add to at the same time.
    const PARTS: usize = 4;
    let scale = simd.load(scales);
    let inverse = simd.splat(1.0) / scale;
    let zero = simd.splat(0.0);
    let mut parts = [[zero; 2]; PARTS];
    for (x, w) in values.chunks(PARTS).zip(weights.chunks(PARTS)) {
        for ((sums, &x), &w) in parts.iter_mut().zip(x).zip(w) {
            R::add(simd, simd.splat(x), simd.splat(w), scale, inverse, sums);
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
    (most > 0.0).then(|| Fitted {
        scale: fitted.to_array()[lane],
        explained: most,
    })
}

/// What fits the codes of a scale.
#[inline(always)]
fn fit<S: Simd, R: Rounding>(simd: S, values: &[f32], weights: &[f32], scale: f32) -> Fitted {
    let (lanes, inverse) = (simd.splat(scale), simd.splat(1.0 / scale));
    let mut sums = [simd.splat(0.0); 2];
    let (values, weights) = (values.as_chunks().0, weights.as_chunks().0);
    for (x, w) in values.iter().zip(weights) {
        R::add(simd, simd.load(x), simd.load(w), lanes, inverse, &mut sums);
    }
    let (xq, qq) = (
        sum_lanes(&sums[0].to_array()),
        sum_lanes(&sums[1].to_array()),
    );
    Fitted {
        scale: xq / qq,
        explained: xq * (xq / qq),
    }
}
