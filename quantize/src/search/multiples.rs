//! Scales of sub-blocks, one a lane, that are multiples of their block's f16 scale.
//!
//! For given codes `q` a scale `s` explains `s·(2·Σwxq - s·Σwqq)` of a sub-block's `Σwx²`: a parabola, so
//! that of the multiples there are the nearest to its top is the best. Once a few choices of codes are
//! known by these two sums, block scales can be compared for little.

use crate::simd::{Float, Simd};

/// How well codes fit the values of sub-blocks.
#[derive(Clone, Copy)]
pub(crate) struct Fit<F> {
    /// `Σwxq`.
    xq: F,
    /// `Σwqq`.
    qq: F,
    /// The scale that is best for them.
    pub(crate) scale: F,
}

impl<F: Float> Fit<F> {
    /// From `Σwxq` and `Σwqq`.
    #[inline(always)]
    pub(crate) fn new(xq: F, qq: F) -> Self {
        Self {
            xq,
            qq,
            scale: xq / qq,
        }
    }

    /// Takes over some lanes of `other`.
    #[inline(always)]
    fn keep(&mut self, lanes: F::Mask, other: &Self) {
        self.xq = other.xq.select(lanes, self.xq);
        self.qq = other.qq.select(lanes, self.qq);
        self.scale = other.scale.select(lanes, self.scale);
    }

    /// How much of `Σwx²` the codes explain with their best scale, if that is not zero.
    #[inline(always)]
    pub(crate) fn explained(&self) -> F {
        self.scale * self.xq
    }

    /// The scale that is best, or another one where that is not positive.
    #[inline(always)]
    pub(crate) fn positive_scale<S: Simd<F = F>>(&self, simd: S, or: F) -> F {
        self.scale.select(self.scale.gt(simd.splat(0.0)), or)
    }
}

/// Which multiples a format has.
pub(crate) trait Multiples {
    /// The nearest to `ratio`; any for NaN. Must be `#[inline(always)]`.
    fn nearest<S: Simd>(&self, simd: S, ratio: S::F) -> S::F;
}

/// The whole numbers from the first to the second.
pub(crate) struct Within(pub(crate) i32, pub(crate) i32);

impl Multiples for Within {
    #[inline(always)]
    fn nearest<S: Simd>(&self, simd: S, ratio: S::F) -> S::F {
        let (lo, hi) = (simd.splat(self.0 as f32), simd.splat(self.1 as f32));
        ratio.max(lo).min(hi).round_ties_even()
    }
}

/// A block scale for every lane, the same for all of a block, and what goes with
/// it.
#[derive(Clone, Copy)]
pub(crate) struct Choice<F> {
    pub(crate) d: F,
    pub(crate) multiples: F,
    /// Which of the codes.
    pub(crate) which: F,
    /// How they fit.
    fit: Fit<F>,
    /// How much of the block's `Σwx²` this explains.
    gain: F,
}

impl<F: Float> Choice<F> {
    /// The best block scale for blocks of `SUBS` sub-blocks with these choices of codes: of `factors` times
    /// `start`, and of what fits the best of these. Scales are values that f16 can hold.
    #[inline(always)]
    pub(crate) fn best<S: Simd<F = F>, M: Multiples, const SUBS: usize>(
        simd: S,
        multiples: &M,
        codes: &[Fit<F>],
        start: F,
        factors: &[f32],
    ) -> Self {
        let zero = simd.splat(0.0);
        let mut best = Self {
            d: zero,
            multiples: zero,
            which: zero,
            fit: Fit::new(zero, zero),
            gain: zero,
        };
        for &factor in factors {
            let d = (start * simd.splat(factor)).round_to_f16();
            best.keep_better(Self::of::<S, M, SUBS>(simd, multiples, codes, d));
        }
        for _ in 0..2 {
            let d = best.refitted::<S, SUBS>(simd);
            best.keep_better(Self::of::<S, M, SUBS>(simd, multiples, codes, d));
        }
        best
    }

    /// The best multiples and codes for a block scale.
    #[inline(always)]
    fn of<S: Simd<F = F>, M: Multiples, const SUBS: usize>(
        simd: S,
        multiples: &M,
        codes: &[Fit<F>],
        d: F,
    ) -> Self {
        let zero = simd.splat(0.0);
        let inverse = simd.splat(1.0) / d;
        let mut best = Self {
            d,
            multiples: zero,
            which: zero,
            fit: Fit::new(zero, zero),
            gain: simd.splat(f32::NEG_INFINITY),
        };
        for (which, fit) in codes.iter().enumerate() {
            let multiple = multiples.nearest(simd, fit.scale * inverse);
            let scale = d * multiple;
            let gain = scale * (fit.xq + fit.xq - scale * fit.qq);
            let better = gain.gt(best.gain);
            best.gain = gain.select(better, best.gain);
            best.multiples = multiple.select(better, best.multiples);
            best.which = simd.splat(which as f32).select(better, best.which);
            best.fit.keep(better, fit);
        }
        best.gain = sum::<S, SUBS>(simd, best.gain);
        best
    }

    /// The block scale that fits multiples and codes.
    #[inline(always)]
    fn refitted<S: Simd<F = F>, const SUBS: usize>(&self, simd: S) -> F {
        let xq = sum::<S, SUBS>(simd, self.multiples * self.fit.xq);
        let qq = sum::<S, SUBS>(simd, self.multiples * self.multiples * self.fit.qq);
        (xq / qq).round_to_f16()
    }

    /// The lanes of `other` where it explains more.
    #[inline(always)]
    fn keep_better(&mut self, other: Self) {
        let better = other.gain.gt(self.gain);
        self.d = other.d.select(better, self.d);
        self.multiples = other.multiples.select(better, self.multiples);
        self.which = other.which.select(better, self.which);
        self.fit.keep(better, &other.fit);
        self.gain = other.gain.select(better, self.gain);
    }
}

/// Sums over the lanes of each block, in all of its lanes.
#[inline(always)]
pub(crate) fn sum<S: Simd, const SUBS: usize>(simd: S, values: S::F) -> S::F {
    fold::<S, SUBS>(simd, values, |sum, value| sum + value)
}

/// Largest of the lanes of each block, in all of its lanes; zero if none is positive.
#[inline(always)]
pub(crate) fn largest<S: Simd, const SUBS: usize>(simd: S, values: S::F) -> S::F {
    fold::<S, SUBS>(simd, values, f32::max)
}

/// Of the lanes of each block the largest by magnitude, in all of its lanes.
#[inline(always)]
pub(crate) fn extreme<S: Simd, const SUBS: usize>(simd: S, values: S::F) -> S::F {
    fold::<S, SUBS>(simd, values, |extreme, value| {
        if value.abs() > extreme.abs() {
            value
        } else {
            extreme
        }
    })
}

/// What `combine` makes of zero and the lanes of each block, in all of its lanes.
#[inline(always)]
fn fold<S: Simd, const SUBS: usize>(
    simd: S,
    values: S::F,
    combine: impl Fn(f32, f32) -> f32,
) -> S::F {
    let mut lanes = values.to_array();
    for block in lanes.chunks_exact_mut(SUBS) {
        let all = block.iter().fold(0.0, |all, &value| combine(all, value));
        block.fill(all);
    }
    simd.load(&lanes)
}
