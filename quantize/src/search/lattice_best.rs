//! A search of codebook points and scales that leaves less error than ggml's, sixteen sub-blocks in
//! lanes.
//!
//! Unlike the reference it works with the values that the decoder gives, chooses points under the
//! scales that are stored, lets the sign that cannot be written be that of the value where it costs
//! least, and fits the block's scale to all that was chosen.

use super::lattice::SubBlocks;
use super::neighbours::{Choose, digit_table, nearest, snap};
use super::points::{Code, Points};
use crate::half::{f16_to_f32, f32_to_f16};
use crate::simd::{Float, LANES, Simd, gather};

/// No value keeps the wrong sign.
const NONE: u8 = 8;

/// Most groups of eight signs that a sub-block has.
pub(crate) const H: usize = 4;

/// A choice for sixteen sub-blocks of `G` codebook entries.
#[derive(Clone, Copy)]
pub(crate) struct Choice<const G: usize> {
    /// Codes of the entries.
    pub(crate) codes: [[Code; LANES]; G],
    /// In each group of eight, the value whose sign is written wrong; [`NONE`] or more if none.
    pub(crate) wrong: [[u8; LANES]; H],
    /// Scale levels.
    pub(crate) levels: [u8; LANES],
}

/// The values of the digits as decoded, and the scale's unit: sub-blocks of level `s` decode to
/// `d·(2s + 1)·unit·value`.
pub(crate) struct Decoded {
    values: [f32; 8],
    digits: usize,
    unit: f32,
}

impl Decoded {
    /// From the levels of a codebook.
    pub(crate) const fn new<const K: usize>(levels: [i8; K], unit: f32) -> Self {
        let mut values = [levels[K - 1] as f32; 8];
        let mut digit = 0;
        while digit < K {
            values[digit] = levels[digit] as f32;
            digit += 1;
        }
        Self {
            values,
            digits: K,
            unit,
        }
    }

    /// For [`Simd::pick`].
    fn table(&self) -> [f32; LANES] {
        let [a, b, c, ..] = self.values;
        if self.digits == 3 {
            digit_table([a, b, c])
        } else {
            digit_table(self.values)
        }
    }
}

/// Sub-blocks to improve.
pub(crate) struct Improve<'a, S: Simd, const N: usize> {
    pub(crate) simd: S,
    pub(crate) points: &'a Points,
    pub(crate) decoded: &'a Decoded,
    /// Magnitudes and weights.
    pub(crate) blocks: &'a SubBlocks<N>,
    /// Lanes in which a group has a sign that cannot be written.
    pub(crate) odd: [u16; H],
    /// Sub-blocks of a block: 8 or 16.
    pub(crate) subs: usize,
}

/// Points chosen for given scales, and how well they fit.
struct Fit<F, const G: usize> {
    codes: [[Code; LANES]; G],
    wrong: [[u8; LANES]; H],
    error: F,
    sum_xq: F,
    sum_qq: F,
}

impl<S: Simd, const N: usize> Improve<'_, S, N> {
    /// The best choice found, and the bits of each block's scale (one or two blocks), starting from
    /// the blocks' scales and levels `start`.
    #[inline(always)]
    pub(crate) fn run<const G: usize, const D: usize, const BITS: usize>(
        &self,
        start: [f32; 2],
        levels: [u8; LANES],
    ) -> (Choice<G>, [u16; 2]) {
        /// Block scales tried, relative to the start.
        const STARTS: [f32; 5] = [1.0, 0.94, 1.06, 0.88, 1.12];
        let simd = self.simd;
        let x: [S::F; N] = gather(simd, |lane| &self.blocks.values[lane]);
        let w: [S::F; N] = gather(simd, |lane| &self.blocks.weights[lane]);
        let unit = self.decoded.unit;
        let mut best = Choice {
            codes: [[0; LANES]; G],
            wrong: [[NONE; LANES]; H],
            levels,
        };
        let mut best_bits = [0; 2];
        let mut least = [f32::INFINITY; 2];
        // Where the scales of the sub-blocks should lie.
        let mut targets: [f32; LANES] = std::array::from_fn(|lane| {
            start[lane / self.subs] * unit * f32::from(2 * levels[lane] + 1)
        });
        for factor in STARTS {
            let mut bits = start.map(|d| f32_to_f16(d * factor));
            let mut now = best;
            for lane in 0..LANES {
                let ratio = targets[lane] / (f16_to_f32(bits[lane / self.subs]) * unit);
                now.levels[lane] = ((0.5 * (ratio - 1.0) + 0.5) as u8).min(15);
            }
            for round in 0..2 {
                let d: [f32; 2] = bits.map(f16_to_f32);
                let middle = now.levels;
                let mut error = [f32::INFINITY; LANES];
                let (mut sum_xq, mut sum_qq) = ([0.0; LANES], [0.0; LANES]);
                for step in [0, -1, 1] {
                    let levels = middle.map(|level| (level as i8 + step).clamp(0, 15) as u8);
                    let scales: [f32; LANES] = std::array::from_fn(|lane| {
                        d[lane / self.subs] * unit * f32::from(2 * levels[lane] + 1)
                    });
                    let fit = self.fit::<G, D, BITS>(&x, &w, &scales);
                    let these = fit.error.to_array();
                    let (xq, qq) = (fit.sum_xq.to_array(), fit.sum_qq.to_array());
                    for lane in 0..LANES {
                        if these[lane] < error[lane] {
                            error[lane] = these[lane];
                            sum_xq[lane] = xq[lane];
                            sum_qq[lane] = qq[lane];
                            now.levels[lane] = levels[lane];
                            for group in 0..G {
                                now.codes[group][lane] = fit.codes[group][lane];
                            }
                            for group in 0..H {
                                now.wrong[group][lane] = fit.wrong[group][lane];
                            }
                        }
                    }
                }
                // The blocks' scales that fit what was chosen.
                let mut total = [[0.0f32; 2]; 2];
                for lane in 0..LANES {
                    let factor = unit * f32::from(2 * now.levels[lane] + 1);
                    let total = &mut total[lane / self.subs];
                    total[0] += sum_xq[lane] * factor;
                    total[1] += sum_qq[lane] * factor * factor;
                }
                for block in 0..LANES / self.subs {
                    if total[block][0] > 0.0 {
                        bits[block] = f32_to_f16(total[block][0] / total[block][1]);
                    }
                }
                if round == 0 && factor == 1.0 {
                    for lane in 0..LANES {
                        if sum_xq[lane] > 0.0 {
                            targets[lane] = sum_xq[lane] / sum_qq[lane];
                        }
                    }
                }
            }
            let d = bits.map(f16_to_f32);
            let scales: [f32; LANES] = std::array::from_fn(|lane| {
                d[lane / self.subs] * unit * f32::from(2 * now.levels[lane] + 1)
            });
            let error = self.error::<G, D, BITS>(&x, &w, &now, &scales).to_array();
            for block in 0..LANES / self.subs {
                let lanes = block * self.subs..(block + 1) * self.subs;
                let total = error[lanes.clone()].iter().sum::<f32>();
                if total < least[block] {
                    least[block] = total;
                    best_bits[block] = bits[block];
                    for lane in lanes {
                        best.levels[lane] = now.levels[lane];
                        for group in 0..G {
                            best.codes[group][lane] = now.codes[group][lane];
                        }
                        for group in 0..H {
                            best.wrong[group][lane] = now.wrong[group][lane];
                        }
                    }
                }
            }
        }
        (best, best_bits)
    }

    /// Points for given scales of the sub-blocks.
    #[inline(always)]
    fn fit<const G: usize, const D: usize, const BITS: usize>(
        &self,
        x: &[S::F; N],
        w: &[S::F; N],
        scales: &[f32; LANES],
    ) -> Fit<S::F, G> {
        let simd = self.simd;
        let zero = simd.splat(0.0);
        let table = simd.load(&self.decoded.table());
        let scale = simd.load(scales);
        let base = simd.splat(self.decoded.digits as f32);
        let mut fit = Fit {
            codes: [[0; LANES]; G],
            wrong: [[NONE; LANES]; H],
            error: zero,
            sum_xq: zero,
            sum_qq: zero,
        };
        for half in 0..N / 8 {
            let at = 8 * half;
            // Every value's nearest level, and what the wrong sign would cost.
            let mut digits = [zero; 8];
            let mut cost = simd.splat(f32::MAX);
            let mut place = zero;
            for i in 0..8 {
                let (digit, value) = self.nearest_digit(x[at + i], scale);
                digits[i] = digit;
                let this = w[at + i] * x[at + i] * value;
                let less = this.lt(cost);
                cost = this.select(less, cost);
                place = simd.splat(i as f32).select(less, place);
            }
            let odd = self.odd[half];
            if odd != 0 {
                fit.wrong[half] = mark(odd, &place.to_array());
            }
            for sub in 0..8 / D {
                let group = half * (8 / D) + sub;
                let mut number = zero;
                for i in (0..D).rev() {
                    let mut digit = digits[D * sub + i];
                    if odd != 0 {
                        let wrong = simd.load(&fit.wrong[half].map(f32::from));
                        let here = wrong.eq(simd.splat((D * sub + i) as f32));
                        digit = zero.select(here, digit);
                    }
                    number = number * base + digit;
                }
                let choice = Group::<S, N, D, BITS> {
                    improve: self,
                    table,
                    scales,
                    wrong: &fit.wrong[half],
                    group,
                };
                (fit.codes[group], _) = snap(self.points, number, u16::MAX, &choice);
            }
            if odd != 0 {
                // Given the points, the wrong sign may cost less elsewhere.
                let mut cost = simd.splat(f32::MAX);
                let mut place = zero;
                for sub in 0..8 / D {
                    let codes = simd.load_codes(&fit.codes[half * (8 / D) + sub]);
                    for i in 0..D {
                        let j = D * sub + i;
                        let q = simd.pick(table, codes, BITS * i);
                        let this = w[at + j] * x[at + j] * q;
                        let less = this.lt(cost);
                        cost = this.select(less, cost);
                        place = simd.splat(j as f32).select(less, place);
                    }
                }
                fit.wrong[half] = mark(odd, &place.to_array());
            }
        }
        self.measure::<G, D, BITS>(x, w, scales, &mut fit);
        fit
    }

    /// Error and sums of a fit.
    #[inline(always)]
    fn measure<const G: usize, const D: usize, const BITS: usize>(
        &self,
        x: &[S::F; N],
        w: &[S::F; N],
        scales: &[f32; LANES],
        fit: &mut Fit<S::F, G>,
    ) {
        let simd = self.simd;
        let zero = simd.splat(0.0);
        let table = simd.load(&self.decoded.table());
        let scale = simd.load(scales);
        for group in 0..G {
            let codes = simd.load_codes(&fit.codes[group]);
            let half = group * D / 8;
            let wrong = simd.load(&fit.wrong[half].map(f32::from));
            for i in 0..D {
                let at = D * group + i;
                let q = simd.pick(table, codes, BITS * i);
                let mut value = x[at];
                if self.odd[half] != 0 {
                    let here = wrong.eq(simd.splat((at % 8) as f32));
                    value = (zero - value).select(here, value);
                }
                let difference = value - scale * q;
                let wq = w[at] * q;
                fit.error = fit.error + w[at] * (difference * difference);
                fit.sum_xq = fit.sum_xq + wq * value;
                fit.sum_qq = fit.sum_qq + wq * q;
            }
        }
    }

    /// The error of a choice for given scales.
    #[inline(always)]
    fn error<const G: usize, const D: usize, const BITS: usize>(
        &self,
        x: &[S::F; N],
        w: &[S::F; N],
        choice: &Choice<G>,
        scales: &[f32; LANES],
    ) -> S::F {
        let zero = self.simd.splat(0.0);
        let mut fit = Fit {
            codes: choice.codes,
            wrong: choice.wrong,
            error: zero,
            sum_xq: zero,
            sum_qq: zero,
        };
        self.measure::<G, D, BITS>(x, w, scales, &mut fit);
        fit.error
    }

    /// The digit whose decoded value times `scale` is nearest to `x`, and that value.
    #[inline(always)]
    fn nearest_digit(&self, x: S::F, scale: S::F) -> (S::F, S::F) {
        let simd = self.simd;
        let zero = simd.splat(0.0);
        let mut digit = zero;
        let mut value = simd.splat(self.decoded.values[0]);
        for i in 1..self.decoded.digits {
            let (low, high) = (self.decoded.values[i - 1], self.decoded.values[i]);
            let above = x.gt(scale * simd.splat(0.5 * (low + high)));
            digit = simd.splat(i as f32).select(above, digit);
            value = simd.splat(high).select(above, value);
        }
        (digit, value)
    }
}

/// Places as small integers where a lane is in `odd`.
#[inline(always)]
fn mark(odd: u16, places: &[f32; LANES]) -> [u8; LANES] {
    std::array::from_fn(|lane| {
        if odd >> lane & 1 == 1 {
            places[lane] as u8
        } else {
            NONE
        }
    })
}

/// Chooses neighbours for a group of every lane.
struct Group<'a, S: Simd, const N: usize, const D: usize, const BITS: usize> {
    improve: &'a Improve<'a, S, N>,
    table: S::F,
    scales: &'a [f32; LANES],
    wrong: &'a [u8; LANES],
    group: usize,
}

impl<S: Simd, const N: usize, const D: usize, const BITS: usize> Choose
    for Group<'_, S, N, D, BITS>
{
    #[inline(always)]
    fn choose(&self, lane: usize, candidates: &[[Code; LANES]]) -> Code {
        let Improve { simd, blocks, .. } = *self.improve;
        let table = self.table * simd.splat(self.scales[lane]);
        let mut targets = blocks.values[lane].as_chunks::<D>().0[self.group];
        let weights = &blocks.weights[lane].as_chunks::<D>().0[self.group];
        let wrong = usize::from(self.wrong[lane]).wrapping_sub(self.group * D % 8);
        if let Some(value) = targets.get_mut(wrong) {
            *value = -*value;
        }
        nearest::<S, D, BITS>(simd, candidates, table, &targets, weights).0
    }
}
