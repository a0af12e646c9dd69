//! A search of codebook entries, shifts and scales of IQ1_S and IQ1_M that leaves less error than
//! ggml's, sixteen sub-blocks in lanes.

use super::lattice::SubBlocks;
use super::neighbours::{Groups, Two, digit_table, group_of_two, snap};
use super::points::{Code, Points};
use super::shifted::SHIFTED;
use crate::half::{f16_to_f32, f32_to_f16};
use crate::simd::{Float, LANES, Mask, Simd, gather};

/// A choice for sixteen sub-blocks of `G` codebook entries.
#[derive(Clone, Copy)]
pub(crate) struct Choice<const G: usize> {
    /// Codes of the entries.
    pub(crate) codes: [[Code; LANES]; G],
    /// Lanes whose entry is shifted down.
    pub(crate) down: [u16; G],
    /// Scale levels.
    pub(crate) levels: [u8; LANES],
}

/// Sub-blocks to improve.
pub(crate) struct Improve<'a, S: Simd, const N: usize> {
    pub(crate) simd: S,
    pub(crate) points: &'a Points,
    /// Values and weights.
    pub(crate) blocks: &'a SubBlocks<N>,
    /// Sub-blocks of a block: 8 or 16.
    pub(crate) subs: usize,
    /// Whether the entries of a sub-block have the shift in common.
    pub(crate) common_shift: bool,
}

/// Entries chosen for given scales and one shift, and how well each fits.
struct Fit<F, const G: usize> {
    codes: [[Code; LANES]; G],
    error: [F; G],
    sum_xq: [F; G],
    sum_qq: [F; G],
}

/// The best so far of each lane.
struct Best<const G: usize> {
    choice: Choice<G>,
    error: [f32; LANES],
    sum_xq: [f32; LANES],
    sum_qq: [f32; LANES],
}

impl<S: Simd, const N: usize> Improve<'_, S, N> {
    /// A better choice and the bits of each block's scale (one or two blocks), from the blocks'
    /// scales and levels in `start`.
    #[inline(always)]
    pub(crate) fn run<const G: usize>(
        &self,
        start: [f32; 2],
        levels: [u8; LANES],
    ) -> (Choice<G>, [u16; 2]) {
        const ROUNDS: [&[i8]; 2] = [&[0, -1, 1], &[0]];
        let simd = self.simd;
        let x: [S::F; N] = gather(simd, |lane| &self.blocks.values[lane]);
        let w: [S::F; N] = gather(simd, |lane| &self.blocks.weights[lane]);
        let mut bits = start.map(f32_to_f16);
        let mut best = Best {
            choice: Choice {
                codes: [[0; LANES]; G],
                down: [0; G],
                levels,
            },
            error: [0.0; LANES],
            sum_xq: [0.0; LANES],
            sum_qq: [0.0; LANES],
        };
        for steps in ROUNDS {
            let d = bits.map(f16_to_f32);
            let middle = best.choice.levels;
            best.error = [f32::INFINITY; LANES];
            for &step in steps {
                let levels = middle.map(|level| (level as i8 + step).clamp(0, 7) as u8);
                let scales: [f32; LANES] = std::array::from_fn(|lane| {
                    d[lane / self.subs] * f32::from(2 * levels[lane] + 1)
                });
                let up = self.fit::<G>(&x, &w, &scales, SHIFTED[0]);
                let down = self.fit::<G>(&x, &w, &scales, SHIFTED[1]);
                self.merge(&mut best, &up, &down, &levels);
            }
            // The blocks' scales that fit what was chosen.
            let mut total = [[0.0f32; 2]; 2];
            for lane in 0..LANES {
                let factor = f32::from(2 * best.choice.levels[lane] + 1);
                let total = &mut total[lane / self.subs];
                total[0] += best.sum_xq[lane] * factor;
                total[1] += best.sum_qq[lane] * factor * factor;
            }
            for block in 0..LANES / self.subs {
                if total[block][0] > 0.0 {
                    bits[block] = f32_to_f16(total[block][0] / total[block][1]);
                }
            }
        }
        (best.choice, bits)
    }

    /// Entries for given scales of the sub-blocks and a shift.
    #[inline(always)]
    fn fit<const G: usize>(
        &self,
        x: &[S::F; N],
        w: &[S::F; N],
        scales: &[f32; LANES],
        values: [f32; 3],
    ) -> Fit<S::F, G> {
        let simd = self.simd;
        let zero = simd.splat(0.0);
        let table = simd.load(&digit_table(values));
        let scale = simd.load(scales);
        let first = scale * simd.splat(0.5 * (values[0] + values[1]));
        let second = scale * simd.splat(0.5 * (values[1] + values[2]));
        let (one, three) = (simd.splat(1.0), simd.splat(3.0));
        let mut fit = Fit {
            codes: [[0; LANES]; G],
            error: [zero; G],
            sum_xq: [zero; G],
            sum_qq: [zero; G],
        };
        for group in 0..G {
            let mut number = zero;
            for i in (0..8).rev() {
                let x = x[8 * group + i];
                let digit = one.select(x.gt(first), zero) + one.select(x.gt(second), zero);
                number = number * three + digit;
            }
            let groups = Group {
                improve: self,
                table,
                scales,
                group,
            };
            (fit.codes[group], _) =
                snap::<S, _, 8, 2>(simd, self.points, number, u16::MAX, &groups);
            let codes = simd.load_codes(&fit.codes[group]);
            for i in 0..8 {
                let at = 8 * group + i;
                let q = simd.pick::<2>(table, codes, i);
                let difference = x[at] - scale * q;
                let wq = w[at] * q;
                fit.error[group] = fit.error[group] + w[at] * (difference * difference);
                fit.sum_xq[group] = fit.sum_xq[group] + wq * x[at];
                fit.sum_qq[group] = fit.sum_qq[group] + wq * q;
            }
        }
        fit
    }

    /// Takes over the lanes in which the better of two shifts is better than what was.
    #[inline(always)]
    fn merge<const G: usize>(
        &self,
        best: &mut Best<G>,
        up: &Fit<S::F, G>,
        down: &Fit<S::F, G>,
        levels: &[u8; LANES],
    ) {
        let zero = self.simd.splat(0.0);
        let (mut up_error, mut down_error) = (zero, zero);
        for group in 0..G {
            up_error = up_error + up.error[group];
            down_error = down_error + down.error[group];
        }
        let (mut error, mut sum_xq, mut sum_qq) = (zero, zero, zero);
        let mut downs = [0; G];
        for (group, downs) in downs.iter_mut().enumerate() {
            let is_down = if self.common_shift {
                down_error.lt(up_error)
            } else {
                down.error[group].lt(up.error[group])
            };
            *downs = is_down.bits();
            error = error + down.error[group].select(is_down, up.error[group]);
            sum_xq = sum_xq + down.sum_xq[group].select(is_down, up.sum_xq[group]);
            sum_qq = sum_qq + down.sum_qq[group].select(is_down, up.sum_qq[group]);
        }
        let better = error.lt(self.simd.load(&best.error)).bits();
        let (error, sum_xq, sum_qq) = (error.to_array(), sum_xq.to_array(), sum_qq.to_array());
        for lane in 0..LANES {
            if better >> lane & 1 == 0 {
                continue;
            }
            best.error[lane] = error[lane];
            best.sum_xq[lane] = sum_xq[lane];
            best.sum_qq[lane] = sum_qq[lane];
            best.choice.levels[lane] = levels[lane];
            for (group, downs) in downs.iter().enumerate() {
                let is_down = downs >> lane & 1;
                let from = if is_down == 1 { down } else { up };
                best.choice.codes[group][lane] = from.codes[group][lane];
                best.choice.down[group] = best.choice.down[group] & !(1 << lane) | is_down << lane;
            }
        }
    }
}

/// A group of every lane.
struct Group<'a, S: Simd, const N: usize> {
    improve: &'a Improve<'a, S, N>,
    table: S::F,
    scales: &'a [f32; LANES],
    group: usize,
}

impl<S: Simd, const N: usize> Groups<S::F, 8> for Group<'_, S, N> {
    #[inline(always)]
    fn two(&self, lanes: [usize; 2]) -> Two<'_, S::F, 8> {
        let Improve { simd, blocks, .. } = *self.improve;
        let [low, high] = lanes;
        Two {
            table: self.table * simd.splat_halves(self.scales[low], self.scales[high]),
            targets: group_of_two(&blocks.values, lanes, self.group),
            weights: group_of_two(&blocks.weights, lanes, self.group),
        }
    }
}
