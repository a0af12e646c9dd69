//! The nearest point of a codebook for a group of four or eight weights.

use super::points::{Code, Eight, Points};
use crate::simd::{Float, HALF, LANES, Mask, Simd};

/// A table for [`Simd::pick`] from the values of the digits.
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

/// Two groups of `D` values, each in search of the neighbour for which `Σ weights·(value - target)²` is
/// least.
pub(crate) struct Two<'a, F, const D: usize> {
    /// What the digits stand for, by halves of the vector.
    pub(crate) table: F,
    pub(crate) targets: [&'a [f32; D]; 2],
    pub(crate) weights: [&'a [f32; D]; 2],
}

/// The groups of sixteen sub-blocks, one a lane.
pub(crate) trait Groups<F, const D: usize> {
    /// Those of two lanes, which may be the same one. Must be `#[inline(always)]`.
    fn two(&self, lanes: [usize; 2]) -> Two<'_, F, D>;
}

/// The codes at lattice points, given by their numbers in lanes: a point of the codebook stands for
/// itself, for another the best neighbour for the lane's group is taken. Only lanes in `active` are looked
/// at. Gives the codes and the lanes whose points were in the codebook. Digits are `BITS` wide.
#[inline(always)]
pub(crate) fn snap<S, G, const D: usize, const BITS: usize>(
    simd: S,
    points: &Points,
    numbers: S::F,
    active: u16,
    groups: &G,
) -> ([Code; LANES], u16)
where
    S: Simd,
    G: Groups<S::F, D>,
{
    let numbers = numbers.to_i32();
    let mut codes = [0; LANES];
    let (mut held, mut short) = (0, 0);
    // Without branches, which could not be foreseen.
    for lane in 0..LANES {
        let site = points.site(numbers[lane] as usize);
        codes[lane] = site.code * (active >> lane & 1);
        held |= u16::from(site.is_held()) << lane;
        short |= u16::from(site.has_few_neighbours()) << lane;
    }
    // For the same reason those with few neighbours are dealt with by themselves.
    let mut rest = active & short;
    while let Some(lanes) = take_two(&mut rest) {
        let [low, high] = lists(points, &numbers, lanes);
        let few = [part(low, 0), part(high, 0)];
        let found = groups.two(lanes).nearest_of_few::<S, BITS>(simd, few);
        [codes[lanes[0]], codes[lanes[1]]] = found;
    }
    let mut rest = active & !held & !short;
    while let Some(lanes) = take_two(&mut rest) {
        let lists = lists(points, &numbers, lanes);
        let found = groups.two(lanes).nearest::<S, BITS>(simd, lists);
        [codes[lanes[0]], codes[lanes[1]]] = found;
    }
    (codes, held & active)
}

/// Group `group` of `D` values in either of two lanes.
#[inline(always)]
pub(crate) fn group_of_two<const N: usize, const D: usize>(
    values: &[[f32; N]; LANES],
    [low, high]: [usize; 2],
    group: usize,
) -> [&[f32; D]; 2] {
    [
        &values[low].as_chunks().0[group],
        &values[high].as_chunks().0[group],
    ]
}

/// The neighbours of the points in two lanes.
#[inline(always)]
fn lists<'a>(points: &'a Points, numbers: &[i32; LANES], lanes: [usize; 2]) -> [&'a [Eight]; 2] {
    let [low, high] = [numbers[lanes[0]] as usize, numbers[lanes[1]] as usize];
    [
        points.neighbours(points.site(low)),
        points.neighbours(points.site(high)),
    ]
}

/// Takes away two lanes; the last of an odd number comes twice.
#[inline(always)]
fn take_two(lanes: &mut u16) -> Option<[usize; 2]> {
    if *lanes == 0 {
        return None;
    }
    let first = lanes.trailing_zeros() as usize % LANES;
    *lanes &= *lanes - 1;
    let second = match *lanes {
        0 => first,
        _ => lanes.trailing_zeros() as usize % LANES,
    };
    *lanes &= lanes.wrapping_sub(1);
    Some([first, second])
}

impl<F: Float, const D: usize> Two<'_, F, D> {
    /// What each digit of each coordinate costs; a candidate's distance is a sum of these.
    #[inline(always)]
    fn costs<S: Simd<F = F>>(&self, simd: S) -> [F; D] {
        let mut costs = [self.table; D];
        for (i, cost) in costs.iter_mut().enumerate() {
            let difference = *cost - simd.splat_halves(self.targets[0][i], self.targets[1][i]);
            let weight = simd.splat_halves(self.weights[0][i], self.weights[1][i]);
            *cost = weight * difference * difference;
        }
        costs
    }

    /// The first of the nearest of up to eight neighbours each.
    #[inline(always)]
    fn nearest_of_few<S: Simd<F = F>, const BITS: usize>(
        &self,
        simd: S,
        [low, high]: [&Eight; 2],
    ) -> [Code; 2] {
        let distance = distances::<S, D, BITS>(simd, &self.costs(simd), low, high);
        let nearest = distance.eq(distance.least_of_half()).bits();
        [
            low[nearest.trailing_zeros() as usize % HALF],
            high[(nearest >> HALF).trailing_zeros() as usize % HALF],
        ]
    }

    /// The first of the nearest in each list.
    #[inline(always)]
    fn nearest<S: Simd<F = F>, const BITS: usize>(
        &self,
        simd: S,
        [low, high]: [&[Eight]; 2],
    ) -> [Code; 2] {
        let costs = self.costs(simd);
        let mut best = simd.splat(f32::MAX);
        let mut place = simd.splat(0.0);
        for at in 0..low.len().max(high.len()) {
            // The shorter list goes on with its last part, which changes nothing.
            let (low, high) = (part(low, at), part(high, at));
            let distance = distances::<S, D, BITS>(simd, &costs, low, high);
            let nearer = distance.lt(best);
            best = distance.select(nearer, best);
            place = simd.splat(at as f32).select(nearer, place);
        }
        let tied = best.eq(best.least_of_half());
        // Earlier parts come first in a list; within a part, lower lanes.
        let first = place.select(tied, simd.splat(f32::MAX)).least_of_half();
        let nearest = (tied & place.eq(first)).bits();
        let first = first.to_array();
        [
            part(low, first[0] as usize)[nearest.trailing_zeros() as usize % HALF],
            part(high, first[HALF] as usize)[(nearest >> HALF).trailing_zeros() as usize % HALF],
        ]
    }
}

/// Part `at` of a list, or the last one.
#[inline(always)]
fn part(list: &[Eight], at: usize) -> &Eight {
    list.get(at).or(list.last()).unwrap_or(&[0; HALF])
}

/// The sums of what the digits of sixteen candidates cost, eight of either list.
#[inline(always)]
fn distances<S: Simd, const D: usize, const BITS: usize>(
    simd: S,
    costs: &[S::F; D],
    low: &Eight,
    high: &Eight,
) -> S::F {
    let codes = simd.load_code_halves(low, high);
    let mut distance = simd.pick::<BITS>(costs[0], codes, 0);
    for (i, &cost) in costs.iter().enumerate().skip(1) {
        distance = distance + simd.pick::<BITS>(cost, codes, i);
    }
    distance
}
