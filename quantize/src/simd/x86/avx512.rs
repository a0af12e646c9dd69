//! Sixteen lanes as one AVX-512 register.

use std::arch::x86_64::*;
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Not, Sub};

use super::{MAGIC, MAGIC_ZERO, Sixteen};
use crate::simd::{Float, HALF, LANES, Mask, Simd};

// Soundness of every block below: the token is made only in the parent module, where the CPU is known to
// have the features; and vectors are made only from the token.

/// The upper eight lanes.
const UPPER_HALF: __mmask16 = 0xFF00;

/// AVX-512, proven present.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(super) ());

/// Sixteen f32 lanes in one AVX-512 register.
#[derive(Clone, Copy)]
pub(crate) struct Wide(__m512);

/// Sixteen truth values in a mask register.
#[derive(Clone, Copy)]
pub(crate) struct WideMask(__mmask16);

/// Sixteen packed lattice points in one AVX-512 register.
#[derive(Clone, Copy)]
pub(crate) struct WideCodes(__m512i);

impl Simd for Avx512 {
    type F = Wide;
    type M = WideMask;
    type Codes = WideCodes;
    type B = Sixteen;

    #[inline(always)]
    fn splat(self, value: f32) -> Wide {
        // SAFETY: AVX-512 is present, since the token exists.
        unsafe { Wide(_mm512_set1_ps(value)) }
    }
    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Wide {
        // SAFETY: AVX-512 is present, since the token exists; sixteen values are readable.
        unsafe { Wide(_mm512_loadu_ps(values.as_ptr())) }
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; 32], places: Wide) -> Wide {
        // SAFETY: AVX-512 is present, since the token exists; 32 values are readable, and the
        // permutation looks at the low five bits of an index.
        unsafe {
            let low = _mm512_loadu_ps(table.as_ptr());
            let high = _mm512_loadu_ps(table.as_ptr().add(16));
            let places = _mm512_cvttps_epi32(places.0);
            Wide(_mm512_permutex2var_ps(low, places, high))
        }
    }
    #[inline(always)]
    fn load_codes(self, codes: &[u16; LANES]) -> WideCodes {
        // SAFETY: AVX-512 is present, since the token exists; sixteen codes are readable.
        unsafe {
            WideCodes(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
                codes.as_ptr().cast(),
            )))
        }
    }
    #[inline(always)]
    fn load_code_halves(self, low: &[u16; HALF], high: &[u16; HALF]) -> WideCodes {
        // SAFETY: AVX-512 is present, since the token exists; eight codes each are readable.
        unsafe {
            let low = _mm_loadu_si128(low.as_ptr().cast());
            let high = _mm_loadu_si128(high.as_ptr().cast());
            WideCodes(_mm512_cvtepu16_epi32(_mm256_set_m128i(high, low)))
        }
    }
    #[inline(always)]
    fn splat_halves(self, low: f32, high: f32) -> Wide {
        // SAFETY: AVX-512 is present, since the token exists.
        unsafe {
            let (low, high) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
            Wide(_mm512_mask_blend_ps(UPPER_HALF, low, high))
        }
    }
    #[inline(always)]
    fn pick<const BITS: usize>(self, table: Wide, codes: WideCodes, place: usize) -> Wide {
        // SAFETY: AVX-512 is present, since the token exists.
        unsafe {
            let shift = _mm_cvtsi32_si128((BITS * place) as i32);
            let digits = _mm512_srl_epi32(codes.0, shift);
            if BITS == 2 {
                // Within quarters; looks at the low two bits of an index.
                return Wide(_mm512_permutevar_ps(table.0, digits));
            }
            // The permutation looks at the low four bits, of which the fourth is to be the half:
            // `digits & 7 | half`.
            const AND_OR: i32 = 0xEA;
            let half = _mm512_maskz_set1_epi32(UPPER_HALF, HALF as i32);
            let seven = _mm512_set1_epi32(7);
            let places = _mm512_ternarylogic_epi32::<AND_OR>(digits, seven, half);
            Wide(_mm512_permutexvar_ps(places, table.0))
        }
    }
    #[inline(always)]
    fn mask(self, lanes: u16) -> WideMask {
        WideMask(lanes)
    }
    #[inline(always)]
    fn bytes(self, bytes: &[u8; LANES]) -> Sixteen {
        Sixteen::load(bytes)
    }
    #[inline(always)]
    fn widen(self, bytes: Sixteen) -> Wide {
        // SAFETY: AVX-512 is present, since the token exists.
        unsafe { Wide(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes.0))) }
    }
    #[inline(always)]
    fn widen_signed(self, bytes: Sixteen) -> Wide {
        // SAFETY: AVX-512 is present, since the token exists.
        unsafe { Wide(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes.0))) }
    }
}

impl Add for Wide {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { Self(_mm512_add_ps(self.0, other.0)) }
    }
}

impl Sub for Wide {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { Self(_mm512_sub_ps(self.0, other.0)) }
    }
}

impl Mul for Wide {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { Self(_mm512_mul_ps(self.0, other.0)) }
    }
}

impl Div for Wide {
    type Output = Self;
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { Self(_mm512_div_ps(self.0, other.0)) }
    }
}

impl Float for Wide {
    type Mask = WideMask;

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        // SAFETY: AVX-512 is present, since this vector exists; sixteen values are writable.
        unsafe {
            _mm512_storeu_ps(values.as_mut_ptr(), self.0);
        }
    }
    #[inline(always)]
    fn to_u8(self) -> [u8; LANES] {
        // SAFETY: AVX-512 is present, since this vector exists; both types are sixteen bytes.
        unsafe { std::mem::transmute(_mm512_cvtepi32_epi8(_mm512_cvttps_epi32(self.0))) }
    }
    #[inline(always)]
    fn to_i32(self) -> [i32; LANES] {
        // SAFETY: AVX-512 is present, since this vector exists; both types are sixteen i32.
        unsafe { std::mem::transmute(_mm512_cvttps_epi32(self.0)) }
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { Self(_mm512_abs_ps(self.0)) }
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { Self(_mm512_sqrt_ps(self.0)) }
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { Self(_mm512_max_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { Self(_mm512_min_ps(self.0, other.0)) }
    }
    #[inline(always)]
    fn gt(self, other: Self) -> WideMask {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { WideMask(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0)) }
    }
    #[inline(always)]
    fn lt(self, other: Self) -> WideMask {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { WideMask(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, other.0)) }
    }
    #[inline(always)]
    fn eq(self, other: Self) -> WideMask {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { WideMask(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0)) }
    }
    #[inline(always)]
    fn select(self, mask: WideMask, other: Self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { Self(_mm512_mask_blend_ps(mask.0, other.0, self.0)) }
    }
    #[inline(always)]
    fn nearest(self, lo: i32, hi: i32) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe {
            let (lo, hi) = (
                _mm512_set1_epi32(MAGIC_ZERO + lo),
                _mm512_set1_epi32(MAGIC_ZERO + hi),
            );
            let bits = _mm512_castps_si512(_mm512_add_ps(self.0, _mm512_set1_ps(MAGIC)));
            let bits = _mm512_and_si512(bits, _mm512_set1_epi32(0x007F_FFFF));
            let clamped = _mm512_min_epi32(_mm512_max_epi32(bits, lo), hi);
            Self(_mm512_cvtepi32_ps(_mm512_sub_epi32(
                clamped,
                _mm512_set1_epi32(MAGIC_ZERO),
            )))
        }
    }
    #[inline(always)]
    fn least(self) -> f32 {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { _mm512_reduce_min_ps(self.0) }
    }
    #[inline(always)]
    fn least_of_half(self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe {
            // Quarters 1, 0, 3, 2, then pairs, then single lanes in turn.
            let other = _mm512_shuffle_f32x4::<0b10_11_00_01>(self.0, self.0);
            let least = _mm512_min_ps(self.0, other);
            let least = _mm512_min_ps(least, _mm512_permute_ps::<0b01_00_11_10>(least));
            Self(_mm512_min_ps(
                least,
                _mm512_permute_ps::<0b10_11_00_01>(least),
            ))
        }
    }
    #[inline(always)]
    fn greatest(self) -> f32 {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
    #[inline(always)]
    fn round_to_f16(self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe {
            Self(_mm512_cvtph_ps(
                _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0),
            ))
        }
    }
    #[inline(always)]
    fn round_ties_even(self) -> Self {
        // SAFETY: AVX-512 is present, since this vector exists.
        unsafe {
            let magic = _mm512_set1_ps(MAGIC);
            Self(_mm512_sub_ps(_mm512_add_ps(self.0, magic), magic))
        }
    }
}

impl BitAnd for WideMask {
    type Output = Self;
    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl BitOr for WideMask {
    type Output = Self;
    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Not for WideMask {
    type Output = Self;
    #[inline(always)]
    fn not(self) -> Self {
        Self(!self.0)
    }
}

impl Mask for WideMask {
    #[inline(always)]
    fn any(self) -> bool {
        self.0 != 0
    }
    #[inline(always)]
    fn bits(self) -> u16 {
        self.0
    }
}
