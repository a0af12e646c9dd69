//! Unpacking by AVX-512: the same codes and scales as the plain functions give, 64 at a time.
//!
//! Every function takes the bytes of one superblock and writes all codes; what it writes of the
//! scales is what its type's plain function writes.

use std::arch::x86_64::*;

use gristmill_quantize::codebooks::ue4m3_half;

use super::super::SUPER;
use super::nibbles::{E2M1, IQ4};
use super::{SuperScales, place};

/// Codes of a superblock.
pub(super) type SuperCodes = [u8; SUPER];

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn store(codes: &mut SuperCodes, i: usize, v: __m512i) {
    let place = codes[64 * i..][..64].as_mut_ptr();
    // SAFETY: 64 bytes are writable.
    unsafe { _mm512_storeu_si512(place.cast(), v) };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn load64(bytes: &[u8]) -> __m512i {
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
pub(super) fn load16(bytes: &[u8]) -> __m128i {
    // SAFETY: 16 bytes are readable.
    unsafe { _mm_loadu_si128(bytes[..16].as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn half(bytes: &[u8]) -> f32 {
    let bits = i32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn store_scale(scales: &mut [f32; 8], v: __m256) {
    // SAFETY: eight values are writable.
    unsafe { _mm256_storeu_ps(scales.as_mut_ptr(), v) };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn store_halves(scales: &mut [f32; 16], v: __m512) {
    // SAFETY: sixteen values are writable.
    unsafe { _mm512_storeu_ps(scales.as_mut_ptr(), v) };
}

/// The first four bytes of eight blocks of `stride` bytes: a scale, and what follows it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn heads(bytes: &[u8], stride: i32) -> __m256i {
    assert!(bytes.len() >= 7 * stride as usize + 4);
    let steps = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let offsets = _mm256_mullo_epi32(steps, _mm256_set1_epi32(stride));
    // SAFETY: the last of the eight places ends inside the bytes.
    unsafe { _mm256_i32gather_epi32::<1>(bytes.as_ptr().cast(), offsets) }
}

/// The f16 in the low half of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn low_halves(heads: __m256i) -> __m256 {
    _mm256_cvtph_ps(_mm256_cvtepi32_epi16(heads))
}

/// The f16 in the high half of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn high_halves(heads: __m256i) -> __m256 {
    low_halves(_mm256_srli_epi32::<16>(heads))
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

/// Nibbles in order of the 32-value blocks whose 16 bytes start at `first` in each `stride` bytes:
/// those of blocks 4i..4i+4 as two vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn block_nibbles(bytes: &[u8], first: usize, stride: usize, i: usize) -> [__m512i; 2] {
    let part = |b: usize| load16(&bytes[(4 * i + b) * stride + first..]);
    let v = _mm512_castsi128_si512(part(0));
    let v = _mm512_inserti32x4::<1>(v, part(1));
    let v = _mm512_inserti32x4::<2>(v, part(2));
    let v = _mm512_inserti32x4::<3>(v, part(3));
    let (low, high) = nibbles(v);
    [
        _mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), high),
        _mm512_permutex2var_epi64(low, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), high),
    ]
}

/// Codes of eight blocks of nibbles with an offset.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn four_bits(bytes: &[u8], first: usize, stride: usize, offset: u8, codes: &mut SuperCodes) {
    let offset = _mm512_set1_epi8(offset as i8);
    for i in 0..2 {
        for (j, v) in block_nibbles(bytes, first, stride, i)
            .into_iter()
            .enumerate()
        {
            store(codes, 2 * i + j, _mm512_add_epi8(v, offset));
        }
    }
}

/// [`four_bits`] with the fifth bits of each block in the four bytes before its nibbles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn five_bits(bytes: &[u8], first: usize, stride: usize, offset: u8, codes: &mut SuperCodes) {
    let offset = _mm512_set1_epi8(offset as i8);
    let word = |b: usize| {
        let at = b * stride + first - 4;
        u64::from(u32::from_le_bytes([
            bytes[at],
            bytes[at + 1],
            bytes[at + 2],
            bytes[at + 3],
        ]))
    };
    for i in 0..2 {
        for (j, v) in block_nibbles(bytes, first, stride, i)
            .into_iter()
            .enumerate()
        {
            let b = 4 * i + 2 * j;
            let fifth = word(b) | word(b + 1) << 32;
            let v = _mm512_add_epi8(v, offset);
            store(
                codes,
                2 * i + j,
                _mm512_mask_add_epi8(v, fifth, v, _mm512_set1_epi8(16)),
            );
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q4_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    store_scale(&mut scales.scale, low_halves(heads(bytes, 18)));
    four_bits(bytes, 2, 18, 128 - 8, codes);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q4_1(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let heads = heads(bytes, 20);
    store_scale(&mut scales.scale, low_halves(heads));
    let min = _mm512_castps256_ps512(high_halves(heads));
    store_halves(&mut scales.min, min);
    four_bits(bytes, 4, 20, 128, codes);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q5_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    store_scale(&mut scales.scale, low_halves(heads(bytes, 22)));
    five_bits(bytes, 6, 22, 128 - 16, codes);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q5_1(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let heads = heads(bytes, 24);
    store_scale(&mut scales.scale, low_halves(heads));
    let min = _mm512_castps256_ps512(high_halves(heads));
    store_halves(&mut scales.min, min);
    five_bits(bytes, 8, 24, 128, codes);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q8_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
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

/// 16 bytes as f32, unsigned: the even ones, then the odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn sub_scales(bytes: __m128i, signed: bool) -> __m512 {
    let order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    let bytes = _mm_shuffle_epi8(bytes, order);
    _mm512_cvtepi32_ps(if signed {
        _mm512_cvtepi8_epi32(bytes)
    } else {
        _mm512_cvtepu8_epi32(bytes)
    })
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

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q2_k(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
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
    let planes = [
        v,
        _mm512_srli_epi16::<2>(v),
        _mm512_srli_epi16::<4>(v),
        _mm512_srli_epi16::<6>(v),
    ];
    for (s, v) in planes.into_iter().enumerate() {
        let v = _mm512_and_si512(v, _mm512_set1_epi8(3));
        store_planes(codes, s, _mm512_or_si512(v, _mm512_set1_epi8(-128)));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q3_k(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
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
    let planes = [
        v,
        _mm512_srli_epi16::<2>(v),
        _mm512_srli_epi16::<4>(v),
        _mm512_srli_epi16::<6>(v),
    ];
    let third = load32_twice(bytes);
    let mut bit = _mm512_inserti64x4::<1>(_mm512_set1_epi8(1), _mm256_set1_epi8(16));
    for (s, v) in planes.into_iter().enumerate() {
        let v = _mm512_and_si512(v, _mm512_set1_epi8(3));
        let v = _mm512_add_epi8(v, _mm512_set1_epi8(124));
        let set = _mm512_test_epi8_mask(third, bit);
        store_planes(
            codes,
            s,
            _mm512_mask_add_epi8(v, set, v, _mm512_set1_epi8(4)),
        );
        bit = _mm512_add_epi8(bit, bit);
    }
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
fn chunk_nibbles(bytes: &[u8]) -> [__m512i; 2] {
    let (low, high) = nibbles(load64(bytes));
    let offset = _mm512_set1_epi8(-128);
    let (low, high) = (_mm512_or_si512(low, offset), _mm512_or_si512(high, offset));
    [
        _mm512_shuffle_i64x2::<0x44>(low, high),
        _mm512_shuffle_i64x2::<0xEE>(low, high),
    ]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q4_k(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    scales_and_minima(bytes, scales);
    for i in 0..2 {
        let [a, b] = chunk_nibbles(&bytes[16 + 64 * i..]);
        store(codes, 2 * i, a);
        store(codes, 2 * i + 1, b);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q5_k(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    scales_and_minima(bytes, scales);
    let fifth = load32_twice(&bytes[16..]);
    let mut bit = _mm512_inserti64x4::<1>(_mm512_set1_epi8(1), _mm256_set1_epi8(2));
    for i in 0..2 {
        for (j, v) in chunk_nibbles(&bytes[48 + 64 * i..]).into_iter().enumerate() {
            let set = _mm512_test_epi8_mask(fifth, bit);
            let v = _mm512_mask_add_epi8(v, set, v, _mm512_set1_epi8(16));
            store(codes, 2 * i + j, v);
            bit = _mm512_slli_epi16::<2>(bit);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q6_k(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
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
        for (j, v) in block_nibbles(bytes, first, stride, i)
            .into_iter()
            .enumerate()
        {
            store(codes, 2 * i + j, _mm512_shuffle_epi8(table, v));
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn iq4_nl(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    store_scale(&mut scales.scale, low_halves(heads(bytes, 18)));
    table_codes(bytes, 2, 18, &IQ4, codes);
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn iq4_xs(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
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
pub(super) fn mxfp4(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
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

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn nvfp4(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let table = _mm512_broadcast_i32x4(load16(&E2M1));
    for (i, block) in bytes.as_chunks::<36>().0.iter().enumerate() {
        for s in 0..4 {
            scales.half[place(4 * i + s)] = ue4m3_half(block[s]);
        }
        let (low, high) = nibbles(load32_twice(&block[4..]));
        // Eight low nibbles, then eight high ones, make a group of 16.
        let even = _mm512_unpacklo_epi64(low, high);
        let odd = _mm512_unpackhi_epi64(low, high);
        let order = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
        let v = _mm512_permutex2var_epi64(even, order, odd);
        store(codes, i, _mm512_shuffle_epi8(table, v));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn tq2_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    scales.scale = [half(&bytes[64..]); 8];
    let v = load64(bytes);
    let planes = [
        v,
        _mm512_srli_epi16::<2>(v),
        _mm512_srli_epi16::<4>(v),
        _mm512_srli_epi16::<6>(v),
    ];
    for (s, v) in planes.into_iter().enumerate() {
        let v = _mm512_and_si512(v, _mm512_set1_epi8(3));
        store_planes(codes, s, _mm512_add_epi8(v, _mm512_set1_epi8(127)));
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q1_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    for (i, block) in bytes.as_chunks::<18>().0.iter().enumerate() {
        scales.scale[4 * i..][..4].fill(half(block));
        let minus = _mm512_set1_epi8(127);
        for (j, bits) in block[2..].as_chunks::<8>().0.iter().enumerate() {
            let bits = u64::from_le_bytes(*bits);
            let v = _mm512_mask_add_epi8(minus, bits, minus, _mm512_set1_epi8(2));
            store(codes, 2 * i + j, v);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn q2_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    for (i, block) in bytes.as_chunks::<18>().0.iter().enumerate() {
        scales.scale[2 * i..][..2].fill(half(block));
        // The four codes of a byte go to the four bytes of a lane.
        let q = _mm512_cvtepu8_epi32(load16(&block[2..]));
        let v = _mm512_or_si512(
            _mm512_or_si512(q, _mm512_slli_epi32::<6>(q)),
            _mm512_or_si512(_mm512_slli_epi32::<12>(q), _mm512_slli_epi32::<18>(q)),
        );
        let v = _mm512_and_si512(v, _mm512_set1_epi8(3));
        store(codes, i, _mm512_add_epi8(v, _mm512_set1_epi8(127)));
    }
}
