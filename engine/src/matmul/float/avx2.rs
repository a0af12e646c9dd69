//! AVX2 with FMA: 8 lanes, and 12 of 16 registers for the sums of 16 rows and 6 tokens.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::RowSums;
use super::super::lanes::transpose_8x8;
use super::panel::{Panel, Tiles};
use super::vector::{self, Vector};
use super::{Blocked, Kernels, Stored};

pub(super) const KERNELS: Kernels = Kernels {
    // SAFETY: `super::kernels` asserts that the CPU has AVX2, FMA and F16C.
    dot: |stored, row, x| unsafe { dot(stored, row, x) },
    blocked: Some(Blocked {
        // SAFETY: `super::kernels` asserts that the CPU has AVX2, FMA and F16C.
        pack: |rows, cols, panel| unsafe { pack(rows, cols, panel) },
        // SAFETY: `super::kernels` asserts that the CPU has AVX2, FMA and F16C.
        tile: |panel, tiles, i, strands, sums| unsafe { tile(panel, tiles, i, strands, sums) },
    }),
};

impl Vector for __m256 {
    const LANES: usize = 8;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(values: *const f32) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(values) }
    }
    #[inline(always)]
    unsafe fn load_f16(values: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(values.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(values: *const u8) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(values.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    unsafe fn store(self, values: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_storeu_ps(values, self) };
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { _mm256_fmadd_ps(self, factor, sum) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self]) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut v = [_mm256_setzero_si256(); 8];
            for (v, row) in v.iter_mut().zip(&*rows) {
                *v = _mm256_castps_si256(*row);
            }
            transpose_8x8(&mut v);
            for (row, v) in rows.iter_mut().zip(v) {
                *row = _mm256_castsi256_ps(v);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot(stored: Stored, row: &[u8], x: &[f32]) -> f32 {
    // SAFETY: this function is compiled for the instruction set.
    unsafe { vector::dot::<__m256, 4>(stored, row, x) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn pack(rows: &[f32], cols: usize, panel: &mut Panel) {
    // SAFETY: this function is compiled for the instruction set.
    unsafe { vector::pack::<__m256, 8>(rows, cols, panel) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn tile(panel: &Panel, tiles: &Tiles, i: usize, strands: Range<usize>, sums: &mut [RowSums]) {
    // SAFETY: this function is compiled for the instruction set.
    unsafe { vector::tile::<__m256, 6>(panel, tiles, i, strands, sums) }
}
