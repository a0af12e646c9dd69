//! Searches of effort `best` for types with a scale and a minimum.

use super::multiples::{largest, sum};
use crate::simd::{Float, Simd};

/// Values with their weights, a group a lane, and the highest level.
#[derive(Clone, Copy)]
pub(crate) struct AffineGroup<'a, F, const N: usize> {
    pub(crate) top: i32,
    pub(crate) x: &'a [F; N],
    pub(crate) w: &'a [F; N],
}

/// Weighted sums over the levels `l` that a scale and a minimum give.
#[derive(Clone, Copy)]
struct Sums<F> {
    l: F,
    ll: F,
    xl: F,
}

impl<F: Float, const N: usize> AffineGroup<'_, F, N> {
    #[inline(always)]
    fn level<S: Simd<F = F>>(&self, simd: S, x: F, inverse: F, min: F) -> F {
        let (lo, hi) = (simd.splat(0.0), simd.splat(self.top as f32));
        ((x - min) * inverse).round_ties_even().max(lo).min(hi)
    }

    #[inline(always)]
    fn sums<S: Simd<F = F>>(&self, simd: S, inverse: F, min: F) -> Sums<F> {
        let zero = simd.splat(0.0);
        let mut sums = Sums {
            l: zero,
            ll: zero,
            xl: zero,
        };
        for (&x, &w) in self.x.iter().zip(self.w) {
            let l = self.level(simd, x, inverse, min);
            let wl = w * l;
            sums.l = sums.l + wl;
            sums.ll = sums.ll + wl * l;
            sums.xl = sums.xl + wl * x;
        }
        sums
    }

    /// `Σ w·(x - (scale·l + min))²`, every `l` being the nearest.
    #[inline(always)]
    pub(crate) fn error<S: Simd<F = F>>(&self, simd: S, scale: F, min: F) -> F {
        let inverse = simd.splat(1.0) / scale;
        let mut sum = simd.splat(0.0);
        for (&x, &w) in self.x.iter().zip(self.w) {
            let l = self.level(simd, x, inverse, min);
            let difference = x - (scale * l + min);
            sum = sum + w * (difference * difference);
        }
        sum
    }

    /// The levels of a scale and a minimum.
    #[inline(always)]
    pub(crate) fn levels<S: Simd<F = F>>(&self, simd: S, scale: F, min: F) -> [F; N] {
        let inverse = simd.splat(1.0) / scale;
        let mut levels = *self.x;
        for level in &mut levels {
            *level = ((*level - min) * inverse).nearest(0, self.top);
        }
        levels
    }

    /// A scale and a minimum of little error: least-squares fits to the levels that shares of the
    /// values' range give, then refitted. The minimum is at most `ceiling`.
    #[inline(always)]
    pub(crate) fn real<S: Simd<F = F>>(&self, simd: S, ceiling: f32) -> (F, F) {
        let range = Range::new(simd, self, ceiling);
        const TRIES: usize = 8;
        const REFITS: usize = 2;
        let (mut best, mut scale, mut min) = (simd.splat(0.0), simd.splat(0.0), range.low);
        for i in 0..TRIES * TRIES + REFITS {
            let (inverse, start) = if i < TRIES * TRIES {
                range.start(simd, self.top, i, TRIES)
            } else {
                (simd.splat(1.0) / scale, min)
            };
            let (this_scale, this_min, explained) = range.fit(&self.sums(simd, inverse, start));
            let better = explained.gt(best) & this_scale.gt(simd.splat(0.0));
            best = explained.select(better, best);
            scale = this_scale.select(better, scale);
            min = this_min.select(better, min);
        }
        (scale, min)
    }
}

/// The range of a group's values, from which searches start, and the sums that fits need.
struct Range<F> {
    low: F,
    width: F,
    ceiling: F,
    sum_w: F,
    sum_x: F,
}

impl<F: Float> Range<F> {
    #[inline(always)]
    fn new<S: Simd<F = F>, const N: usize>(
        simd: S,
        group: &AffineGroup<'_, F, N>,
        ceiling: f32,
    ) -> Self {
        let ceiling = simd.splat(ceiling);
        let (mut low, mut high) = (group.x[0].min(ceiling), group.x[0]);
        let (mut sum_w, mut sum_x) = (simd.splat(0.0), simd.splat(0.0));
        for (&x, &w) in group.x.iter().zip(group.w) {
            low = x.min(low);
            high = x.max(high);
            sum_w = sum_w + w;
            sum_x = sum_x + w * x;
        }
        Self {
            low,
            width: high - low,
            ceiling,
            sum_w,
            sum_x,
        }
    }

    /// Inverse scale and minimum of start `i` of `tries²`: both ends of the range moved inwards (and a
    /// little outwards), so that outliers are clipped.
    #[inline(always)]
    fn start<S: Simd<F = F>>(&self, simd: S, top: i32, i: usize, tries: usize) -> (F, F) {
        let steps = |n: f32| n / top as f32;
        let (from, to) = (-0.03 - steps(0.3), 0.1 + steps(0.75));
        let share = |i: usize| from + (to - from) * i as f32 / (tries - 1) as f32;
        let below = share(i / tries);
        let width = 1.0 - below - share(i % tries);
        let start = self.low + self.width * simd.splat(below);
        (simd.splat(top as f32 / width) / self.width, start)
    }

    /// The least-squares scale and minimum for levels with these sums, and what they explain of `Σwx²`.
    #[inline(always)]
    fn fit(&self, sums: &Sums<F>) -> (F, F, F) {
        let (sum_w, sum_x) = (self.sum_w, self.sum_x);
        let determinant = sum_w * sums.ll - sums.l * sums.l;
        let scale = (sum_w * sums.xl - sum_x * sums.l) / determinant;
        let min = (sums.ll * sum_x - sums.l * sums.xl) / determinant;
        let above = min.gt(self.ceiling);
        let min = self.ceiling.select(above, min);
        let scale = ((sums.xl - min * sums.l) / sums.ll).select(above, scale);
        let explained = scale * (sums.xl - min * sums.l) + min * (sum_x + sum_x - min * sum_w);
        (scale, min, explained)
    }
}

/// Searches an f16 scale and an f16 minimum of any sign; gives them, and the levels in `levels`.
#[inline(always)]
pub(crate) fn best_affine<S: Simd, const N: usize>(
    simd: S,
    top: i32,
    x: &[S::F; N],
    w: &[S::F; N],
    levels: &mut [S::F; N],
) -> (S::F, S::F) {
    let group = AffineGroup { top, x, w };
    let range = Range::new(simd, &group, f32::INFINITY);
    let (scale, min) = group.real(simd, f32::INFINITY);
    let (mut scale, mut min) = (scale.round_to_f16(), min.round_to_f16());
    let mut least = group.error(simd, scale, min);
    for _ in 0..2 {
        let inverse = simd.splat(1.0) / scale;
        let (this_scale, this_min, _) = range.fit(&group.sums(simd, inverse, min));
        let (this_scale, this_min) = (this_scale.round_to_f16(), this_min.round_to_f16());
        let error = group.error(simd, this_scale, this_min);
        let better = error.lt(least);
        least = error.select(better, least);
        scale = this_scale.select(better, scale);
        min = this_min.select(better, min);
    }
    *levels = group.levels(simd, scale, min);
    (scale, min)
}

/// Super-blocks of `SUBS` sub-blocks, one a lane, whose scales and minima are integers times two
/// f16: `x ≈ d·scale·l - dmin·minimum`.
pub(crate) struct AffineSuperBlocks<'a, F, const N: usize, const SUBS: usize> {
    pub(crate) group: AffineGroup<'a, F, N>,
    /// The highest integer scale and minimum.
    pub(crate) scale_top: i32,
}

/// What the search has found for the super-blocks; equal in all lanes of a super-block but for the
/// integers.
#[derive(Clone, Copy)]
pub(crate) struct AffineFit<F> {
    pub(crate) d: F,
    pub(crate) dmin: F,
    pub(crate) scales: F,
    pub(crate) minima: F,
    error: F,
}

impl<F: Float> AffineFit<F> {
    /// With the error of whole super-blocks instead of the lanes'.
    #[inline(always)]
    fn together<S: Simd<F = F>, const SUBS: usize>(self, simd: S) -> Self {
        let error = sum::<S, SUBS>(simd, self.error);
        Self { error, ..self }
    }

    /// The lanes of `other` where its error is less.
    #[inline(always)]
    fn keep_better(&mut self, other: Self) {
        let better = other.error.lt(self.error);
        self.d = other.d.select(better, self.d);
        self.dmin = other.dmin.select(better, self.dmin);
        self.scales = other.scales.select(better, self.scales);
        self.minima = other.minima.select(better, self.minima);
        self.error = other.error.select(better, self.error);
    }
}

/// Levels that some scale and minimum gave, by their weighted sums, and the real scale that fits them.
#[derive(Clone, Copy)]
struct Candidate<F> {
    sums: Sums<F>,
    scale: F,
}

impl<F: Float, const N: usize, const SUBS: usize> AffineSuperBlocks<'_, F, N, SUBS> {
    /// Searches the two f16 and the integers.
    ///
    /// For given levels the error is a quadratic form of scale and minimum, known from a few sums. So the
    /// levels are found once for many starts, and scales and minima are compared by the sums alone.
    #[inline(always)]
    pub(crate) fn search<S: Simd<F = F>>(&self, simd: S) -> AffineFit<F> {
        /// Most shares of the range that starts move either end by.
        const TRIES: usize = 9;
        /// To find the two f16, one candidate of so many is looked at.
        const COARSE: usize = 4;
        // Four levels come out the same for many starts, and need no second look.
        let (tries, part, rounds) = match self.group.top {
            ..4 => (7, TRIES * TRIES, 1),
            _ => (TRIES, TRIES, 2),
        };
        let zero = simd.splat(0.0);
        let range = Range::new(simd, &self.group, 0.0);
        let mut candidates = [Candidate {
            sums: Sums {
                l: zero,
                ll: zero,
                xl: zero,
            },
            scale: zero,
        }; TRIES * TRIES];
        let candidates = &mut candidates[..tries * tries];
        let (mut most, mut scale, mut min) = (zero, zero, zero);
        for (i, candidate) in candidates.iter_mut().enumerate() {
            let (inverse, start) = range.start(simd, self.group.top, i, tries);
            candidate.sums = self.group.sums(simd, inverse, start);
            let (this_scale, this_min, explained) = range.fit(&candidate.sums);
            candidate.scale = this_scale;
            let better = explained.gt(most) & this_scale.gt(zero);
            most = explained.select(better, most);
            scale = this_scale.select(better, scale);
            min = (zero - this_min).select(better, min);
        }
        let top = self.scale_top as f32;
        let largest_scale = largest::<S, SUBS>(simd, scale);
        let largest_min = largest::<S, SUBS>(simd, min);
        let mut best = AffineFit {
            d: zero,
            dmin: zero,
            scales: zero,
            minima: zero,
            error: simd.splat(f32::INFINITY),
        };
        for i in 0..6 {
            // The largest integer is the highest, or a little less.
            let highest = simd.splat(top - 0.5 * i as f32);
            let (d, dmin) = (largest_scale / highest, largest_min / highest);
            let (d, dmin) = (d.round_to_f16(), dmin.round_to_f16());
            let some = candidates.iter().step_by(COARSE);
            let fit = self.choose(simd, &range, some, d, dmin);
            best.keep_better(fit.together::<S, SUBS>(simd));
        }
        for _ in 0..2 {
            let (d, dmin) = self.refit(simd, &range, &best);
            let mut parts = candidates.chunks(part);
            let mut fit = self.choose(simd, &range, parts.next().unwrap_or(&[]), d, dmin);
            for part in parts {
                fit.keep_better(self.choose(simd, &range, part, d, dmin));
            }
            best.keep_better(fit.together::<S, SUBS>(simd));
        }
        for _ in 0..rounds {
            let (d, dmin) = self.refit(simd, &range, &best);
            best.keep_better(self.near(simd, d, dmin, &best));
        }
        best
    }

    /// The integers of least error for the levels of some candidates, and the error that they leave in each
    /// lane with the nearest levels.
    #[inline(always)]
    fn choose<'c, S: Simd<F = F>>(
        &self,
        simd: S,
        range: &Range<F>,
        candidates: impl IntoIterator<Item = &'c Candidate<F>>,
        d: F,
        dmin: F,
    ) -> AffineFit<F>
    where
        F: 'c,
    {
        let zero = simd.splat(0.0);
        let top = simd.splat(self.scale_top as f32);
        let Range { sum_w, sum_x, .. } = *range;
        let to_scale = simd.splat(1.0) / d;
        let to_min = simd.splat(-1.0) / (dmin * sum_w);
        let mut most = simd.splat(f32::NEG_INFINITY);
        let (mut scales, mut minima) = (zero, zero);
        for Candidate { sums, scale } in candidates {
            let s = (*scale * to_scale).max(zero).min(top).round_ties_even();
            let scale = d * s;
            // What the scale leaves, the minimum makes up for.
            let rest = sum_x - scale * sums.l;
            let m = (rest * to_min).max(zero).min(top).round_ties_even();
            let min = dmin * m;
            let explained =
                scale * (sums.xl + sums.xl - scale * sums.ll) - min * (rest + rest + min * sum_w);
            let better = explained.gt(most);
            most = explained.select(better, most);
            scales = s.select(better, scales);
            minima = m.select(better, minima);
        }
        let error = self.group.error(simd, d * scales, zero - dmin * minima);
        AffineFit {
            d,
            dmin,
            scales,
            minima,
            error,
        }
    }

    /// The integers of least error near those of a fit.
    #[inline(always)]
    fn near<S: Simd<F = F>>(&self, simd: S, d: F, dmin: F, fit: &AffineFit<F>) -> AffineFit<F> {
        let zero = simd.splat(0.0);
        let top = simd.splat(self.scale_top as f32);
        let mut least = simd.splat(f32::INFINITY);
        let (mut scales, mut minima) = (zero, zero);
        for i in 0..9 {
            let s = fit.scales + simd.splat((i / 3 - 1) as f32);
            let m = fit.minima + simd.splat((i % 3 - 1) as f32);
            let (s, m) = (s.max(zero).min(top), m.max(zero).min(top));
            let error = self.group.error(simd, d * s, zero - dmin * m);
            let better = error.lt(least);
            least = error.select(better, least);
            scales = s.select(better, scales);
            minima = m.select(better, minima);
        }
        let fit = AffineFit {
            d,
            dmin,
            scales,
            minima,
            error: least,
        };
        fit.together::<S, SUBS>(simd)
    }

    /// The least-squares `d` and `dmin` for the integers and levels of a fit.
    #[inline(always)]
    fn refit<S: Simd<F = F>>(&self, simd: S, range: &Range<F>, fit: &AffineFit<F>) -> (F, F) {
        let zero = simd.splat(0.0);
        let (s, m) = (fit.scales, fit.minima);
        let inverse = simd.splat(1.0) / (fit.d * s);
        let sums = self.group.sums(simd, inverse, zero - fit.dmin * m);
        let ss = sum::<S, SUBS>(simd, s * s * sums.ll);
        let sm = sum::<S, SUBS>(simd, s * m * sums.l);
        let mm = sum::<S, SUBS>(simd, m * m * range.sum_w);
        let sx = sum::<S, SUBS>(simd, s * sums.xl);
        let mx = sum::<S, SUBS>(simd, m * range.sum_x);
        let determinant = ss * mm - sm * sm;
        let solvable = determinant.gt(simd.splat(1e-6) * ss * mm);
        let d = ((sx * mm - sm * mx) / determinant).select(solvable, sx / ss);
        let dmin = ((sx * sm - ss * mx) / determinant).select(solvable, fit.dmin);
        (d.round_to_f16(), dmin.round_to_f16())
    }
}
