//! Blocks of 32 values with f16 scales.

use std::arch::x86_64::*;

use super::super::SuperScales;
use super::{SuperCodes, masks, nibbles, store, store_halves, store_scale};

/// The four bytes from `first` on of eight blocks of `stride` bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn words(bytes: &[u8], first: usize, stride: usize) -> __m256i {
    assert!(bytes.len() >= first + 7 * stride + 4);
    let steps = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let offsets = _mm256_mullo_epi32(steps, _mm256_set1_epi32(stride as i32));
    // SAFETY: the last of the eight places ends inside the bytes.
    unsafe { _mm256_i32gather_epi32::<1>(bytes.as_ptr().add(first).cast(), offsets) }
}

/// The first four bytes of eight blocks of `stride` bytes: a scale, and what follows it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn heads(bytes: &[u8], stride: usize) -> __m256i {
    words(bytes, 0, stride)
}

/// The f16 in the low half of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn low_halves(heads: __m256i) -> __m256 {
    _mm256_cvtph_ps(_mm256_cvtepi32_epi16(heads))
}

/// The f16 in the high half of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn high_halves(heads: __m256i) -> __m256 {
    low_halves(_mm256_srli_epi32::<16>(heads))
}

/// Nibbles in order of the 32-value blocks whose 16 bytes start at `first` in each `stride` bytes:
/// those of blocks 4i..4i+4 as two vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn block_nibbles(
    bytes: &[u8],
    first: usize,
    stride: usize,
    i: usize,
) -> (__m512i, __m512i) {
    assert!(i < 2 && bytes.len() >= first + 7 * stride + 16);
    let part = |b: usize| {
        // SAFETY: 4 * i + b is below eight; the last of these places ends inside the bytes.
        unsafe { _mm_loadu_si128(bytes.as_ptr().add((4 * i + b) * stride + first).cast()) }
    };
    let v = _mm512_castsi128_si512(part(0));
    let v = _mm512_inserti32x4::<1>(v, part(1));
    let v = _mm512_inserti32x4::<2>(v, part(2));
    let v = _mm512_inserti32x4::<3>(v, part(3));
    let (low, high) = nibbles(v);
    (
        _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high),
        _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high),
    )
}

/// Codes of eight blocks of nibbles with an offset.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn four_bits(bytes: &[u8], first: usize, stride: usize, offset: u8, codes: &mut SuperCodes) {
    let offset = _mm512_set1_epi8(offset as i8);
    for i in 0..2 {
        let (a, b) = block_nibbles(bytes, first, stride, i);
        store(codes, 2 * i, _mm512_add_epi8(a, offset));
        store(codes, 2 * i + 1, _mm512_add_epi8(b, offset));
    }
}

/// [`four_bits`] with the fifth bits of each block in the four bytes before its nibbles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn five_bits(bytes: &[u8], first: usize, stride: usize, offset: u8, codes: &mut SuperCodes) {
    let offset = _mm512_set1_epi8(offset as i8);
    let fifth = masks(words(bytes, first - 4, stride));
    let fifth_bit = |v: __m512i, fifth: u64| {
        let v = _mm512_add_epi8(v, offset);
        _mm512_mask_add_epi8(v, fifth, v, _mm512_set1_epi8(16))
    };
    for i in 0..2 {
        let (a, b) = block_nibbles(bytes, first, stride, i);
        store(codes, 2 * i, fifth_bit(a, fifth[2 * i]));
        store(codes, 2 * i + 1, fifth_bit(b, fifth[2 * i + 1]));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn q4_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    store_scale(&mut scales.scale, low_halves(heads(bytes, 18)));
    four_bits(bytes, 2, 18, 128 - 8, codes);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn q4_1(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let heads = heads(bytes, 20);
    store_scale(&mut scales.scale, low_halves(heads));
    let min = _mm512_castps256_ps512(high_halves(heads));
    store_halves(&mut scales.min, min);
    four_bits(bytes, 4, 20, 128, codes);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn q5_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    store_scale(&mut scales.scale, low_halves(heads(bytes, 22)));
    five_bits(bytes, 6, 22, 128 - 16, codes);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn q5_1(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let heads = heads(bytes, 24);
    store_scale(&mut scales.scale, low_halves(heads));
    let min = _mm512_castps256_ps512(high_halves(heads));
    store_halves(&mut scales.min, min);
    five_bits(bytes, 8, 24, 128, codes);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn q8_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    store_scale(&mut scales.scale, low_halves(heads(bytes, 34)));
    let offset = _mm256_set1_epi8(-128);
    for (block, codes) in bytes
        .as_chunks::<34>()
        .0
        .iter()
        .zip(codes.as_chunks_mut::<32>().0)
    {
        // SAFETY: 32 bytes are readable after the scale, and writable.
        unsafe {
            let v = _mm256_loadu_si256(block[2..].as_ptr().cast());
            _mm256_storeu_si256(codes.as_mut_ptr().cast(), _mm256_xor_si256(v, offset));
        }
    }
}
