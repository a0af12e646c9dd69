//! Four-bit indices into a table of 16 values.

use std::arch::x86_64::*;

use super::super::SuperScales;
use super::super::nibbles::{E2M1, IQ4};
use super::legacy::{block_nibbles, heads, low_halves};
use super::{
    SuperCodes, half, in_places, load16, load32_twice, nibbles, store, store_halves, store_scale,
};

/// Codes of eight blocks of nibbles from a table.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn table_codes(
    bytes: &[u8],
    first: usize,
    stride: usize,
    table: &[u8; 16],
    codes: &mut SuperCodes,
) {
    let table = _mm512_broadcast_i32x4(load16(table));
    for i in 0..2 {
        let (a, b) = block_nibbles(bytes, first, stride, i);
        store(codes, 2 * i, _mm512_shuffle_epi8(table, a));
        store(codes, 2 * i + 1, _mm512_shuffle_epi8(table, b));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn iq4_nl(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    store_scale(&mut scales.scale, low_halves(heads(bytes, 18)));
    table_codes(bytes, 2, 18, &IQ4, codes);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn iq4_xs(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let high = i32::from(u16::from_le_bytes([bytes[2], bytes[3]]));
    let low = i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    let steps = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    let high = _mm256_srlv_epi32(_mm256_set1_epi32(high), steps);
    let high = _mm256_slli_epi32::<4>(_mm256_and_si256(high, _mm256_set1_epi32(3)));
    let low = _mm256_srlv_epi32(_mm256_set1_epi32(low), _mm256_add_epi32(steps, steps));
    let low = _mm256_and_si256(low, _mm256_set1_epi32(15));
    let sc = _mm256_sub_epi32(_mm256_or_si256(low, high), _mm256_set1_epi32(32));
    let d = _mm256_set1_ps(half(bytes));
    store_scale(&mut scales.scale, _mm256_mul_ps(d, _mm256_cvtepi32_ps(sc)));
    table_codes(bytes, 8, 16, &IQ4, codes);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn mxfp4(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let e = _mm256_and_si256(heads(bytes, 17), _mm256_set1_epi32(0xFF));
    let one = _mm256_set1_epi32(1);
    let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, one));
    // 2^-128 and 2^-127 are subnormal.
    let tiny = _mm256_cmpgt_epi32_mask(_mm256_set1_epi32(2), e);
    let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
    let bits = _mm256_mask_blend_epi32(tiny, normal, subnormal);
    store_scale(&mut scales.scale, _mm256_castsi256_ps(bits));
    table_codes(bytes, 1, 17, &E2M1, codes);
}

/// Halves of the values of 16 unsigned E4M3 bytes, as `ue4m3_half` gives them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn ue4m3_halves(bytes: __m128i) -> __m512 {
    let bytes = _mm512_cvtepu8_epi32(bytes);
    let magnitude = _mm512_and_si512(bytes, _mm512_set1_epi32(0x7F));
    // Bias 7, and one less for the half.
    let normal = _mm512_add_epi32(magnitude, _mm512_set1_epi32((127 - 8) << 3));
    let normal = _mm512_castsi512_ps(_mm512_slli_epi32::<20>(normal));
    let unit = _mm512_set1_ps(1.0 / 1024.0);
    let subnormal = _mm512_mul_ps(_mm512_cvtepi32_ps(magnitude), unit);
    let tiny = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(8));
    let some = _mm512_cmpneq_epi32_mask(bytes, _mm512_set1_epi32(0x7F));
    _mm512_maskz_mov_ps(some, _mm512_mask_blend_ps(tiny, normal, subnormal))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn nvfp4(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let table = _mm512_broadcast_i32x4(load16(&E2M1));
    let word = |i: usize| i32::from_le_bytes([0, 1, 2, 3].map(|j| bytes[36 * i + j]));
    let packed = _mm_setr_epi32(word(0), word(1), word(2), word(3));
    store_halves(&mut scales.half, ue4m3_halves(in_places(packed)));
    for (i, block) in bytes.as_chunks::<36>().0.iter().enumerate() {
        let (low, high) = nibbles(load32_twice(&block[4..]));
        // Eight low nibbles, then eight high ones, make a group of 16.
        let even = _mm512_unpacklo_epi64(low, high);
        let odd = _mm512_unpackhi_epi64(low, high);
        let order = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        let v = _mm512_permutex2var_epi64(even, order, odd);
        store(codes, i, _mm512_shuffle_epi8(table, v));
    }
}
