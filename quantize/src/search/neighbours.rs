//! The nearest point of a codebook for a group of four or eight weights.

use super::points::{Code, Points};
use crate::simd::{Float, LANES, Mask, Simd};

/// A table for [`Simd::pick`] from the values of the digits: two-bit digits are picked by three
/// bits, of which the third is the next digit's.
#[inline(always)]
pub(crate) const fn digit_table<const K: usize>(values: [f32; K]) -> [f32; LANES] {
    let mut table = [0.0; LANES];
    let mut i = 0;
    while i < LANES {
        // Digit 3 of two bits does not occur.
        let digit = if K == 8 { i % 8 } else { i % 4 };
        table[i] = values[if digit < K { digit } else { K - 1 }];
        i += 1;
    }
    table
}

/// The choice among the neighbours of an absent point.
pub(crate) trait Choose {
    /// For the group in `lane`. Must be `#[inline(always)]`.
    fn choose(&self, lane: usize, candidates: &[[Code; LANES]]) -> Code;
}

/// The codes at lattice points, given by their numbers in lanes: a point of the codebook stands for
/// itself, for another a neighbour is chosen. Only lanes in `active` are looked
/// at. Gives the codes and the lanes whose points were in the codebook.
#[inline(always)]
pub(crate) fn snap<F: Float, C: Choose>(
    points: &Points,
    numbers: F,
    active: u16,
    choice: &C,
) -> ([Code; LANES], u16) {
    let numbers = numbers.to_i32();
    let mut codes = [0; LANES];
    let mut held = 0;
    // Without branches, which could not be foreseen.
    for lane in 0..LANES {
        let site = points.site(numbers[lane] as usize);
        codes[lane] = site.code * (active >> lane & 1);
        held |= u16::from(site.is_held()) << lane;
    }
    let mut rest = active & !held;
    while rest != 0 {
        let lane = rest.trailing_zeros() as usize % LANES;
        rest &= rest - 1;
        let candidates = points.neighbours(points.site(numbers[lane] as usize));
        codes[lane] = choice.choose(lane, candidates);
    }
    (codes, held & active)
}

/// The first of `candidates` for which `Σ weights·(value - target)²` is least; `table` gives the
/// values of the digits, which are `BITS` wide.
#[inline(always)]
pub(crate) fn nearest<S: Simd, const D: usize, const BITS: usize>(
    simd: S,
    candidates: &[[Code; LANES]],
    table: S::F,
    targets: &[f32; D],
    weights: &[f32; D],
) -> (Code, f32) {
    // What each digit of each coordinate costs; a candidate's distance is a sum of these.
    let mut costs = [table; D];
    for i in 0..D {
        let difference = table - simd.splat(targets[i]);
        costs[i] = simd.splat(weights[i]) * difference * difference;
    }
    if let [codes] = candidates {
        let distance = distances::<S, D, BITS>(simd, &costs, codes);
        let least = distance.least();
        let lane = distance.eq(simd.splat(least)).bits().trailing_zeros();
        return (codes[lane as usize % LANES], least);
    }
    let mut best = simd.splat(f32::MAX);
    let mut place = simd.splat(0.0);
    for (at, codes) in candidates.iter().enumerate() {
        let distance = distances::<S, D, BITS>(simd, &costs, codes);
        let nearer = distance.lt(best);
        best = distance.select(nearer, best);
        place = simd.splat(at as f32).select(nearer, place);
    }
    let least = best.least();
    let tied = best.eq(simd.splat(least));
    // Earlier vectors come first in the list; within a vector, lower lanes.
    let at = place.select(tied, simd.splat(f32::MAX)).least();
    let lane = (tied & place.eq(simd.splat(at))).bits().trailing_zeros();
    let codes = candidates.get(at as usize).unwrap_or(&candidates[0]);
    (codes[lane as usize % LANES], least)
}

/// The sums of what the digits of sixteen candidates cost.
#[inline(always)]
fn distances<S: Simd, const D: usize, const BITS: usize>(
    simd: S,
    costs: &[S::F; D],
    codes: &[Code; LANES],
) -> S::F {
    let codes = simd.load_codes(codes);
    let mut distance = simd.pick(costs[0], codes, 0);
    for (i, &cost) in costs.iter().enumerate().skip(1) {
        distance = distance + simd.pick(cost, codes, BITS * i);
    }
    distance
}
