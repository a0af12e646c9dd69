//! Sixteen lanes as two AVX2 registers of eight.

use std::arch::x86_64::*;
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Not, Sub};

use super::{MAGIC, MAGIC_ZERO, Sixteen};
use crate::simd::{Float, HALF, LANES, Mask, Simd};

// Soundness of every block below: the token is made only in the parent module, where the CPU is known to
// have the features; and vectors are made only from the token.

/// AVX2, proven present.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(pub(super) ());

/// Sixteen f32 lanes in two AVX registers.
#[derive(Clone, Copy)]
pub(crate) struct Pair(__m256, __m256);

/// Sixteen truth values as two vectors of all-ones or all-zeros lanes.
#[derive(Clone, Copy)]
pub(crate) struct PairMask(__m256, __m256);

/// Sixteen packed lattice points in two AVX registers.
#[derive(Clone, Copy)]
pub(crate) struct PairCodes(__m256i, __m256i);

impl Simd for Avx2 {
    type F = Pair;
    type M = PairMask;
    type Codes = PairCodes;
    type B = Sixteen;

    #[inline(always)]
    fn splat(self, value: f32) -> Pair {
        // SAFETY: AVX2 is present, since the token exists.
        unsafe {
            let all = _mm256_set1_ps(value);
            Pair(all, all)
        }
    }
    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Pair {
        // SAFETY: AVX2 is present, since the token exists; sixteen values are readable.
        unsafe {
            Pair(
                _mm256_loadu_ps(values.as_ptr()),
                _mm256_loadu_ps(values.as_ptr().add(8)),
            )
        }
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; 32], places: Pair) -> Pair {
        // SAFETY: AVX2 is present, since the token exists; indices are masked to the table's size.
        unsafe {
            let last = _mm256_set1_epi32(31);
            let low = _mm256_and_si256(_mm256_cvttps_epi32(places.0), last);
            let high = _mm256_and_si256(_mm256_cvttps_epi32(places.1), last);
            Pair(
                _mm256_i32gather_ps::<4>(table.as_ptr(), low),
                _mm256_i32gather_ps::<4>(table.as_ptr(), high),
            )
        }
    }
    #[inline(always)]
    fn load_codes(self, codes: &[u16; LANES]) -> PairCodes {
        // SAFETY: AVX2 is present, since the token exists; sixteen codes are readable.
        unsafe {
            let codes = _mm256_loadu_si256(codes.as_ptr().cast());
            PairCodes(
                _mm256_cvtepu16_epi32(_mm256_castsi256_si128(codes)),
                _mm256_cvtepu16_epi32(_mm256_extracti128_si256::<1>(codes)),
            )
        }
    }
    #[inline(always)]
    fn load_code_halves(self, low: &[u16; HALF], high: &[u16; HALF]) -> PairCodes {
        // SAFETY: AVX2 is present, since the token exists; eight codes each are readable.
        unsafe {
            PairCodes(
                _mm256_cvtepu16_epi32(_mm_loadu_si128(low.as_ptr().cast())),
                _mm256_cvtepu16_epi32(_mm_loadu_si128(high.as_ptr().cast())),
            )
        }
    }
    #[inline(always)]
    fn splat_halves(self, low: f32, high: f32) -> Pair {
        // SAFETY: AVX2 is present, since the token exists.
        unsafe { Pair(_mm256_set1_ps(low), _mm256_set1_ps(high)) }
    }
    #[inline(always)]
    fn pick<const BITS: usize>(self, table: Pair, codes: PairCodes, place: usize) -> Pair {
        // SAFETY: AVX2 is present, since the token exists.
        unsafe {
            let shift = _mm_cvtsi32_si128((BITS * place) as i32);
            let low = _mm256_srl_epi32(codes.0, shift);
            let high = _mm256_srl_epi32(codes.1, shift);
            // The permutations look at the low two and three bits of an index only.
            if BITS == 2 {
                Pair(
                    _mm256_permutevar_ps(table.0, low),
                    _mm256_permutevar_ps(table.1, high),
                )
            } else {
                Pair(
                    _mm256_permutevar8x32_ps(table.0, low),
                    _mm256_permutevar8x32_ps(table.1, high),
                )
            }
        }
    }
    #[inline(always)]
    fn mask(self, lanes: u16) -> PairMask {
        // SAFETY: AVX2 is present, since the token exists.
        unsafe {
            let lanes = _mm256_set1_epi32(i32::from(lanes));
            let low = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let high = _mm256_slli_epi32::<8>(low);
            PairMask(
                _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(lanes, low), low)),
                _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(lanes, high), high)),
            )
        }
    }
    #[inline(always)]
    fn bytes(self, bytes: &[u8; LANES]) -> Sixteen {
        Sixteen::load(bytes)
    }
    #[inline(always)]
    fn widen(self, bytes: Sixteen) -> Pair {
        // SAFETY: AVX2 is present, since the token exists.
        unsafe {
            Pair(
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes.0)),
                _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_unpackhi_epi64(bytes.0, bytes.0))),
            )
        }
    }
    #[inline(always)]
    fn widen_signed(self, bytes: Sixteen) -> Pair {
        // SAFETY: AVX2 is present, since the token exists.
        unsafe {
            Pair(
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes.0)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(bytes.0, bytes.0))),
            )
        }
    }
}

impl Add for Pair {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            Self(
                _mm256_add_ps(self.0, other.0),
                _mm256_add_ps(self.1, other.1),
            )
        }
    }
}

impl Sub for Pair {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            Self(
                _mm256_sub_ps(self.0, other.0),
                _mm256_sub_ps(self.1, other.1),
            )
        }
    }
}

impl Mul for Pair {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            Self(
                _mm256_mul_ps(self.0, other.0),
                _mm256_mul_ps(self.1, other.1),
            )
        }
    }
}

impl Div for Pair {
    type Output = Self;
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            Self(
                _mm256_div_ps(self.0, other.0),
                _mm256_div_ps(self.1, other.1),
            )
        }
    }
}

impl Float for Pair {
    type Mask = PairMask;

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        // SAFETY: AVX2 is present, since this vector exists; sixteen values are writable.
        unsafe {
            _mm256_storeu_ps(values.as_mut_ptr(), self.0);
            _mm256_storeu_ps(values.as_mut_ptr().add(8), self.1);
        }
    }
    #[inline(always)]
    fn to_u8(self) -> [u8; LANES] {
        // SAFETY: AVX2 is present, since this vector exists; both types are sixteen bytes.
        unsafe {
            let low = _mm256_set1_epi32(255);
            let a = _mm256_and_si256(_mm256_cvttps_epi32(self.0), low);
            let b = _mm256_and_si256(_mm256_cvttps_epi32(self.1), low);
            let a = _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let b = _mm_packus_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256::<1>(b));
            std::mem::transmute(_mm_packus_epi16(a, b))
        }
    }
    #[inline(always)]
    fn to_i32(self) -> [i32; LANES] {
        // SAFETY: AVX2 is present, since this vector exists; both types are sixteen i32.
        unsafe { std::mem::transmute([_mm256_cvttps_epi32(self.0), _mm256_cvttps_epi32(self.1)]) }
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            Self(
                _mm256_andnot_ps(sign, self.0),
                _mm256_andnot_ps(sign, self.1),
            )
        }
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe { Self(_mm256_sqrt_ps(self.0), _mm256_sqrt_ps(self.1)) }
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            Self(
                _mm256_max_ps(self.0, other.0),
                _mm256_max_ps(self.1, other.1),
            )
        }
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            Self(
                _mm256_min_ps(self.0, other.0),
                _mm256_min_ps(self.1, other.1),
            )
        }
    }
    #[inline(always)]
    fn gt(self, other: Self) -> PairMask {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            PairMask(
                _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0),
                _mm256_cmp_ps::<_CMP_GT_OQ>(self.1, other.1),
            )
        }
    }
    #[inline(always)]
    fn lt(self, other: Self) -> PairMask {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            PairMask(
                _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, other.0),
                _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, other.1),
            )
        }
    }
    #[inline(always)]
    fn eq(self, other: Self) -> PairMask {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            PairMask(
                _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0),
                _mm256_cmp_ps::<_CMP_EQ_OQ>(self.1, other.1),
            )
        }
    }
    #[inline(always)]
    fn select(self, mask: PairMask, other: Self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            Self(
                _mm256_blendv_ps(other.0, self.0, mask.0),
                _mm256_blendv_ps(other.1, self.1, mask.1),
            )
        }
    }
    #[inline(always)]
    fn nearest(self, lo: i32, hi: i32) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe { Self(nearest_eight(self.0, lo, hi), nearest_eight(self.1, lo, hi)) }
    }
    #[inline(always)]
    fn least(self) -> f32 {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            let eight = _mm256_min_ps(self.0, self.1);
            let four = _mm_min_ps(
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight),
            );
            let two = _mm_min_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_min_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn least_of_half(self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe { Self(least_of_eight(self.0), least_of_eight(self.1)) }
    }
    #[inline(always)]
    fn greatest(self) -> f32 {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(
                _mm256_castps256_ps128(eight),
                _mm256_extractf128_ps::<1>(eight),
            );
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
    #[inline(always)]
    fn round_to_f16(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
        // SAFETY: AVX2 and F16C are present, since this vector exists.
        unsafe {
            Self(
                _mm256_cvtph_ps(_mm256_cvtps_ph::<NEAREST>(self.0)),
                _mm256_cvtph_ps(_mm256_cvtps_ph::<NEAREST>(self.1)),
            )
        }
    }
    #[inline(always)]
    fn round_ties_even(self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            let magic = _mm256_set1_ps(MAGIC);
            Self(
                _mm256_sub_ps(_mm256_add_ps(self.0, magic), magic),
                _mm256_sub_ps(_mm256_add_ps(self.1, magic), magic),
            )
        }
    }
}

/// Eight lanes of [`Float::nearest`].
///
/// # Safety
/// AVX2 must be present.
#[inline(always)]
unsafe fn nearest_eight(v: __m256, lo: i32, hi: i32) -> __m256 {
    // SAFETY: AVX2 is present, as the caller promises.
    unsafe {
        let bits = _mm256_castps_si256(_mm256_add_ps(v, _mm256_set1_ps(MAGIC)));
        let bits = _mm256_and_si256(bits, _mm256_set1_epi32(0x007F_FFFF));
        let bits = _mm256_max_epi32(bits, _mm256_set1_epi32(MAGIC_ZERO + lo));
        let bits = _mm256_min_epi32(bits, _mm256_set1_epi32(MAGIC_ZERO + hi));
        _mm256_cvtepi32_ps(_mm256_sub_epi32(bits, _mm256_set1_epi32(MAGIC_ZERO)))
    }
}

/// In all eight lanes the least of them.
///
/// # Safety
/// AVX2 must be present.
#[inline(always)]
unsafe fn least_of_eight(v: __m256) -> __m256 {
    // SAFETY: AVX2 is present, as the caller promises.
    unsafe {
        let least = _mm256_min_ps(v, _mm256_permute2f128_ps::<1>(v, v));
        let least = _mm256_min_ps(least, _mm256_permute_ps::<0b01_00_11_10>(least));
        _mm256_min_ps(least, _mm256_permute_ps::<0b10_11_00_01>(least))
    }
}

impl BitAnd for PairMask {
    type Output = Self;
    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            Self(
                _mm256_and_ps(self.0, other.0),
                _mm256_and_ps(self.1, other.1),
            )
        }
    }
}

impl BitOr for PairMask {
    type Output = Self;
    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe { Self(_mm256_or_ps(self.0, other.0), _mm256_or_ps(self.1, other.1)) }
    }
}

impl Not for PairMask {
    type Output = Self;
    #[inline(always)]
    fn not(self) -> Self {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe {
            let ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
            Self(_mm256_xor_ps(self.0, ones), _mm256_xor_ps(self.1, ones))
        }
    }
}

impl Mask for PairMask {
    #[inline(always)]
    fn any(self) -> bool {
        self.bits() != 0
    }
    #[inline(always)]
    fn bits(self) -> u16 {
        // SAFETY: AVX2 is present, since this vector exists.
        unsafe { _mm256_movemask_ps(self.0) as u16 | (_mm256_movemask_ps(self.1) as u16) << 8 }
    }
}
