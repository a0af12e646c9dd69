//! What the K types share: super-blocks of 256 values, cut into sub-blocks with a scale (and a
//! minimum) each, which are themselves quantized to integers.
//!
//! Sixteen super-blocks are encoded together: their sub-blocks are searched sixteen at a time, one
//! a lane, and so are then their scales.

mod affine;
mod symmetric;

use std::array::from_fn;

pub(crate) use affine::{Affine, PlainWeight, encode_affine};
pub(crate) use symmetric::{Symmetric, encode_symmetric};

use super::Rows;
use crate::simd::{LANES, Simd, gather};

/// Values in a super-block.
const N: usize = 256;

/// Up to sixteen consecutive super-blocks of the rows, cut into sub-blocks of `SUB` values.
struct Batch<'a, const SUB: usize> {
    /// The sub-blocks of all rows.
    values: &'a [[f32; SUB]],
    /// The sub-blocks of the importance.
    importance: Option<&'a [[f32; SUB]]>,
    /// Index of the first super-block.
    first: usize,
    /// Number of super-blocks, at most [`LANES`].
    len: usize,
}

impl<'a, const SUB: usize> Batch<'a, SUB> {
    /// Sub-blocks in a super-block.
    const SUBS: usize = N / SUB;

    fn new(rows: &Rows<'a>, first: usize, len: usize) -> Self {
        let values = rows.values.as_chunks().0;
        let importance = rows.importance.map(|importance| importance.as_chunks().0);
        Self {
            values,
            importance,
            first,
            len,
        }
    }

    /// Number of groups of sixteen sub-blocks, the last one perhaps not full.
    fn groups(&self) -> usize {
        (self.len * Self::SUBS).div_ceil(LANES)
    }

    /// Index in `values` of a lane's sub-block; the last one stands in where there is none.
    #[inline(always)]
    fn index(&self, group: usize, lane: usize) -> usize {
        self.first * Self::SUBS + (group * LANES + lane).min(self.len * Self::SUBS - 1)
    }

    /// The values of a group.
    #[inline(always)]
    fn values<S: Simd>(&self, simd: S, group: usize) -> [S::F; SUB] {
        gather(simd, |lane| &self.values[self.index(group, lane)])
    }

    /// The importance of a group.
    #[inline(always)]
    fn importance<S: Simd>(&self, simd: S, group: usize) -> Option<[S::F; SUB]> {
        let importance = self.importance?;
        let of = |lane| &importance[self.index(group, lane) % importance.len()];
        Some(gather(simd, of))
    }

    /// The values of a super-block.
    #[inline(always)]
    fn super_block(&self, i: usize) -> &'a [[f32; SUB]] {
        &self.values[(self.first + i) * Self::SUBS..][..Self::SUBS]
    }

    /// Mean square of each super-block, summed in order, times `factor`.
    #[inline(always)]
    fn mean_squares(&self, factor: f32) -> [f32; LANES] {
        let blocks: [&[f32]; LANES] =
            from_fn(|i| self.super_block(i.min(self.len - 1)).as_flattened());
        let mut sums = [0.0; LANES];
        for e in 0..N {
            for (sum, block) in sums.iter_mut().zip(blocks) {
                *sum += block[e] * block[e];
            }
        }
        sums.map(|sum| factor * sum / N as f32)
    }

    /// Lane values that belong to the lanes' super-blocks.
    #[inline(always)]
    fn by_super_block<S: Simd>(&self, simd: S, group: usize, of: &[f32; LANES]) -> S::F {
        simd.load(&from_fn(|lane| {
            of[(group * LANES + lane) / Self::SUBS % LANES]
        }))
    }

    /// Where a lane's sub-block lies: its super-block in the batch, and its place there.
    #[inline(always)]
    fn place(group: usize, lane: usize) -> (usize, usize) {
        let index = group * LANES + lane;
        (index / Self::SUBS, index % Self::SUBS)
    }
}
