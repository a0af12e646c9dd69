//! A search of codebook points and scales that leaves less error than ggml's, sixteen sub-blocks in
//! lanes.
//!
//! Unlike the reference it works with the values that the decoder gives, chooses points under the
//! scales that are stored, lets the sign that cannot be written be that of the value where it costs
//! least, and fits the block's scale to all that was chosen.

use super::lattice::SubBlocks;
use super::multiples::{self, Fit, Multiples};
use super::neighbours::{Groups, Two, digit_table, group_of_two, snap};
use super::points::{Code, Points};
use crate::half::f32_to_f16;
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

/// The values of the digits as decoded: sub-blocks of level `s` decode to `d·(2s + 1)·value`.
pub(crate) struct Decoded {
    values: [f32; 8],
    digits: usize,
}

impl Decoded {
    /// From the levels of a codebook, and what they are multiplied by.
    pub(crate) const fn new<const K: usize>(levels: [i8; K], unit: f32) -> Self {
        let mut values = [levels[K - 1] as f32 * unit; 8];
        let mut digit = 0;
        while digit < K {
            values[digit] = levels[digit] as f32 * unit;
            digit += 1;
        }
        Self { values, digits: K }
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

/// The odd numbers that sub-blocks' scales are multiples by.
struct Odd;

impl Odd {
    /// Most levels: the odd numbers are `2·level + 1`.
    const LEVELS: i32 = 16;
}

impl Multiples for Odd {
    #[inline(always)]
    fn nearest<S: Simd>(&self, simd: S, ratio: S::F) -> S::F {
        let (half, one) = (simd.splat(0.5), simd.splat(1.0));
        let highest = simd.splat((Self::LEVELS - 1) as f32);
        let level = ((ratio - one) * half).max(simd.splat(0.0)).min(highest);
        let level = level.round_ties_even();
        level + level + one
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

/// Magnitudes and weights in lanes.
struct Values<F, const N: usize> {
    x: [F; N],
    w: [F; N],
}

/// Points chosen for given scales.
#[derive(Clone, Copy)]
struct Chosen<const G: usize> {
    codes: [[Code; LANES]; G],
    wrong: [[u8; LANES]; H],
}

impl<S: Simd, const N: usize> Improve<'_, S, N> {
    /// The best choice found, and the bits of each block's scale (one or two blocks), starting from
    /// the blocks' scales and levels.
    ///
    /// Points are chosen for a few scales around the one that fits those of the start; then block scales
    /// are compared by the sums of these points alone; last, points are chosen anew for the scales found.
    #[inline(always)]
    pub(crate) fn run<const G: usize, const D: usize, const BITS: usize>(
        &self,
        start: [f32; 2],
        levels: [u8; LANES],
    ) -> (Choice<G>, [u16; 2]) {
        /// Scales of sub-blocks for which points are chosen, relative to that which fits first.
        const SCALES: [f32; 4] = [0.86, 0.93, 1.07, 1.15];
        /// Times that points are chosen for the scales found.
        const AGAIN: usize = 2;
        const TRIES: usize = 1 + SCALES.len() + AGAIN;
        let simd = self.simd;
        let group = Values {
            x: gather(simd, |lane| &self.blocks.values[lane]),
            w: gather(simd, |lane| &self.blocks.weights[lane]),
        };
        let start = simd.load(&std::array::from_fn(|lane| start[lane / self.subs]));
        let levels = simd.load(&levels.map(f32::from));
        let zero = simd.splat(0.0);
        let mut fits = [Fit::new(zero, zero); TRIES];
        let mut chosen = [Chosen::<G> {
            codes: [[0; LANES]; G],
            wrong: [[NONE; LANES]; H],
        }; TRIES];

        let scale = start * (levels + levels + simd.splat(1.0));
        fits[0] = self.fit::<G, D, BITS>(&group, scale, &mut chosen[0]);
        let scale = fits[0].positive_scale(simd, scale);
        for (i, factor) in SCALES.into_iter().enumerate() {
            let scale = scale * simd.splat(factor);
            fits[1 + i] = self.fit::<G, D, BITS>(&group, scale, &mut chosen[1 + i]);
        }
        let mut best = self.scales(&fits[..1 + SCALES.len()], start);
        for i in 1 + SCALES.len()..TRIES {
            fits[i] = self.fit::<G, D, BITS>(&group, best.d * best.multiples, &mut chosen[i]);
            best = self.scales(&fits[..=i], start);
        }

        let which = best.which.to_u8();
        let multiples = best.multiples.to_u8();
        let d = best.d.to_array();
        let mut found = Choice {
            codes: [[0; LANES]; G],
            wrong: [[NONE; LANES]; H],
            levels: multiples.map(|multiple| multiple / 2),
        };
        for lane in 0..LANES {
            let chosen = &chosen[usize::from(which[lane]) % TRIES];
            for (found, codes) in found.codes.iter_mut().zip(&chosen.codes) {
                found[lane] = codes[lane];
            }
            for (found, wrong) in found.wrong.iter_mut().zip(&chosen.wrong) {
                found[lane] = wrong[lane];
            }
        }
        (found, [d[0], d[LANES - 1]].map(f32_to_f16))
    }

    /// Scales for points that have been chosen.
    #[inline(always)]
    fn scales(&self, fits: &[Fit<S::F>], start: S::F) -> multiples::Choice<S::F> {
        /// Block scales tried, relative to the start.
        const FACTORS: [f32; 16] = [
            0.86, 0.88, 0.90, 0.92, 0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08, 1.10, 1.12,
            1.14, 1.16,
        ];
        let simd = self.simd;
        match self.subs {
            8 => multiples::Choice::best::<S, Odd, 8>(simd, &Odd, fits, start, &FACTORS),
            _ => multiples::Choice::best::<S, Odd, 16>(simd, &Odd, fits, start, &FACTORS),
        }
    }

    /// Points for given scales of the sub-blocks.
    #[inline(always)]
    fn fit<const G: usize, const D: usize, const BITS: usize>(
        &self,
        group: &Values<S::F, N>,
        scale: S::F,
        chosen: &mut Chosen<G>,
    ) -> Fit<S::F> {
        let simd = self.simd;
        let Values { x, w } = group;
        let zero = simd.splat(0.0);
        let table = simd.load(&self.decoded.table());
        let scales = scale.to_array();
        let inverse = simd.splat(1.0) / scale;
        let base = simd.splat(self.decoded.digits as f32);
        for half in 0..N / 8 {
            let at = 8 * half;
            // Every value's nearest level, and what the wrong sign would cost.
            let mut digits = [zero; 8];
            let mut cost = simd.splat(f32::MAX);
            let mut place = zero;
            for i in 0..8 {
                let (digit, value) = self.nearest_digit(x[at + i], inverse);
                digits[i] = digit;
                let this = w[at + i] * x[at + i] * value;
                let less = this.lt(cost);
                cost = this.select(less, cost);
                place = simd.splat(i as f32).select(less, place);
            }
            let odd = self.odd[half];
            if odd != 0 {
                chosen.wrong[half] = mark(odd, &place.to_array());
            }
            let mut values = [[0.0; 8]; LANES];
            for (lane, values) in values.iter_mut().enumerate() {
                *values = self.blocks.values[lane].as_chunks().0[half];
                if let Some(value) = values.get_mut(usize::from(chosen.wrong[half][lane])) {
                    *value = -*value;
                }
            }
            for sub in 0..8 / D {
                let group = half * (8 / D) + sub;
                let mut number = zero;
                for i in (0..D).rev() {
                    let mut digit = digits[D * sub + i];
                    if odd != 0 {
                        let wrong = simd.load(&chosen.wrong[half].map(f32::from));
                        let here = wrong.eq(simd.splat((D * sub + i) as f32));
                        digit = zero.select(here, digit);
                    }
                    number = number * base + digit;
                }
                let groups = Group::<S, N, D, BITS> {
                    improve: self,
                    table,
                    scales: &scales,
                    values: &values,
                    group,
                };
                (chosen.codes[group], _) =
                    snap::<S, _, D, BITS>(simd, self.points, number, u16::MAX, &groups);
            }
            if odd != 0 {
                // Given the points, the wrong sign may cost less elsewhere.
                let mut cost = simd.splat(f32::MAX);
                let mut place = zero;
                for sub in 0..8 / D {
                    let codes = simd.load_codes(&chosen.codes[half * (8 / D) + sub]);
                    for i in 0..D {
                        let j = D * sub + i;
                        let q = simd.pick::<BITS>(table, codes, i);
                        let this = w[at + j] * x[at + j] * q;
                        let less = this.lt(cost);
                        cost = this.select(less, cost);
                        place = simd.splat(j as f32).select(less, place);
                    }
                }
                chosen.wrong[half] = mark(odd, &place.to_array());
            }
        }
        let (mut sum_xq, mut sum_qq) = (zero, zero);
        for group in 0..G {
            let codes = simd.load_codes(&chosen.codes[group]);
            let half = group * D / 8;
            let wrong = simd.load(&chosen.wrong[half].map(f32::from));
            for i in 0..D {
                let at = D * group + i;
                let q = simd.pick::<BITS>(table, codes, i);
                let mut value = x[at];
                if self.odd[half] != 0 {
                    let here = wrong.eq(simd.splat((at % 8) as f32));
                    value = (zero - value).select(here, value);
                }
                let wq = w[at] * q;
                sum_xq = sum_xq + wq * value;
                sum_qq = sum_qq + wq * q;
            }
        }
        Fit::new(sum_xq, sum_qq)
    }

    /// The digit whose decoded value is nearest to `x / scale`, and about that value: digits are taken to be
    /// evenly spaced, which they nearly are.
    #[inline(always)]
    fn nearest_digit(&self, x: S::F, inverse: S::F) -> (S::F, S::F) {
        let simd = self.simd;
        let [first, second, ..] = self.decoded.values;
        let step = second - first;
        let highest = simd.splat((self.decoded.digits - 1) as f32);
        let digit = x * inverse * simd.splat(1.0 / step) - simd.splat(first / step);
        let digit = digit.max(simd.splat(0.0)).min(highest).round_ties_even();
        (digit, digit * simd.splat(step) + simd.splat(first))
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

/// A group of every lane.
struct Group<'a, S: Simd, const N: usize, const D: usize, const BITS: usize> {
    improve: &'a Improve<'a, S, N>,
    table: S::F,
    scales: &'a [f32; LANES],
    /// The eight values that it is among, negative where the wrong sign is written.
    values: &'a [[f32; 8]; LANES],
    group: usize,
}

impl<S: Simd, const N: usize, const D: usize, const BITS: usize> Groups<S::F, D>
    for Group<'_, S, N, D, BITS>
{
    #[inline(always)]
    fn two(&self, lanes: [usize; 2]) -> Two<'_, S::F, D> {
        let Improve { simd, blocks, .. } = *self.improve;
        let [low, high] = lanes;
        Two {
            table: self.table * simd.splat_halves(self.scales[low], self.scales[high]),
            targets: group_of_two(self.values, lanes, self.group % (8 / D)),
            weights: group_of_two(&blocks.weights, lanes, self.group),
        }
    }
}
