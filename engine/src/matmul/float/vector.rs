//! The kernels of both vector widths.
//!
//! The tile kernel keeps two vectors of rows for several tokens; for each value there are two loads
//! of weights and a broadcast load for every two multiply-adds. (`vdpbf16ps` is slower than this on
//! Intel's cores, and rounds activations.)

use std::ops::Range;

use super::super::lanes::prefetch;
use super::super::{PANEL_ROWS, RowSums};
use super::panel::{Panel, Tile, Tiles};
use super::{STRANDS, Stored};

/// A vector of f32.
///
/// # Safety
/// All of these need a CPU with the vector's instruction set, and [`LANES`](Self::LANES) values (a
/// stored f16 or bf16 has two bytes) behind each pointer.
pub(super) trait Vector: Copy {
    const LANES: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(values: *const f32) -> Self;
    unsafe fn load_f16(values: *const u8) -> Self;
    unsafe fn load_bf16(values: *const u8) -> Self;
    unsafe fn store(self, values: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    /// `self * factor + sum`, rounded once.
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self;
    /// Transposes as many vectors as there are lanes.
    unsafe fn transpose(rows: &mut [Self]);
}

/// How weights are stored and loaded.
trait Load {
    const BYTES: usize;
    /// # Safety
    /// As [`Vector`].
    unsafe fn load<V: Vector>(weights: *const u8) -> V;
}

struct F32;
struct F16;
struct Bf16;

impl Load for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<V: Vector>(weights: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load(weights.cast()) }
    }
}

impl Load for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<V: Vector>(weights: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_f16(weights) }
    }
}

impl Load for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<V: Vector>(weights: *const u8) -> V {
        // SAFETY: the caller's promise.
        unsafe { V::load_bf16(weights) }
    }
}

/// The product of a stored row and a token; `VECTORS` hold the strands.
///
/// # Safety
/// The CPU must have the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn dot<V: Vector, const VECTORS: usize>(
    stored: Stored,
    row: &[u8],
    x: &[f32],
) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        match stored {
            Stored::F32 => dot_of::<V, F32, VECTORS>(row, x),
            Stored::F16 => dot_of::<V, F16, VECTORS>(row, x),
            Stored::Bf16 => dot_of::<V, Bf16, VECTORS>(row, x),
        }
    }
}

/// # Safety
/// The CPU must have the instruction set of `V`.
#[inline(always)]
unsafe fn dot_of<V: Vector, T: Load, const VECTORS: usize>(row: &[u8], x: &[f32]) -> f32 {
    assert_eq!(row.len(), x.len() * T::BYTES);
    assert_eq!(VECTORS * V::LANES, STRANDS);
    // SAFETY: the caller's promise.
    let mut acc = [unsafe { V::splat(0.0) }; VECTORS];
    let mut step = |weights: &[u8], x: &[f32; STRANDS]| {
        assert_eq!(weights.len(), STRANDS * T::BYTES);
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: there are 32 weights and 32 activations, which the vectors make.
            unsafe {
                let weights = T::load::<V>(weights.as_ptr().add(i * V::LANES * T::BYTES));
                *acc = weights.mul_add(V::load(x.as_ptr().add(i * V::LANES)), *acc);
            }
        }
    };
    let whole = row.chunks_exact(STRANDS * T::BYTES);
    let (x, x_rest) = x.as_chunks::<STRANDS>();
    let row_rest = whole.remainder();
    for (weights, x) in whole.zip(x) {
        prefetch(weights, STRANDS * T::BYTES);
        step(weights, x);
    }
    if !x_rest.is_empty() {
        let (mut weights, mut x) = ([0; STRANDS * 4], [0.0; STRANDS]);
        weights[..row_rest.len()].copy_from_slice(row_rest);
        x[..x_rest.len()].copy_from_slice(x_rest);
        step(&weights[..STRANDS * T::BYTES], &x);
    }
    let mut strands = [0.0f32; STRANDS];
    for (strands, acc) in strands.chunks_exact_mut(V::LANES).zip(acc) {
        // SAFETY: a vector's values are writable.
        unsafe { acc.store(strands.as_mut_ptr()) };
    }
    strands.iter().sum()
}

/// Interleaves at most 32 rows of `cols` values; `LANES` are those of `V`.
///
/// # Safety
/// The CPU must have the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn pack<V: Vector, const LANES: usize>(
    rows: &[f32],
    cols: usize,
    panel: &mut Panel,
) {
    assert!(LANES == V::LANES && PANEL_ROWS.is_multiple_of(LANES));
    panel.resize(cols);
    let steps = panel.steps;
    // SAFETY: the caller's promise.
    let zero = unsafe { V::splat(0.0) };
    for first in (0..PANEL_ROWS).step_by(LANES) {
        // A last step may end within a vector: what is behind it is zero, like rows that do not exist.
        for column in (0..steps * STRANDS).step_by(LANES) {
            let mut v = [zero; LANES];
            for (v, row) in v.iter_mut().zip(rows.chunks_exact(cols).skip(first)) {
                let values = row.get(column..).unwrap_or_default();
                // SAFETY: a vector's values are readable.
                *v = unsafe {
                    match values.get(..LANES) {
                        Some(values) => V::load(values.as_ptr()),
                        None => {
                            let mut padded = [0.0; LANES];
                            padded[..values.len()].copy_from_slice(values);
                            V::load(padded.as_ptr())
                        }
                    }
                };
            }
            // SAFETY: the caller's promise.
            unsafe { V::transpose(&mut v) };
            for (i, v) in v.into_iter().enumerate() {
                let strand = (column + i) % STRANDS;
                let line = &mut panel.lines[strand * steps + column / STRANDS];
                // SAFETY: a vector's values are writable.
                unsafe { v.store(line.0[first..][..LANES].as_mut_ptr()) };
            }
        }
    }
}

/// Adds some strands of the products of a panel and tile `i` of tokens to the sums of its tokens.
/// `FULL` is the number of tokens for which the registers hold two vectors of sums.
///
/// # Safety
/// The CPU must have the instruction set of `V`.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const FULL: usize>(
    panel: &Panel,
    tiles: &Tiles,
    i: usize,
    strands: Range<usize>,
    sums: &mut [RowSums],
) {
    let x = tiles.tile(i);
    assert_eq!(sums.len(), x.tokens);
    for (i, sums) in sums.chunks_mut(FULL).enumerate() {
        for row in (0..PANEL_ROWS).step_by(2 * V::LANES) {
            let (from, strands) = ((i * FULL, row), strands.clone());
            // SAFETY: the caller's promise.
            unsafe {
                match sums.len() {
                    1 => part::<V, 1>(panel, x, from, strands, sums),
                    2 => part::<V, 2>(panel, x, from, strands, sums),
                    3 => part::<V, 3>(panel, x, from, strands, sums),
                    4 => part::<V, 4>(panel, x, from, strands, sums),
                    5 => part::<V, 5>(panel, x, from, strands, sums),
                    6 if FULL > 6 => part::<V, 6>(panel, x, from, strands, sums),
                    7 if FULL > 7 => part::<V, 7>(panel, x, from, strands, sums),
                    8 if FULL > 8 => part::<V, 8>(panel, x, from, strands, sums),
                    9 if FULL > 9 => part::<V, 9>(panel, x, from, strands, sums),
                    10 if FULL > 10 => part::<V, 10>(panel, x, from, strands, sums),
                    11 if FULL > 11 => part::<V, 11>(panel, x, from, strands, sums),
                    _ => part::<V, FULL>(panel, x, from, strands, sums),
                }
            }
        }
    }
}

/// The part of [`tile`] for `N` tokens and two vectors of rows from a token and a row.
///
/// # Safety
/// The CPU must have the instruction set of `V`.
#[inline(always)]
unsafe fn part<V: Vector, const N: usize>(
    panel: &Panel,
    x: &Tile,
    (token, row): (usize, usize),
    strands: Range<usize>,
    sums: &mut [RowSums],
) {
    let steps = panel.steps;
    assert!(sums.len() == N && token + N <= x.tokens && row + 2 * V::LANES <= PANEL_ROWS);
    assert!(strands.end <= STRANDS && panel.lines.len() >= strands.end * steps);
    assert!(x.values.len() >= strands.end * steps * x.tokens);
    for strand in strands {
        // SAFETY: the caller's promise.
        let zero = unsafe { V::splat(0.0) };
        let mut acc = [[zero; N]; 2];
        for step in strand * steps..(strand + 1) * steps {
            // SAFETY: step is below the number of lines checked above, row and token below theirs.
            unsafe {
                let weights = panel.lines.as_ptr().add(step).cast::<f32>().add(row);
                let (w0, w1) = (V::load(weights), V::load(weights.add(V::LANES)));
                let x = x.values.as_ptr().add(step * x.tokens + token);
                for t in 0..N {
                    let x = V::splat(*x.add(t));
                    acc[0][t] = w0.mul_add(x, acc[0][t]);
                    acc[1][t] = w1.mul_add(x, acc[1][t]);
                }
            }
        }
        for t in 0..N {
            for v in 0..2 {
                let sum = sums[t][row + v * V::LANES..][..V::LANES].as_mut_ptr();
                // SAFETY: a vector's values are readable and writable.
                unsafe { V::load(sum).add(acc[v][t]).store(sum) };
            }
        }
    }
}
