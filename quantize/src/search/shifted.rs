//! ggml's search for the types whose codebook entries of -1, 0 and 1 are shifted by ±1/8, sixteen
//! sub-blocks in lanes.
//!
//! Once the values of a sub-block are sorted, the levels of the best scale are three runs; all pairs
//! of borders between them are tried, with either shift.

use super::lattice::{Found, SubBlocks};
use super::neighbours::{Groups, Two, digit_table, group_of_two, snap};
use super::points::Points;
use crate::simd::{Float, LANES, Mask, Simd, gather, products};

/// What the levels stand for with the shift up and with the shift down.
pub(crate) const SHIFTED: [[f32; 3]; 2] = [[-0.875, 0.125, 1.125], [-1.125, -0.125, 0.875]];

/// Sixteen sub-blocks of `N` values, one a lane.
struct Lanes<F, const N: usize> {
    values: [F; N],
    weights: [F; N],
    /// Places in ascending order.
    ranks: [F; N],
}

/// Borders and shifts that a search settled on, by lane.
struct Runs<F, const G: usize> {
    scale: F,
    /// Sorted positions where level 1 and where level 2 begin.
    borders: [F; 2],
    /// Lanes whose group is shifted down.
    down: [u16; G],
    /// Lanes in which anything was found.
    live: u16,
}

/// ggml's choice for IQ1_S: sub-blocks of 32 with one shift. Gives too the lanes shifted down.
#[inline(always)]
pub(crate) fn reference_iq1_s<S: Simd>(
    simd: S,
    points: &Points,
    blocks: &SubBlocks<32>,
) -> (Found<4>, [u16; 4]) {
    let zero = simd.splat(0.0);
    let values: [S::F; 32] = gather(simd, |lane| &blocks.values[lane]);
    let weights: [S::F; 32] = gather(simd, |lane| &blocks.weights[lane]);
    let ranks = ranks(simd, &values);
    let x = prefix_sums::<S, 32, 33>(simd, &ranks, &products(&weights, &values));
    let w = prefix_sums::<S, 32, 33>(simd, &ranks, &weights);
    // What the first and the last run add to the sums, by where they end and begin, for both shifts.
    let mut outer = [[Outer {
        first: (zero, zero),
        last: (zero, zero),
    }; 33]; 2];
    for (outer, [low, _, high]) in outer.iter_mut().zip(SHIFTED) {
        let (low, high) = (simd.splat(low), simd.splat(high));
        for (at, outer) in outer.iter_mut().enumerate() {
            outer.first = (x[at] * low, w[at] * low * low);
            outer.last = ((x[32] - x[at]) * high, (w[32] - w[at]) * high * high);
        }
    }
    // What the middle stands for: this with the shift up, its negative with the shift down.
    let middle = simd.splat(SHIFTED[0][1]);
    let mut best = simd.splat(-f32::MAX);
    let mut runs = Runs {
        scale: zero,
        borders: [zero; 2],
        down: [0; 4],
        live: 0,
    };
    for first in 0..=32 {
        for second in first..=32 {
            let xq = (x[second] - x[first]) * middle;
            let qq = (w[second] - w[first]) * middle * middle;
            for (down, outer) in outer.iter().enumerate() {
                let (start, end) = (outer[first].first, outer[second].last);
                let start_xq = if down == 0 {
                    start.0 + xq
                } else {
                    start.0 - xq
                };
                let (sum_xq, sum_qq) = (start_xq + end.0, start.1 + qq + end.1);
                let better = sum_qq.gt(zero) & (sum_xq * sum_xq).gt(best * sum_qq);
                if better.any() {
                    runs.accept(simd, better, sum_xq, sum_qq, &mut best, [first, second]);
                    runs.set_down([down == 1; 4], better.bits());
                }
            }
        }
    }
    let lanes = Lanes {
        values,
        weights,
        ranks,
    };
    settle(simd, points, blocks, &lanes, runs, 1e-12)
}

/// What the outer runs of sorted values add to `Σwxq` and `Σwqq`.
#[derive(Clone, Copy)]
struct Outer<F> {
    first: (F, F),
    last: (F, F),
}

/// For the shift up and the shift down: what all values count, and those before either border.
const TOTALS: [f32; 2] = [1.125, 0.875];
const BEFORE: [[f32; 2]; 2] = [[0.75, -1.25], [1.25, -0.75]];

/// ggml's choice for IQ1_M: sub-blocks of 16 whose two groups have shifts of their own.
#[inline(always)]
pub(crate) fn reference_iq1_m<S: Simd>(
    simd: S,
    points: &Points,
    blocks: &SubBlocks<16>,
) -> (Found<2>, [u16; 2]) {
    let zero = simd.splat(0.0);
    let values: [S::F; 16] = gather(simd, |lane| &blocks.values[lane]);
    let weights: [S::F; 16] = gather(simd, |lane| &blocks.weights[lane]);
    let ranks = ranks(simd, &values);
    let (mut x, mut w) = ([[zero; 17]; 2], [[zero; 17]; 2]);
    for half in 0..2 {
        // Zeros stand in for the other half's.
        let mut own = [zero; 16];
        own[8 * half..][..8].copy_from_slice(&weights[8 * half..][..8]);
        x[half] = prefix_sums(simd, &ranks, &products(&own, &values));
        w[half] = prefix_sums(simd, &ranks, &own);
    }
    let mut best = simd.splat(-f32::MAX);
    let mut runs = Runs {
        scale: zero,
        borders: [zero; 2],
        down: [0; 2],
        live: 0,
    };
    let mut after_second = [[[zero; 2]; 17]; 2];
    for half in 0..2 {
        for (after, &w) in after_second[half].iter_mut().zip(&w[half]) {
            *after = [simd.splat(BEFORE[0][1]) * w, simd.splat(BEFORE[1][1]) * w];
        }
    }
    for first in 0..=16 {
        let mut fixed = [[(zero, zero); 2]; 2];
        for (half, fixed) in fixed.iter_mut().enumerate() {
            let (x, w) = (&x[half], &w[half]);
            for ((fixed, total), before) in fixed.iter_mut().zip(TOTALS).zip(BEFORE) {
                let total = simd.splat(total);
                fixed.0 = x[16] * total;
                fixed.1 = w[16] * total * total + w[first] * simd.splat(before[0]);
            }
        }
        for second in first..=16 {
            let mut sums = fixed;
            for (half, sums) in sums.iter_mut().enumerate() {
                let before = x[half][first] + x[half][second];
                for (sums, after) in sums.iter_mut().zip(after_second[half][second]) {
                    *sums = (sums.0 - before, sums.1 + after);
                }
            }
            for shifts in 0..4 {
                let down = [shifts >> 1, shifts & 1];
                let (a, b) = (sums[0][down[0]], sums[1][down[1]]);
                let (sum_xq, sum_qq) = (a.0 + b.0, a.1 + b.1);
                let better = sum_qq.gt(zero) & (sum_xq * sum_xq).gt(best * sum_qq);
                if better.any() {
                    runs.accept(simd, better, sum_xq, sum_qq, &mut best, [first, second]);
                    runs.set_down(down.map(|down| down == 1), better.bits());
                }
            }
        }
    }
    let lanes = Lanes {
        values,
        weights,
        ranks,
    };
    settle(simd, points, blocks, &lanes, runs, 1e-7)
}

impl<F: Float, const G: usize> Runs<F, G> {
    #[inline(always)]
    fn accept<S: Simd<F = F, M = F::Mask>>(
        &mut self,
        simd: S,
        better: F::Mask,
        sum_xq: F,
        sum_qq: F,
        best: &mut F,
        borders: [usize; 2],
    ) {
        self.scale = (sum_xq / sum_qq).select(better, self.scale);
        *best = (self.scale * sum_xq).select(better, *best);
        for (border, at) in self.borders.iter_mut().zip(borders) {
            *border = simd.splat(at as f32).select(better, *border);
        }
        self.live |= better.bits();
    }

    #[inline(always)]
    fn set_down(&mut self, down: [bool; G], lanes: u16) {
        for (into, down) in self.down.iter_mut().zip(down) {
            *into = if down { *into | lanes } else { *into & !lanes };
        }
    }
}

/// The place of every value in the ascending order of its sub-block; equal values keep theirs.
#[inline(always)]
fn ranks<S: Simd, const N: usize>(simd: S, values: &[S::F; N]) -> [S::F; N] {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let mut ranks = [zero; N];
    for later in 1..N {
        let mut rank = ranks[later];
        for earlier in 0..later {
            let follows = values[earlier].gt(values[later]);
            ranks[earlier] = ranks[earlier] + one.select(follows, zero);
            rank = rank + zero.select(follows, one);
        }
        ranks[later] = rank;
    }
    ranks
}

/// Sums of the first `0..=N` of sixteen sub-blocks' values, in the order of their ranks; `M` is `N + 1`.
#[inline(always)]
fn prefix_sums<S: Simd, const N: usize, const M: usize>(
    simd: S,
    ranks: &[S::F; N],
    values: &[S::F; N],
) -> [S::F; M] {
    let mut sorted = [[0.0; LANES]; N];
    for (rank, value) in ranks.iter().zip(values) {
        let value = value.to_array();
        for (lane, rank) in rank.to_u8().into_iter().enumerate() {
            sorted[usize::from(rank) % N][lane] = value[lane];
        }
    }
    let mut sums = [simd.splat(0.0); M];
    for (j, sorted) in sorted.iter().enumerate() {
        sums[j + 1] = sums[j] + simd.load(sorted);
    }
    sums
}

/// Levels from runs, codebook entries from levels, and the scale that fits the entries.
#[inline(always)]
fn settle<S: Simd, const N: usize, const G: usize>(
    simd: S,
    points: &Points,
    blocks: &SubBlocks<N>,
    lanes: &Lanes<S::F, N>,
    mut runs: Runs<S::F, G>,
    zero_below: f32,
) -> (Found<G>, [u16; G]) {
    let Lanes {
        values,
        weights,
        ranks,
    } = lanes;
    let (zero, one, two) = (simd.splat(0.0), simd.splat(1.0), simd.splat(2.0));
    let mut magnitude = zero;
    for x in values {
        magnitude = x.abs().max(magnitude);
    }
    runs.live &= !magnitude.lt(simd.splat(zero_below)).bits();
    // A negative scale turns the levels around, and with them the shifts.
    let turned = runs.scale.lt(zero);
    let scales = runs.scale.abs().to_array();
    for down in &mut runs.down {
        *down ^= turned.bits();
    }
    let mut levels = *ranks;
    for level in &mut levels {
        let rank = *level;
        let upward =
            zero.select(rank.lt(runs.borders[0]), one) + zero.select(rank.lt(runs.borders[1]), one);
        *level = (two - upward).select(turned, upward);
    }
    let tables = [
        simd.load(&digit_table(SHIFTED[0])),
        simd.load(&digit_table(SHIFTED[1])),
    ];
    let mut found = Found {
        scales,
        live: runs.live,
        codes: [[0; LANES]; G],
    };
    let mut absent = 0;
    for group in 0..G {
        let mut number = zero;
        for &level in levels.as_chunks::<8>().0[group].iter().rev() {
            number = number * simd.splat(3.0) + level;
        }
        let groups = Shifted {
            simd,
            blocks,
            tables,
            scales: &scales,
            group,
            down: runs.down[group],
        };
        let (codes, held) = snap::<S, _, 8, 2>(simd, points, number, runs.live, &groups);
        found.codes[group] = codes;
        absent |= runs.live & !held;
    }
    let (mut sum_xq, mut sum_qq) = (zero, zero);
    for group in 0..G {
        let codes = simd.load_codes(&found.codes[group]);
        let down = simd.mask(runs.down[group]);
        for i in 0..8 {
            let (up_q, down_q) = (
                simd.pick::<2>(tables[0], codes, i),
                simd.pick::<2>(tables[1], codes, i),
            );
            let q = down_q.select(down, up_q);
            let wq = weights[8 * group + i] * q;
            sum_xq = sum_xq + wq * values[8 * group + i];
            sum_qq = sum_qq + wq * q;
        }
    }
    let (sum_xq, sum_qq) = (sum_xq.to_array(), sum_qq.to_array());
    for lane in 0..LANES {
        if absent >> lane & 1 == 1 && sum_xq[lane] > 0.0 && sum_qq[lane] > 0.0 {
            found.scales[lane] = sum_xq[lane] / sum_qq[lane];
        }
        if runs.live >> lane & 1 == 0 {
            found.scales[lane] = 0.0;
            runs.down.iter_mut().for_each(|down| *down &= !(1 << lane));
        }
    }
    (found, runs.down)
}

/// A group of every lane.
struct Shifted<'a, S: Simd, const N: usize> {
    simd: S,
    blocks: &'a SubBlocks<N>,
    /// Values of the digits, shifted up and down.
    tables: [S::F; 2],
    scales: &'a [f32; LANES],
    group: usize,
    /// The lanes shifted down.
    down: u16,
}

impl<S: Simd, const N: usize> Groups<S::F, 8> for Shifted<'_, S, N> {
    #[inline(always)]
    fn two(&self, lanes: [usize; 2]) -> Two<'_, S::F, 8> {
        let Self { simd, blocks, .. } = *self;
        let [low, high] = lanes;
        let [low_down, high_down] = [self.down >> low & 1, self.down >> high & 1];
        let halves = (low_down * 0x00FF) | (high_down * 0xFF00);
        let down = simd.mask(halves);
        let scale = simd.splat_halves(self.scales[low], self.scales[high]);
        Two {
            table: self.tables[1].select(down, self.tables[0]) * scale,
            targets: group_of_two(&blocks.values, lanes, self.group),
            weights: group_of_two(&blocks.weights, lanes, self.group),
        }
    }
}
