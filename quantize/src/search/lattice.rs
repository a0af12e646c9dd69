//! ggml's search of a sub-block's scale and codebook points, sixteen sub-blocks in lanes.

use super::neighbours::{Groups, Two, digit_table, group_of_two, snap};
use super::points::{Code, Points};
use super::reference_positive;
use crate::simd::{Float, LANES, Mask, Simd, gather};

/// What differs between the types with lattice codebooks and separate signs.
pub(crate) struct Lattice {
    /// Levels of a coordinate: 3 or 8. The search takes level `l` for `2l + 1`.
    pub(crate) levels: i32,
    /// Candidates tried on either side of the scale that maps the largest value to the top level.
    pub(crate) steps: i32,
    /// Distance of candidates, in levels.
    pub(crate) step: f32,
    /// A sub-block without a value above this counts as zero.
    pub(crate) zero_below: f32,
    /// Where the search starts.
    pub(crate) start: Start,
    /// Which groups the last step quantizes again with the scale found.
    pub(crate) again: Again,
}

/// Where the search of a scale starts.
#[derive(PartialEq)]
pub(crate) enum Start {
    /// At the scale that maps the largest value to the top level.
    Extreme,
    /// At the best scale for independent levels.
    Independent,
}

/// Which groups are quantized again with the scale found.
#[derive(PartialEq)]
pub(crate) enum Again {
    /// Those whose levels are not a point of the codebook.
    Absent,
    /// All, if there is one whose levels are not; also if no candidate was accepted.
    AllIfAbsent,
    /// All.
    All,
}

/// Sixteen sub-blocks of `N` values in groups of `N / G`.
pub(crate) struct SubBlocks<const N: usize> {
    /// The values without their signs; one of a group may be negative.
    pub(crate) values: [[f32; N]; LANES],
    /// Their weights.
    pub(crate) weights: [[f32; N]; LANES],
}

/// What the search found, by lane.
pub(crate) struct Found<const G: usize> {
    /// The scales; negative where all signs turn around.
    pub(crate) scales: [f32; LANES],
    /// The sub-blocks that do not count as zero, by bit.
    pub(crate) live: u16,
    /// Codes of the codebook's points, by group and lane.
    pub(crate) codes: [[Code; LANES]; G],
}

/// Levels as the search sees them.
const ODD_3: [f32; LANES] = digit_table([1.0, 3.0, 5.0]);
const ODD_8: [f32; LANES] = digit_table([1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]);

/// ggml's choice of scales and points.
#[inline(always)]
pub(crate) fn reference_lattice<
    S,
    const N: usize,
    const G: usize,
    const D: usize,
    const BITS: usize,
>(
    simd: S,
    points: &Points,
    lattice: &Lattice,
    blocks: &SubBlocks<N>,
) -> Found<G>
where
    S: Simd,
{
    let zero = simd.splat(0.0);
    let odd = simd.load(if BITS == 2 { &ODD_3 } else { &ODD_8 });
    let x: [S::F; N] = gather(simd, |lane| &blocks.values[lane]);
    let w: [S::F; N] = gather(simd, |lane| &blocks.weights[lane]);
    let mut wx = x;
    let mut max = x[0];
    for i in 0..N {
        wx[i] = w[i] * x[i];
        max = x[i].max(max);
    }
    // Distances to neighbours are weighted by the roots, as ggml does.
    let roots = blocks.weights.map(|weights| weights.map(f32::sqrt));
    let top = (2 * lattice.levels - 1) as f32;

    let mut kept = Found {
        scales: [0.0; LANES],
        live: 0,
        codes: [[0; LANES]; G],
    };
    let mut live = !max.lt(simd.splat(lattice.zero_below));
    if lattice.zero_below == 0.0 {
        live = !max.eq(zero);
    }
    let (mut scale, mut reference) = (max / simd.splat(top), max);
    if lattice.start == Start::Independent {
        let mut levels = [zero; N];
        scale = reference_positive(simd, lattice.levels + 1, &x, &w, &mut levels);
        reference = scale * simd.splat(lattice.levels as f32);
        live = live & reference.gt(zero);
    }
    let active = live.bits();
    let mut held = [if lattice.again == Again::AllIfAbsent {
        0
    } else {
        u16::MAX
    }; G];
    let mut best = zero;

    let search = Search::<S, N, D, BITS> {
        simd,
        points,
        levels: lattice.levels,
        blocks,
        roots: &roots,
        x: &x,
        odd,
    };
    for step in -lattice.steps..=lattice.steps {
        let inverse = simd.splat(top + step as f32 * lattice.step) / reference;
        let this = (simd.splat(1.0) / inverse).to_array();
        let mut codes = [[0; LANES]; G];
        let mut now_held = [0; G];
        for group in 0..G {
            (codes[group], now_held[group]) = search.choose(group, &this, inverse, active);
        }
        let (sum_xq, sum_qq) = sums::<S, N, G, D, BITS>(simd, odd, &wx, &w, &codes);
        let better = live & sum_qq.gt(zero) & (sum_xq * sum_xq).gt(best * sum_qq);
        let bits = better.bits();
        if bits != 0 {
            scale = (sum_xq / sum_qq).select(better, scale);
            best = (scale * sum_xq).select(better, best);
            for (held, now) in held.iter_mut().zip(now_held) {
                *held = *held & !bits | now & bits;
            }
            for (kept, codes) in kept.codes.iter_mut().zip(&codes) {
                merge(kept, codes, bits);
            }
        }
    }

    let absent = held.iter().fold(0, |any, held| any | !held);
    let positive = (live & scale.gt(zero)).bits();
    let again = match lattice.again {
        Again::All => positive,
        Again::Absent | Again::AllIfAbsent => positive & absent,
    };
    if again != 0 {
        let inverse = simd.splat(1.0) / scale;
        let this = scale.to_array();
        for (group, held) in held.iter().enumerate() {
            let lanes = if lattice.again == Again::Absent {
                again & !held
            } else {
                again
            };
            let (codes, _) = search.choose(group, &this, inverse, lanes);
            merge(&mut kept.codes[group], &codes, lanes);
        }
        let (sum_xq, sum_qq) = sums::<S, N, G, D, BITS>(simd, odd, &wx, &w, &kept.codes);
        let (sum_xq, sum_qq) = (sum_xq.to_array(), sum_qq.to_array());
        let mut scales = scale.to_array();
        for lane in 0..LANES {
            if again >> lane & 1 == 1 && sum_qq[lane] > 0.0 {
                scales[lane] = sum_xq[lane] / sum_qq[lane];
            }
        }
        scale = simd.load(&scales);
    }
    kept.scales = scale.select(live, zero).to_array();
    kept.live = active;
    kept
}

/// Takes over the codes of some lanes.
#[inline(always)]
fn merge(into: &mut [Code; LANES], from: &[Code; LANES], lanes: u16) {
    for lane in 0..LANES {
        into[lane] = if lanes >> lane & 1 == 1 {
            from[lane]
        } else {
            into[lane]
        };
    }
}

/// `Σwxq` and `Σwqq` of sub-blocks, `q` from codes.
#[inline(always)]
fn sums<S: Simd, const N: usize, const G: usize, const D: usize, const BITS: usize>(
    simd: S,
    table: S::F,
    wx: &[S::F; N],
    w: &[S::F; N],
    codes: &[[Code; LANES]; G],
) -> (S::F, S::F) {
    let mut sum_xq = simd.splat(0.0);
    let mut sum_qq = sum_xq;
    for group in 0..G {
        let codes = simd.load_codes(&codes[group]);
        for i in 0..D {
            let q = simd.pick::<BITS>(table, codes, i);
            sum_xq = sum_xq + wx[D * group + i] * q;
            sum_qq = sum_qq + w[D * group + i] * q * q;
        }
    }
    (sum_xq, sum_qq)
}

/// What choosing codes needs.
struct Search<'a, S: Simd, const N: usize, const D: usize, const BITS: usize> {
    simd: S,
    points: &'a Points,
    levels: i32,
    blocks: &'a SubBlocks<N>,
    /// Square roots of the weights.
    roots: &'a [[f32; N]; LANES],
    x: &'a [S::F; N],
    odd: S::F,
}

impl<S: Simd, const N: usize, const D: usize, const BITS: usize> Search<'_, S, N, D, BITS> {
    /// The codes of a group for scales and their inverses, and the lanes whose levels are a point
    /// of the codebook.
    #[inline(always)]
    fn choose(
        &self,
        group: usize,
        scales: &[f32; LANES],
        inverse: S::F,
        active: u16,
    ) -> ([Code; LANES], u16) {
        let simd = self.simd;
        let (base, half, one) = (
            simd.splat(self.levels as f32),
            simd.splat(0.5),
            simd.splat(1.0),
        );
        let mut number = simd.splat(0.0);
        for i in (0..D).rev() {
            let level = half * (inverse * self.x[D * group + i] - one);
            number = number * base + level.nearest(0, self.levels - 1);
        }
        let groups = Group {
            search: self,
            scales,
            group,
        };
        snap::<S, _, D, BITS>(simd, self.points, number, active, &groups)
    }
}

/// A group of every lane.
struct Group<'a, S: Simd, const N: usize, const D: usize, const BITS: usize> {
    search: &'a Search<'a, S, N, D, BITS>,
    scales: &'a [f32; LANES],
    group: usize,
}

impl<S: Simd, const N: usize, const D: usize, const BITS: usize> Groups<S::F, D>
    for Group<'_, S, N, D, BITS>
{
    #[inline(always)]
    fn two(&self, lanes: [usize; 2]) -> Two<'_, S::F, D> {
        let Search { simd, blocks, .. } = *self.search;
        let [low, high] = lanes;
        Two {
            table: self.search.odd * simd.splat_halves(self.scales[low], self.scales[high]),
            targets: group_of_two(&blocks.values, lanes, self.group),
            weights: group_of_two(self.search.roots, lanes, self.group),
        }
    }
}
