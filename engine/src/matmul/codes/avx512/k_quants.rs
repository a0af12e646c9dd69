//! Superblocks of 256 values with packed scales.

use std::arch::x86_64::*;

use super::super::SuperScales;
use super::{
    SuperCodes, half, in_places, load16, load32_twice, load64, nibbles, store, store_halves,
    store_planes, store_scale, two_bits,
};

/// 16 bytes as f32, unsigned: the even ones, then the odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn sub_scales(bytes: __m128i, signed: bool) -> __m512 {
    let bytes = in_places(bytes);
    _mm512_cvtepi32_ps(if signed {
        _mm512_cvtepi8_epi32(bytes)
    } else {
        _mm512_cvtepu8_epi32(bytes)
    })
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn q2_k(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let (d, dmin) = (half(&bytes[80..]), half(&bytes[82..]));
    scales.scale = [d; 8];
    let (packed, mask) = (load16(bytes), _mm_set1_epi8(15));
    store_halves(
        &mut scales.half,
        sub_scales(_mm_and_si128(packed, mask), false),
    );
    let minima = sub_scales(_mm_and_si128(_mm_srli_epi16::<4>(packed), mask), false);
    store_halves(
        &mut scales.min,
        _mm512_mul_ps(minima, _mm512_set1_ps(-dmin)),
    );
    let v = load64(&bytes[16..]);
    let offset = _mm512_set1_epi8(-128);
    store_planes(codes, 0, _mm512_or_si512(two_bits::<0>(v), offset));
    store_planes(codes, 1, _mm512_or_si512(two_bits::<2>(v), offset));
    store_planes(codes, 2, _mm512_or_si512(two_bits::<4>(v), offset));
    store_planes(codes, 3, _mm512_or_si512(two_bits::<6>(v), offset));
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn q3_k(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    scales.scale = [-half(&bytes[108..]); 8];
    let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    let (a, b, c) = (word(96), word(100), word(104));
    let low = |v: u32| v & 0x0F0F_0F0F;
    let high = |v: u32| (v & 0x0303_0303) << 4;
    let packed = _mm_setr_epi32(
        (low(a) | high(c)) as i32,
        (low(b) | high(c >> 2)) as i32,
        (low(a >> 4) | high(c >> 4)) as i32,
        (low(b >> 4) | high(c >> 6)) as i32,
    );
    let negated = _mm_sub_epi8(_mm_set1_epi8(32), packed);
    store_halves(&mut scales.half, sub_scales(negated, true));
    let v = load64(&bytes[32..]);
    let third = load32_twice(bytes);
    let bit = _mm512_inserti64x4::<1>(_mm512_set1_epi8(1), _mm256_set1_epi8(16));
    let third_bit = |v: __m512i, bit: __m512i| {
        let v = _mm512_add_epi8(v, _mm512_set1_epi8(124));
        let set = _mm512_test_epi8_mask(third, bit);
        _mm512_mask_add_epi8(v, set, v, _mm512_set1_epi8(4))
    };
    store_planes(codes, 0, third_bit(two_bits::<0>(v), bit));
    let bit = _mm512_add_epi8(bit, bit);
    store_planes(codes, 1, third_bit(two_bits::<2>(v), bit));
    let bit = _mm512_add_epi8(bit, bit);
    store_planes(codes, 2, third_bit(two_bits::<4>(v), bit));
    let bit = _mm512_add_epi8(bit, bit);
    store_planes(codes, 3, third_bit(two_bits::<6>(v), bit));
}

/// The eight 6-bit scales and minima that Q4_K and Q5_K pack into 12 bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn scales_and_minima(bytes: &[u8], scales: &mut SuperScales) {
    let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
    let (a, b, c) = (word(4), word(8), word(12));
    let packed = _mm_setr_epi32(
        (a & 0x3F3F_3F3F) as i32,
        (c & 0x0F0F_0F0F | (a >> 2) & 0x3030_3030) as i32,
        (b & 0x3F3F_3F3F) as i32,
        ((c >> 4) & 0x0F0F_0F0F | (b >> 2) & 0x3030_3030) as i32,
    );
    let values = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(packed));
    let d = _mm256_set1_ps(half(bytes));
    let dmin = _mm256_set1_ps(-half(&bytes[2..]));
    store_scale(
        &mut scales.scale,
        _mm256_mul_ps(_mm512_castps512_ps256(values), d),
    );
    let minima = _mm256_mul_ps(_mm512_extractf32x8_ps::<1>(values), dmin);
    store_halves(&mut scales.min, _mm512_castps256_ps512(minima));
}

/// The nibbles of 64 bytes as 128 values of Q4_K's order, plus 128.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn chunk_nibbles(bytes: &[u8]) -> (__m512i, __m512i) {
    let (low, high) = nibbles(load64(bytes));
    let offset = _mm512_set1_epi8(-128);
    let (low, high) = (_mm512_or_si512(low, offset), _mm512_or_si512(high, offset));
    (
        _mm512_shuffle_i64x2::<0x44>(low, high),
        _mm512_shuffle_i64x2::<0xEE>(low, high),
    )
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn q4_k(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    scales_and_minima(bytes, scales);
    for i in 0..2 {
        let (a, b) = chunk_nibbles(&bytes[16 + 64 * i..]);
        store(codes, 2 * i, a);
        store(codes, 2 * i + 1, b);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn q5_k(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    scales_and_minima(bytes, scales);
    let fifth = load32_twice(&bytes[16..]);
    let fifth_bit = |v: __m512i, bit: __m512i| {
        let set = _mm512_test_epi8_mask(fifth, bit);
        _mm512_mask_add_epi8(v, set, v, _mm512_set1_epi8(16))
    };
    let mut bit = _mm512_inserti64x4::<1>(_mm512_set1_epi8(1), _mm256_set1_epi8(2));
    for i in 0..2 {
        let (a, b) = chunk_nibbles(&bytes[48 + 64 * i..]);
        store(codes, 2 * i, fifth_bit(a, bit));
        bit = _mm512_slli_epi16::<2>(bit);
        store(codes, 2 * i + 1, fifth_bit(b, bit));
        bit = _mm512_slli_epi16::<2>(bit);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn q6_k(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let d = _mm512_set1_ps(half(&bytes[208..]));
    let values = sub_scales(load16(&bytes[192..]), true);
    store_halves(&mut scales.half, _mm512_mul_ps(values, d));
    let mask = _mm512_set1_epi8(0x30);
    let offset = _mm512_set1_epi8(96);
    for h in 0..2 {
        let (low, high) = nibbles(load64(&bytes[64 * h..]));
        let pairs = load32_twice(&bytes[128 + 32 * h..]);
        // Bit pairs 0 and 1 go to the first two blocks, 2 and 3 to the others, all to bits 4 and 5.
        let first = _mm512_sllv_epi64(pairs, _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2));
        let second = _mm512_srlv_epi64(pairs, _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2));
        let low = _mm512_or_si512(low, _mm512_and_si512(first, mask));
        let high = _mm512_or_si512(high, _mm512_and_si512(second, mask));
        store(codes, 2 * h, _mm512_add_epi8(low, offset));
        store(codes, 2 * h + 1, _mm512_add_epi8(high, offset));
    }
}
