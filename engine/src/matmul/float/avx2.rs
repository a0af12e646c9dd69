//! AVX2 with FMA: as the AVX-512 kernels, on 8 lanes.
//!
//! The tile kernel takes 16 rows x at most 6 tokens at a time: 12 accumulators, two vectors of
//! weights and one broadcast fill 15 of 16 registers.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::{PANEL_ROWS, RowSums};
use super::panel::{Panel, Tile, Tiles};
use super::{Blocked, Kernels, STRANDS, Stored};

/// Tokens whose sums the registers hold.
const WIDTH: usize = 6;

pub(super) const KERNELS: Kernels = Kernels {
    // SAFETY: `super::kernels` asserts that the CPU has AVX2, FMA and F16C.
    dot: |stored, row, x| unsafe { dot_of_any_type(stored, row, x) },
    blocked: Some(Blocked {
        pack,
        // SAFETY: `super::kernels` asserts that the CPU has AVX2, FMA and F16C.
        tile: |panel, tiles, i, strands, sums| unsafe { tile(panel, tiles, i, strands, sums) },
    }),
};

/// Eight weights as f32.
trait Load {
    const BYTES: usize;
    /// # Safety
    /// 8 weights must be readable, and the CPU have AVX2 and F16C.
    unsafe fn load(weights: *const u8) -> __m256;
}

struct F32;
struct F16;
struct Bf16;

impl Load for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(weights.cast()) }
    }
}

impl Load for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(weights.cast())) }
    }
}

impl Load for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(weights.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_of_any_type(stored: Stored, row: &[u8], x: &[f32]) -> f32 {
    match stored {
        Stored::F32 => dot::<F32>(row, x),
        Stored::F16 => dot::<F16>(row, x),
        Stored::Bf16 => dot::<Bf16>(row, x),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot<T: Load>(row: &[u8], x: &[f32]) -> f32 {
    assert_eq!(row.len(), x.len() * T::BYTES);
    let mut acc = [_mm256_setzero_ps(); 4];
    let mut step = |weights: &[u8], x: &[f32; STRANDS]| {
        assert_eq!(weights.len(), STRANDS * T::BYTES);
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: there are 32 weights and 32 activations; i < 4.
            unsafe {
                let weights = T::load(weights.as_ptr().add(i * 8 * T::BYTES));
                *acc = _mm256_fmadd_ps(weights, _mm256_loadu_ps(x.as_ptr().add(8 * i)), *acc);
            }
        }
    };
    let whole = row.chunks_exact(STRANDS * T::BYTES);
    let (x, x_rest) = x.as_chunks::<STRANDS>();
    let row_rest = whole.remainder();
    whole.zip(x).for_each(|(weights, x)| step(weights, x));
    if !x_rest.is_empty() {
        let (mut weights, mut x) = ([0; STRANDS * 4], [0.0; STRANDS]);
        weights[..row_rest.len()].copy_from_slice(row_rest);
        x[..x_rest.len()].copy_from_slice(x_rest);
        step(&weights[..STRANDS * T::BYTES], &x);
    }
    let mut strands = [0.0f32; STRANDS];
    for (i, acc) in acc.into_iter().enumerate() {
        // SAFETY: eight values are writable.
        unsafe { _mm256_storeu_ps(strands[8 * i..][..8].as_mut_ptr(), acc) };
    }
    strands.iter().sum()
}

/// Interleaves at most 32 rows of `cols` values.
fn pack(rows: &[f32], cols: usize, panel: &mut Panel) {
    panel.resize(cols);
    let steps = panel.steps;
    panel
        .lines
        .iter_mut()
        .for_each(|line| line.0 = [0.0; PANEL_ROWS]);
    for (r, row) in rows.chunks_exact(cols).enumerate() {
        for (step, values) in row.chunks(STRANDS).enumerate() {
            for (strand, &value) in values.iter().enumerate() {
                panel.lines[strand * steps + step].0[r] = value;
            }
        }
    }
}

/// Adds some strands of the products of a panel and a tile of tokens to the sums of its tokens.
#[target_feature(enable = "avx2,fma,f16c")]
fn tile(panel: &Panel, tiles: &Tiles, i: usize, strands: Range<usize>, sums: &mut [RowSums]) {
    let x = tiles.tile(i);
    assert_eq!(sums.len(), x.tokens);
    for (i, sums) in sums.chunks_mut(WIDTH).enumerate() {
        let first = i * WIDTH;
        for rows in [0, 16] {
            let strands = strands.clone();
            match sums.len() {
                1 => part::<1>(panel, x, first, rows, strands, sums),
                2 => part::<2>(panel, x, first, rows, strands, sums),
                3 => part::<3>(panel, x, first, rows, strands, sums),
                4 => part::<4>(panel, x, first, rows, strands, sums),
                5 => part::<5>(panel, x, first, rows, strands, sums),
                _ => part::<WIDTH>(panel, x, first, rows, strands, sums),
            }
        }
    }
}

/// The part of [`tile`] for 16 rows from `row` and `N` tokens from `token`.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn part<const N: usize>(
    panel: &Panel,
    x: &Tile,
    token: usize,
    row: usize,
    strands: Range<usize>,
    sums: &mut [RowSums],
) {
    let steps = panel.steps;
    assert!(token + N <= x.tokens && row + 16 <= PANEL_ROWS && strands.end <= STRANDS);
    assert!(panel.lines.len() >= strands.end * steps);
    assert!(x.values.len() >= strands.end * steps * x.tokens);
    for strand in strands {
        let mut acc = [[_mm256_setzero_ps(); N]; 2];
        for step in strand * steps..(strand + 1) * steps {
            // SAFETY: step is below the number of lines checked above, row and token below theirs.
            unsafe {
                let weights: *const f32 = panel.lines.as_ptr().add(step).cast();
                let w0 = _mm256_load_ps(weights.add(row));
                let w1 = _mm256_load_ps(weights.add(row + 8));
                let x = x.values.as_ptr().add(step * x.tokens + token);
                for t in 0..N {
                    let x = _mm256_set1_ps(*x.add(t));
                    acc[0][t] = _mm256_fmadd_ps(w0, x, acc[0][t]);
                    acc[1][t] = _mm256_fmadd_ps(w1, x, acc[1][t]);
                }
            }
        }
        for t in 0..N {
            for v in 0..2 {
                let sum = sums[t][row + 8 * v..][..8].as_mut_ptr();
                // SAFETY: eight values are readable and writable.
                unsafe { _mm256_storeu_ps(sum, _mm256_add_ps(_mm256_loadu_ps(sum), acc[v][t])) };
            }
        }
    }
}
