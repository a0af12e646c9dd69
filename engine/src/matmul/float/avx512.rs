//! AVX-512: fused multiply-add on 16 lanes.
//!
//! The tile kernel keeps 32 rows x 12 tokens in 24 accumulators; for each value there are two
//! loads of weights and 12 broadcast loads for 24 multiply-adds. (`vdpbf16ps` is slower than this
//! on Intel's cores, and rounds activations.)

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::{PANEL_ROWS, RowSums, lanes::transpose_16x16};
use super::panel::{Panel, TILE_TOKENS, Tile, Tiles};
use super::{Blocked, Kernels, STRANDS, Stored};

pub(super) const KERNELS: Kernels = Kernels {
    // SAFETY: `super::kernels` asserts that the CPU has AVX-512.
    dot: |stored, row, x| unsafe { dot_of_any_type(stored, row, x) },
    blocked: Some(Blocked {
        // SAFETY: `super::kernels` asserts that the CPU has AVX-512.
        pack: |rows, cols, panel| unsafe { pack(rows, cols, panel) },
        // SAFETY: `super::kernels` asserts that the CPU has AVX-512.
        tile: |panel, tiles, i, strands, sums| unsafe {
            tile_of_any_width(panel, tiles, i, strands, sums);
        },
    }),
};

/// Sixteen weights as f32.
trait Load {
    const BYTES: usize;
    /// # Safety
    /// 16 weights must be readable, and the CPU have AVX-512.
    unsafe fn load(weights: *const u8) -> __m512;
}

struct F32;
struct F16;
struct Bf16;

impl Load for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(weights.cast()) }
    }
}

impl Load for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(weights.cast())) }
    }
}

impl Load for Bf16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load(weights: *const u8) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(weights.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn dot_of_any_type(stored: Stored, row: &[u8], x: &[f32]) -> f32 {
    match stored {
        Stored::F32 => dot::<F32>(row, x),
        Stored::F16 => dot::<F16>(row, x),
        Stored::Bf16 => dot::<Bf16>(row, x),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn dot<T: Load>(row: &[u8], x: &[f32]) -> f32 {
    assert_eq!(row.len(), x.len() * T::BYTES);
    let mut acc = [_mm512_setzero_ps(); 2];
    let mut step = |weights: &[u8], x: &[f32; STRANDS]| {
        assert_eq!(weights.len(), STRANDS * T::BYTES);
        for (i, acc) in acc.iter_mut().enumerate() {
            // SAFETY: there are 32 weights and 32 activations; i < 2.
            unsafe {
                let weights = T::load(weights.as_ptr().add(i * 16 * T::BYTES));
                *acc = _mm512_fmadd_ps(weights, _mm512_loadu_ps(x.as_ptr().add(16 * i)), *acc);
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
        // SAFETY: sixteen values are writable.
        unsafe { _mm512_storeu_ps(strands[16 * i..][..16].as_mut_ptr(), acc) };
    }
    strands.iter().sum()
}

/// Interleaves at most 32 rows of `cols` values.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn pack(rows: &[f32], cols: usize, panel: &mut Panel) {
    panel.resize(cols);
    let steps = panel.steps;
    for upper in 0..2 {
        let rows: Vec<_> = rows.chunks_exact(cols).skip(16 * upper).take(16).collect();
        for column in (0..cols).step_by(16) {
            let n = (cols - column).min(16);
            let mask = (0xFFFFu32 >> (16 - n)) as __mmask16;
            let mut v = [_mm512_setzero_si512(); 16];
            for (v, row) in v.iter_mut().zip(&rows) {
                let start = row[column..].as_ptr();
                // SAFETY: n values from `column` are readable; the mask stops there.
                *v = unsafe { _mm512_maskz_loadu_epi32(mask, start.cast()) };
            }
            transpose_16x16(&mut v);
            for (i, v) in v.into_iter().enumerate() {
                let strand = (column + i) % STRANDS;
                let line = &mut panel.lines[strand * steps + column / STRANDS];
                let place = line.0[16 * upper..][..16].as_mut_ptr();
                // SAFETY: sixteen values are writable.
                unsafe { _mm512_storeu_ps(place, _mm512_castsi512_ps(v)) };
            }
        }
    }
    // A last step of fewer than 17 values leaves strands that hold what was there before.
    let width = cols.next_multiple_of(16);
    for column in width..steps * STRANDS {
        panel.lines[column % STRANDS * steps + column / STRANDS].0 = [0.0; PANEL_ROWS];
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn tile_of_any_width(
    panel: &Panel,
    tiles: &Tiles,
    i: usize,
    strands: Range<usize>,
    sums: &mut [RowSums],
) {
    let x = tiles.tile(i);
    match x.tokens {
        1 => tile::<1>(panel, x, strands, sums),
        2 => tile::<2>(panel, x, strands, sums),
        3 => tile::<3>(panel, x, strands, sums),
        4 => tile::<4>(panel, x, strands, sums),
        5 => tile::<5>(panel, x, strands, sums),
        6 => tile::<6>(panel, x, strands, sums),
        7 => tile::<7>(panel, x, strands, sums),
        8 => tile::<8>(panel, x, strands, sums),
        9 => tile::<9>(panel, x, strands, sums),
        10 => tile::<10>(panel, x, strands, sums),
        11 => tile::<11>(panel, x, strands, sums),
        n => {
            assert_eq!(n, TILE_TOKENS);
            tile::<TILE_TOKENS>(panel, x, strands, sums);
        }
    }
}

/// Adds some strands of the products of 32 rows and `N` tokens to their sums.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn tile<const N: usize>(panel: &Panel, x: &Tile, strands: Range<usize>, sums: &mut [RowSums]) {
    let steps = panel.steps;
    assert!(x.tokens == N && sums.len() == N && strands.end <= STRANDS);
    assert!(panel.lines.len() >= strands.end * steps && x.values.len() >= strands.end * steps * N);
    for strand in strands {
        let mut acc = [[_mm512_setzero_ps(); N]; 2];
        for step in strand * steps..(strand + 1) * steps {
            // SAFETY: step is below the number of lines checked above.
            unsafe {
                let weights: *const __m512 = panel.lines.as_ptr().add(step).cast();
                let (w0, w1) = (*weights, *weights.add(1));
                let x = x.values.as_ptr().add(step * N);
                for t in 0..N {
                    let x = _mm512_set1_ps(*x.add(t));
                    acc[0][t] = _mm512_fmadd_ps(w0, x, acc[0][t]);
                    acc[1][t] = _mm512_fmadd_ps(w1, x, acc[1][t]);
                }
            }
        }
        for t in 0..N {
            for v in 0..2 {
                let sum = sums[t][16 * v..][..16].as_mut_ptr();
                // SAFETY: sixteen values are readable and writable.
                unsafe { _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), acc[v][t])) };
            }
        }
    }
}
