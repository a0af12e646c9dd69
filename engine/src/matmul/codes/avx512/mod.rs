//! Unpacking by AVX-512: the same codes and scales as the plain functions give, 64 at a time.
//!
//! Every function takes the bytes of one superblock and writes all codes; what it writes of the
//! scales is what its type's plain function writes.

pub(super) mod codebooks;
pub(super) mod k_quants;
pub(super) mod legacy;
pub(super) mod nibbles;
pub(super) mod ternary;

use std::arch::x86_64::*;

use super::super::SUPER;

/// Codes of a superblock.
type SuperCodes = [u8; SUPER];

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn store(codes: &mut SuperCodes, i: usize, v: __m512i) {
    let place = codes[64 * i..][..64].as_mut_ptr();
    // SAFETY: 64 bytes are writable.
    unsafe { _mm512_storeu_si512(place.cast(), v) };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn load64(bytes: &[u8]) -> __m512i {
    // SAFETY: 64 bytes are readable.
    unsafe { _mm512_loadu_si512(bytes[..64].as_ptr().cast()) }
}

/// 32 bytes, twice.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn load32_twice(bytes: &[u8]) -> __m512i {
    // SAFETY: 32 bytes are readable.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(bytes[..32].as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn load16(bytes: &[u8]) -> __m128i {
    // SAFETY: 16 bytes are readable.
    unsafe { _mm_loadu_si128(bytes[..16].as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn half(bytes: &[u8]) -> f32 {
    let bits = i32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn store_scale(scales: &mut [f32; 8], v: __m256) {
    // SAFETY: eight values are writable.
    unsafe { _mm256_storeu_ps(scales.as_mut_ptr(), v) };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn store_halves(scales: &mut [f32; 16], v: __m512) {
    // SAFETY: sixteen values are writable.
    unsafe { _mm512_storeu_ps(scales.as_mut_ptr(), v) };
}

/// 32 bytes as masks of 64.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn masks(v: __m256i) -> [u64; 4] {
    let mut masks = [0u64; 4];
    // SAFETY: 32 bytes are writable.
    unsafe { _mm256_storeu_si256(masks.as_mut_ptr().cast(), v) };
    masks
}

/// Low and high nibbles of 64 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn nibbles(v: __m512i) -> (__m512i, __m512i) {
    let mask = _mm512_set1_epi8(15);
    (
        _mm512_and_si512(v, mask),
        _mm512_and_si512(_mm512_srli_epi16::<4>(v), mask),
    )
}

/// Stores vectors of 2-bit codes: vector `s` holds block `s` and block `4 + s`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn store_planes(codes: &mut SuperCodes, s: usize, v: __m512i) {
    let (low, high) = codes.split_at_mut(SUPER / 2);
    // SAFETY: 32 bytes are writable at each place.
    unsafe {
        let low = low[32 * s..][..32].as_mut_ptr();
        _mm256_storeu_si256(low.cast(), _mm512_castsi512_si256(v));
        let high = high[32 * s..][..32].as_mut_ptr();
        _mm256_storeu_si256(high.cast(), _mm512_extracti64x4_epi64::<1>(v));
    }
}

/// Bits `SHIFT` and `SHIFT + 1` of every byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn two_bits<const SHIFT: u32>(v: __m512i) -> __m512i {
    _mm512_and_si512(_mm512_srli_epi16::<SHIFT>(v), _mm512_set1_epi8(3))
}

/// Bytes of 16 sub-blocks in the order of [`SuperScales`](super::SuperScales): the even ones, then
/// the odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn in_places(bytes: __m128i) -> __m128i {
    let order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    _mm_shuffle_epi8(bytes, order)
}
