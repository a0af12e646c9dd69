//! ggml's search for the types whose codebook entries of -1, 0 and 1 are shifted by ±1/8, sixteen
//! sub-blocks in lanes.
//!
//! Once the values of a sub-block are sorted, the levels of the best scale are three runs; all pairs
//! of borders between them are tried, with either shift.

use super::lattice::{Found, SubBlocks};
use super::neighbours::{Choose, digit_table, nearest, snap};
use super::points::{Code, Points};
use crate::simd::{Float, LANES, Mask, Simd};

/// What the levels stand for with the shift up and with the shift down.
pub(crate) const SHIFTED: [[f32; 3]; 2] = [[-0.875, 0.125, 1.125], [-1.125, -0.125, 0.875]];

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
    let order = sort(blocks);
    let zero = simd.splat(0.0);
    let (mut x, mut w) = ([zero; 33], [zero; 33]);
    for j in 0..32 {
        let (values, weights) = sorted(simd, blocks, &order, j);
        x[j + 1] = x[j] + weights * values;
        w[j + 1] = w[j] + weights;
    }
    let mut best = simd.splat(-f32::MAX);
    let mut runs = Runs {
        scale: zero,
        borders: [zero; 2],
        down: [0; 4],
        live: 0,
    };
    for first in 0..=32 {
        for second in first..=32 {
            for (down, [s0, s1, s2]) in SHIFTED.into_iter().enumerate() {
                let (s0, s1, s2) = (simd.splat(s0), simd.splat(s1), simd.splat(s2));
                let sum_xq = x[first] * s0 + (x[second] - x[first]) * s1 + (x[32] - x[second]) * s2;
                let sum_qq = w[first] * s0 * s0
                    + (w[second] - w[first]) * s1 * s1
                    + (w[32] - w[second]) * s2 * s2;
                let better = sum_qq.gt(zero) & (sum_xq * sum_xq).gt(best * sum_qq);
                if better.any() {
                    runs.accept(simd, better, sum_xq, sum_qq, &mut best, [first, second]);
                    runs.set_down([down == 1; 4], better.bits());
                }
            }
        }
    }
    settle(simd, points, blocks, &order, runs, 1e-12)
}

/// ggml's choice for IQ1_M: sub-blocks of 16 whose two groups have shifts of their own.
#[inline(always)]
pub(crate) fn reference_iq1_m<S: Simd>(
    simd: S,
    points: &Points,
    blocks: &SubBlocks<16>,
) -> (Found<2>, [u16; 2]) {
    let order = sort(blocks);
    let zero = simd.splat(0.0);
    let (mut x, mut w) = ([[zero; 17]; 2], [[zero; 17]; 2]);
    for j in 0..16 {
        let (values, weights) = sorted(simd, blocks, &order, j);
        let products = weights * values;
        let second: [f32; LANES] =
            std::array::from_fn(|lane| f32::from(u8::from(order[lane][j] >= 8)));
        let second = simd.load(&second).gt(zero);
        for (half, owns) in [!second, second].into_iter().enumerate() {
            x[half][j + 1] = (x[half][j] + products).select(owns, x[half][j]);
            w[half][j + 1] = (w[half][j] + weights).select(owns, w[half][j]);
        }
    }
    let mut best = simd.splat(-f32::MAX);
    let mut runs = Runs {
        scale: zero,
        borders: [zero; 2],
        down: [0; 2],
        live: 0,
    };
    let (total_up, total_down) = (simd.splat(1.125), simd.splat(0.875));
    for first in 0..=16 {
        for second in first..=16 {
            let mut sums = [[(zero, zero); 2]; 2];
            for (half, sums) in sums.iter_mut().enumerate() {
                let (x, w) = (&x[half], &w[half]);
                let sum = x[first] + x[second];
                sums[0].0 = x[16] * total_up - sum;
                sums[0].1 = w[16] * total_up * total_up
                    + w[first] * simd.splat(0.75)
                    + w[second] * simd.splat(-1.25);
                sums[1].0 = x[16] * total_down - sum;
                sums[1].1 = w[16] * total_down * total_down
                    + w[first] * simd.splat(1.25)
                    + w[second] * simd.splat(-0.75);
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
    settle(simd, points, blocks, &order, runs, 1e-7)
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

/// The order of each sub-block's values, ascending; equal values keep theirs.
#[inline(always)]
fn sort<const N: usize>(blocks: &SubBlocks<N>) -> [[u8; N]; LANES] {
    blocks.values.map(|values| {
        let mut order = std::array::from_fn(|i| i as u8);
        order.sort_by(|&a, &b| {
            // Zeros of either sign are equal, as adding zero makes them; NaN has some fixed place.
            let key = |i: u8| values[usize::from(i)] + 0.0;
            key(a).total_cmp(&key(b))
        });
        order
    })
}

/// The `j`th of the sorted values, and its weight.
#[inline(always)]
fn sorted<S: Simd, const N: usize>(
    simd: S,
    blocks: &SubBlocks<N>,
    order: &[[u8; N]; LANES],
    j: usize,
) -> (S::F, S::F) {
    let at = |lane: usize| usize::from(order[lane][j]);
    let values = std::array::from_fn(|lane| blocks.values[lane][at(lane)]);
    let weights = std::array::from_fn(|lane| blocks.weights[lane][at(lane)]);
    (simd.load(&values), simd.load(&weights))
}

/// Levels from runs, codebook entries from levels, and the scale that fits the entries.
#[inline(always)]
fn settle<S: Simd, const N: usize, const G: usize>(
    simd: S,
    points: &Points,
    blocks: &SubBlocks<N>,
    order: &[[u8; N]; LANES],
    mut runs: Runs<S::F, G>,
    zero_below: f32,
) -> (Found<G>, [u16; G]) {
    let zero = simd.splat(0.0);
    let mut scales = runs.scale.to_array();
    let borders = [runs.borders[0].to_array(), runs.borders[1].to_array()];
    let mut levels = [[0u8; N]; LANES];
    for lane in 0..LANES {
        let values = &blocks.values[lane];
        if values.iter().all(|x| x.abs() < zero_below) {
            runs.live &= !(1 << lane);
        }
        // A negative scale turns the levels around, and with them the shifts.
        let turned = scales[lane] < 0.0;
        for (j, &at) in order[lane].iter().enumerate() {
            let level =
                u8::from(j >= borders[0][lane] as usize) + u8::from(j >= borders[1][lane] as usize);
            levels[lane][usize::from(at)] = if turned { 2 - level } else { level };
        }
        if turned {
            scales[lane] = -scales[lane];
            for down in &mut runs.down {
                *down ^= 1 << lane;
            }
        }
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
        let number = |lane: usize| {
            let levels = &levels[lane].as_chunks::<8>().0[group];
            levels
                .iter()
                .rev()
                .fold(0, |number, &level| 3 * number + u32::from(level)) as f32
        };
        let numbers = simd.load(&std::array::from_fn(number));
        let choice = Shifted {
            simd,
            blocks,
            tables,
            scales: &scales,
            group,
            down: runs.down[group],
        };
        let (codes, held) = snap(points, numbers, runs.live, &choice);
        found.codes[group] = codes;
        absent |= runs.live & !held;
    }
    let (mut sum_xq, mut sum_qq) = (zero, zero);
    for group in 0..G {
        let codes = simd.load_codes(&found.codes[group]);
        let down: [f32; LANES] =
            std::array::from_fn(|lane| f32::from(runs.down[group] >> lane & 1));
        let down = simd.load(&down).gt(zero);
        for i in 0..8 {
            let (up_q, down_q) = (
                simd.pick(tables[0], codes, 2 * i),
                simd.pick(tables[1], codes, 2 * i),
            );
            let q = down_q.select(down, up_q);
            let at = 8 * group + i;
            let x = simd.load(&std::array::from_fn(|lane| blocks.values[lane][at]));
            let wq = simd.load(&std::array::from_fn(|lane| blocks.weights[lane][at])) * q;
            sum_xq = sum_xq + wq * x;
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

/// Chooses neighbours for a group of every lane.
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

impl<S: Simd, const N: usize> Choose for Shifted<'_, S, N> {
    #[inline(always)]
    fn choose(&self, lane: usize, candidates: &[[Code; LANES]]) -> Code {
        let table = self.tables[usize::from(self.down >> lane & 1)];
        let table = table * self.simd.splat(self.scales[lane]);
        let targets = &self.blocks.values[lane].as_chunks::<8>().0[self.group];
        let weights = &self.blocks.weights[lane].as_chunks::<8>().0[self.group];
        nearest::<S, 8, 2>(self.simd, candidates, table, targets, weights).0
    }
}
