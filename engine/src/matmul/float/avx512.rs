//! AVX-512: 16 lanes, and 24 of 32 registers for the sums of 32 rows and 12 tokens.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::RowSums;
use super::super::lanes::transpose_16x16;
use super::panel::{Panel, Tiles};
use super::vector::{self, Vector};
use super::{Blocked, Kernels, Stored};

pub(super) const KERNELS: Kernels = Kernels {
    // SAFETY: `super::kernels` asserts that the CPU has AVX-512.
    dot: |stored, row, x| unsafe { dot(stored, row, x) },
    blocked: Some(Blocked {
        // SAFETY: `super::kernels` asserts that the CPU has AVX-512.
        pack: |rows, cols, panel| unsafe { pack(rows, cols, panel) },
        // SAFETY: `super::kernels` asserts that the CPU has AVX-512.
        tile: |panel, tiles, i, strands, sums| unsafe { tile(panel, tiles, i, strands, sums) },
    }),
};

impl Vector for __m512 {
    const LANES: usize = 16;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(values: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(values) }
    }
    #[inline(always)]
    unsafe fn load_f16(values: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(values.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(values: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(values.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    unsafe fn store(self, values: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(values, self) };
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm512_fmadd_ps(self, factor, sum) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self]) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut v = [_mm512_setzero_si512(); 16];
            for (v, row) in v.iter_mut().zip(&*rows) {
                *v = _mm512_castps_si512(*row);
            }
            transpose_16x16(&mut v);
            for (row, v) in rows.iter_mut().zip(v) {
                *row = _mm512_castsi512_ps(v);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn dot(stored: Stored, row: &[u8], x: &[f32]) -> f32 {
    // SAFETY: this function is compiled for the instruction set.
    unsafe { vector::dot::<__m512, 2>(stored, row, x) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn pack(rows: &[f32], cols: usize, panel: &mut Panel) {
    // SAFETY: this function is compiled for the instruction set.
    unsafe { vector::pack::<__m512, 16>(rows, cols, panel) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn tile(panel: &Panel, tiles: &Tiles, i: usize, strands: Range<usize>, sums: &mut [RowSums]) {
    // SAFETY: this function is compiled for the instruction set.
    unsafe { vector::tile::<__m512, 12>(panel, tiles, i, strands, sums) }
}
