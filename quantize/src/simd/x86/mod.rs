//! Lanes as AVX2 and AVX-512 registers.

mod avx2;
mod avx512;

use std::arch::x86_64::*;

use super::{Bytes, Kernel, LANES};
use avx2::Avx2;
use avx512::Avx512;

/// 1.5·2^23: added to a small number, it leaves the nearest integer in the low bits.
const MAGIC: f32 = 12_582_912.0;
/// Those bits for zero.
const MAGIC_ZERO: i32 = 0x0040_0000;

/// Runs `kernel` compiled for AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// Runs `kernel` compiled for AVX-512.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// Sixteen bytes in an SSE register, made only by the tokens of the wider sets.
#[derive(Clone, Copy)]
pub(crate) struct Sixteen(__m128i);

impl Sixteen {
    #[inline(always)]
    fn load(bytes: &[u8; LANES]) -> Self {
        // SAFETY: every x86-64 CPU has SSE2; sixteen bytes are readable.
        unsafe { Self(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }
}

impl Bytes for Sixteen {
    #[inline(always)]
    fn and(self, mask: u8) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        unsafe { Self(_mm_and_si128(self.0, _mm_set1_epi8(mask as i8))) }
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        unsafe { Self(_mm_or_si128(self.0, other.0)) }
    }
    #[inline(always)]
    fn shr(self, bits: u32) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        let shifted = unsafe { _mm_srl_epi16(self.0, _mm_cvtsi32_si128(bits as i32)) };
        // What came from the neighbour of the pair goes.
        Self(shifted).and(0xFF >> bits)
    }
    #[inline(always)]
    fn shl(self, bits: u32) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        let shifted = unsafe { _mm_sll_epi16(self.0, _mm_cvtsi32_si128(bits as i32)) };
        Self(shifted).and(0xFF << bits)
    }
    #[inline(always)]
    fn triple(self) -> Self {
        // SAFETY: every x86-64 CPU has SSE2.
        unsafe { Self(_mm_add_epi8(self.0, _mm_add_epi8(self.0, self.0))) }
    }
    #[inline(always)]
    fn lookup(self, table: Self) -> Self {
        // SAFETY: AVX2, and so SSSE3, is present, since these bytes exist.
        unsafe { Self(_mm_shuffle_epi8(table.0, self.0)) }
    }
}
