//! One scale for 32 values that are coded by the table of IQ4_NL, sixteen blocks in lanes.

use super::multiples::Fit;
use super::{EPSILON, signed_extreme};
use crate::codebooks::IQ4_VALUES;
use crate::simd::{Float, LANES, Mask, Simd, scatter_levels};

/// Values in a block.
const N: usize = 32;

/// The table cut into cells of eight units, each of which meets at most one midpoint between
/// neighbouring table values, and that not near its ends.
struct Cells {
    /// The midpoint.
    midpoints: [f32; CELLS],
    /// What is nearest below the midpoint, and from it on.
    below: [f32; CELLS],
    above: [f32; CELLS],
}

const CELLS: usize = 32;
/// Where the first cell begins.
const ORIGIN: f32 = -126.5;
const VALUES: Cells = Cells::new(false);
const CODES: Cells = Cells::new(true);

impl Cells {
    /// Of table values or of codes.
    const fn new(codes: bool) -> Self {
        let mut cells = Self {
            midpoints: [0.0; CELLS],
            below: [0.0; CELLS],
            above: [0.0; CELLS],
        };
        let mut cell = 0;
        while cell < CELLS {
            let start = ORIGIN + 8.0 * cell as f32;
            let mut code = 0;
            // The code nearest to the start of the cell.
            while code < 15 && midpoint(code) < start {
                code += 1;
            }
            let next = if code < 15 && midpoint(code) < start + 8.0 {
                code + 1
            } else {
                code
            };
            cells.midpoints[cell] = if code < 15 { midpoint(code) } else { start };
            cells.below[cell] = if codes {
                code as f32
            } else {
                IQ4_VALUES[code] as f32
            };
            cells.above[cell] = if codes {
                next as f32
            } else {
                IQ4_VALUES[next] as f32
            };
            if next == code {
                cells.above[cell] = cells.below[cell];
            }
            cell += 1;
        }
        cells
    }

    /// What is nearest to `v`.
    ///
    /// ggml compares the rounded distances to both neighbours and goes up at a tie. Around their
    /// midpoint both distances are exact, so that comparing with the midpoint decides the same.
    #[inline(always)]
    fn nearest<S: Simd>(&self, simd: S, v: S::F) -> S::F {
        let (origin, end) = (
            simd.splat(ORIGIN),
            simd.splat(ORIGIN + 8.0 * (CELLS - 1) as f32),
        );
        let place = (v.max(origin).min(end) - origin) * simd.splat(0.125);
        let is_below = v.lt(simd.lookup(&self.midpoints, place));
        let below = simd.lookup(&self.below, place);
        below.select(is_below, simd.lookup(&self.above, place))
    }
}

/// Midway between a code's value and the next one's.
const fn midpoint(code: usize) -> f32 {
    0.5 * (IQ4_VALUES[code] as f32 + IQ4_VALUES[code + 1] as f32)
}

/// The table value nearest to `v`.
#[inline(always)]
pub(crate) fn nearest_value<S: Simd>(simd: S, v: S::F) -> S::F {
    VALUES.nearest(simd, v)
}

/// The codes of the values nearest to `x·inverse`.
#[inline(always)]
pub(crate) fn codes<S: Simd>(simd: S, x: &[S::F; N], inverse: S::F) -> [[u8; N]; LANES] {
    let mut codes = [simd.splat(0.0); N];
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = CODES.nearest(simd, inverse * x);
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

/// Where [`best_scale`] maps the extreme value to, negative and positive: from, how many, in steps of
/// four. Beyond the ends of the table it is clipped.
const TARGETS: [(i32, usize); 2] = [(-165, 21), (75, 19)];
/// Scales that it tries.
pub(crate) const TRIES: usize = TARGETS[0].1 + TARGETS[1].1;

/// The scale that leaves the least error of those tried, and how the codes of all of them fit.
#[inline(always)]
pub(crate) fn best_scale<S: Simd>(
    simd: S,
    x: &[S::F; N],
    w: &[S::F; N],
    fits: &mut [Fit<S::F>; TRIES],
) -> S::F {
    let zero = simd.splat(0.0);
    let (extreme, magnitude) = signed_extreme(simd, x);
    let is_zero = magnitude.lt(simd.splat(EPSILON));
    let (mut scale, mut most) = (zero, zero);
    let targets = TARGETS
        .into_iter()
        .flat_map(|(from, count)| (from..).step_by(4).take(count));
    for (fit, target) in fits.iter_mut().zip(targets) {
        let inverse = simd.splat(target as f32) / extreme;
        let (sum_xq, sum_qq) = sums(simd, x, w, inverse);
        *fit = Fit::new(sum_xq, sum_qq);
        let better = sum_qq.gt(zero) & fit.explained().gt(most);
        scale = fit.scale.select(better, scale);
        most = fit.explained().select(better, most);
    }
    zero.select(is_zero, scale)
}

/// `Σwxq` and `Σwqq` for the codes under a scale, which may be zero.
#[inline(always)]
pub(crate) fn fit<S: Simd>(simd: S, x: &[S::F; N], w: &[S::F; N], scale: S::F) -> (S::F, S::F) {
    let zero = simd.splat(0.0);
    let inverse = zero.select(scale.eq(zero), simd.splat(1.0) / scale);
    sums(simd, x, w, inverse)
}
