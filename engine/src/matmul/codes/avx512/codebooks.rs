//! Indices into codebooks: gathers of eight entries of eight values, or sixteen of
//! four; signs as masks.

use std::arch::x86_64::*;

use gristmill_quantize::codebooks::{
    IQ1S_GRID, IQ2S_GRID, IQ2XS_GRID, IQ2XXS_GRID, IQ3S_GRID, IQ3XXS_GRID,
};

use super::super::SuperScales;
use super::{SuperCodes, half, load16, load64, masks, store, store_halves, store_scale};

/// Eight entries of a codebook.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn entries8<const N: usize>(grid: &'static [[i8; 8]; N], indices: __m512i) -> __m512i {
    const { assert!(N.is_power_of_two()) };
    let indices = _mm512_and_si512(indices, _mm512_set1_epi64(N as i64 - 1));
    // SAFETY: the indices are below the number of entries.
    unsafe { _mm512_i64gather_epi64::<8>(indices, grid.as_ptr().cast()) }
}

/// Sixteen entries of a codebook.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn entries4<const N: usize>(grid: &'static [[i8; 4]; N], indices: __m512i) -> __m512i {
    const { assert!(N.is_power_of_two()) };
    let indices = _mm512_and_si512(indices, _mm512_set1_epi32(N as i32 - 1));
    // SAFETY: the indices are below the number of entries.
    unsafe { _mm512_i32gather_epi32::<4>(indices, grid.as_ptr().cast()) }
}

/// Stores 64 magnitudes as codes, negative where `signs` says.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn store_signed(codes: &mut SuperCodes, i: usize, v: __m512i, signs: u64) {
    let v = _mm512_mask_sub_epi8(v, signs, _mm512_setzero_si512(), v);
    store(codes, i, _mm512_xor_si512(v, _mm512_set1_epi8(-128)));
}

/// 32 sign bytes as masks of 64.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn stored_masks(bytes: &[u8]) -> [u64; 4] {
    // SAFETY: 32 bytes are readable.
    masks(unsafe { _mm256_loadu_si256(bytes[..32].as_ptr().cast()) })
}

/// Sign masks of eight words with four sign indices of 7 bits each; a sign's bit 7 makes their
/// number even.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn word_masks(words: __m256i) -> [u64; 4] {
    let field = |mask: i32| _mm256_set1_epi32(mask);
    let spread = _mm256_or_si256(
        _mm256_or_si256(
            _mm256_and_si256(words, field(0x7F)),
            _mm256_and_si256(_mm256_slli_epi32::<1>(words), field(0x7F00)),
        ),
        _mm256_or_si256(
            _mm256_and_si256(_mm256_slli_epi32::<2>(words), field(0x7F_0000)),
            _mm256_and_si256(_mm256_slli_epi32::<3>(words), field(0x7F00_0000)),
        ),
    );
    // Bit 0 of each byte becomes the parity of its bits; what comes from other bytes stays above.
    let p = _mm256_xor_si256(spread, _mm256_srli_epi32::<4>(spread));
    let p = _mm256_xor_si256(p, _mm256_srli_epi32::<2>(p));
    let p = _mm256_xor_si256(p, _mm256_srli_epi32::<1>(p));
    let parity = _mm256_slli_epi32::<7>(_mm256_and_si256(p, field(0x0101_0101)));
    masks(_mm256_or_si256(spread, parity))
}

/// d * (0.5 + s) * factor, where s is bits 28..32 of each word.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn word_scales(words: __m256i, d: f32, factor: f32) -> __m256 {
    let s = _mm256_cvtepi32_ps(_mm256_srli_epi32::<28>(words));
    let s = _mm256_mul_ps(_mm256_set1_ps(d), _mm256_add_ps(_mm256_set1_ps(0.5), s));
    _mm256_mul_ps(s, _mm256_set1_ps(factor))
}

/// d * (0.5 + s) / 4 for the 16 nibbles of eight bytes: low ones are of first halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn nibble_scales(bytes: &[u8], d: f32) -> __m512 {
    let packed = u64::from_le_bytes([
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
    ]);
    let (low, high) = (
        packed & 0x0F0F_0F0F_0F0F_0F0F,
        packed >> 4 & 0x0F0F_0F0F_0F0F_0F0F,
    );
    let s = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x(
        high as i64,
        low as i64,
    )));
    let s = _mm512_mul_ps(_mm512_set1_ps(d), _mm512_add_ps(_mm512_set1_ps(0.5), s));
    _mm512_mul_ps(s, _mm512_set1_ps(0.25))
}

/// 16-bit lanes 8i..8i+8 as 64-bit ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn widen16(v: __m512i, i: usize) -> __m512i {
    _mm512_cvtepu16_epi64(match i {
        0 => _mm512_castsi512_si128(v),
        1 => _mm512_extracti32x4_epi32::<1>(v),
        2 => _mm512_extracti32x4_epi32::<2>(v),
        _ => _mm512_extracti32x4_epi32::<3>(v),
    })
}

/// 32 bytes as 16-bit lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn low_indices(bytes: &[u8]) -> __m512i {
    // SAFETY: 32 bytes are readable.
    _mm512_cvtepu8_epi16(unsafe { _mm256_loadu_si256(bytes[..32].as_ptr().cast()) })
}

/// Eight bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn load8(bytes: &[u8]) -> __m128i {
    // SAFETY: eight bytes are readable.
    unsafe { _mm_loadl_epi64(bytes[..8].as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn iq2_xxs(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let records = load64(&bytes[2..]);
    let words = _mm512_cvtepi64_epi32(_mm512_srli_epi64::<32>(records));
    store_scale(&mut scales.scale, word_scales(words, half(bytes), 0.25));
    let signs = word_masks(words);
    // The low halves of the records are 32 indices.
    let indices = _mm512_cvtepu8_epi16(_mm512_cvtepi64_epi32(records));
    for (i, signs) in signs.into_iter().enumerate() {
        store_signed(codes, i, entries8(&IQ2XXS_GRID, widen16(indices, i)), signs);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn iq2_xs(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    store_halves(&mut scales.half, nibble_scales(&bytes[66..], half(bytes)));
    let words = load64(&bytes[2..]);
    let x = _mm512_srli_epi16::<9>(words);
    let p = _mm512_xor_si512(x, _mm512_srli_epi16::<4>(x));
    let p = _mm512_xor_si512(p, _mm512_srli_epi16::<2>(p));
    let p = _mm512_xor_si512(p, _mm512_srli_epi16::<1>(p));
    let signs = _mm512_or_si512(x, _mm512_slli_epi16::<7>(p)); // bit 7 is the parity
    let signs = masks(_mm512_cvtepi16_epi8(_mm512_and_si512(
        signs,
        _mm512_set1_epi16(0xFF),
    )));
    for (i, signs) in signs.into_iter().enumerate() {
        store_signed(codes, i, entries8(&IQ2XS_GRID, widen16(words, i)), signs);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn iq2_s(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    store_halves(&mut scales.half, nibble_scales(&bytes[74..], half(bytes)));
    // Bit pairs 0..4 of each byte go to bits 8 and 9 of four 16-bit lanes.
    let q = _mm512_cvtepu8_epi64(load8(&bytes[66..]));
    let pairs = _mm512_or_si512(
        _mm512_or_si512(_mm512_slli_epi64::<8>(q), _mm512_slli_epi64::<22>(q)),
        _mm512_or_si512(_mm512_slli_epi64::<36>(q), _mm512_slli_epi64::<50>(q)),
    );
    let high = _mm512_and_si512(pairs, _mm512_set1_epi16(0x300));
    let indices = _mm512_or_si512(low_indices(&bytes[2..]), high);
    for (i, signs) in stored_masks(&bytes[34..]).into_iter().enumerate() {
        store_signed(codes, i, entries8(&IQ2S_GRID, widen16(indices, i)), signs);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn iq3_xxs(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    // SAFETY: 32 bytes are readable.
    let words = unsafe { _mm256_loadu_si256(bytes[66..98].as_ptr().cast()) };
    store_scale(&mut scales.scale, word_scales(words, half(bytes), 0.5));
    for (i, signs) in word_masks(words).into_iter().enumerate() {
        let indices = _mm512_cvtepu8_epi32(load16(&bytes[2 + 16 * i..]));
        store_signed(codes, i, entries4(&IQ3XXS_GRID, indices), signs);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn iq3_s(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let packed = i32::from_le_bytes([bytes[106], bytes[107], bytes[108], bytes[109]]);
    let shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    let s = _mm256_srlv_epi32(_mm256_set1_epi32(packed), shifts);
    let s = _mm256_cvtepi32_ps(_mm256_and_si256(s, _mm256_set1_epi32(15)));
    let odd = _mm256_add_ps(_mm256_set1_ps(1.0), _mm256_add_ps(s, s));
    store_scale(
        &mut scales.scale,
        _mm256_mul_ps(_mm256_set1_ps(half(bytes)), odd),
    );
    for (i, signs) in stored_masks(&bytes[74..]).into_iter().enumerate() {
        let indices = _mm512_cvtepu8_epi32(load16(&bytes[2 + 16 * i..]));
        let high = u16::from_le_bytes([bytes[66 + 2 * i], bytes[67 + 2 * i]]);
        let indices = _mm512_mask_add_epi32(indices, high, indices, _mm512_set1_epi32(256));
        store_signed(codes, i, entries4(&IQ3S_GRID, indices), signs);
    }
}

/// Stores eight times 64 values of -1, 0, 1, plus 1, or minus 1 in groups of eight where `minus`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn store_shifted(codes: &mut SuperCodes, i: usize, v: __m512i, minus: u8) {
    let v = _mm512_and_si512(_mm512_slli_epi16::<3>(v), _mm512_set1_epi8(-8));
    let v = _mm512_add_epi8(v, _mm512_set1_epi8(-127)); // 129, modulo 256
    let two = _mm512_maskz_set1_epi64(minus, 0x0202_0202_0202_0202);
    store(codes, i, _mm512_sub_epi8(v, two));
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn iq1_s(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let words = load16(&bytes[34..]);
    let s = _mm256_and_si256(
        _mm256_cvtepu16_epi32(_mm_srli_epi16::<12>(words)),
        _mm256_set1_epi32(7),
    );
    let odd = _mm256_add_epi32(_mm256_add_epi32(s, s), _mm256_set1_epi32(1));
    let scale = _mm256_mul_ps(_mm256_set1_ps(half(bytes)), _mm256_cvtepi32_ps(odd));
    store_scale(
        &mut scales.scale,
        _mm256_mul_ps(scale, _mm256_set1_ps(0.125)),
    );
    // Three bits at 0, 3, 6, 9 of each word go to bits 8 to 10 of four 16-bit lanes.
    let q = _mm512_cvtepu16_epi64(words);
    let lane = |mask: i64| _mm512_set1_epi64(mask);
    let high = _mm512_or_si512(
        _mm512_or_si512(
            _mm512_and_si512(_mm512_slli_epi64::<8>(q), lane(0x700)),
            _mm512_and_si512(_mm512_slli_epi64::<21>(q), lane(0x700_0000)),
        ),
        _mm512_or_si512(
            _mm512_and_si512(_mm512_slli_epi64::<34>(q), lane(0x700_0000_0000)),
            _mm512_and_si512(_mm512_slli_epi64::<47>(q), lane(0x700_0000_0000_0000)),
        ),
    );
    let indices = _mm512_or_si512(low_indices(&bytes[2..]), high);
    let minus = _mm_movepi16_mask(words); // the sign of the shift is the top bit
    for i in 0..4 {
        let minus = [0x00, 0x0F, 0xF0, 0xFF][usize::from(minus >> (2 * i) & 3)];
        store_shifted(codes, i, entries8(&IQ1S_GRID, widen16(indices, i)), minus);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn iq1_m(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    let words = load8(&bytes[48..]);
    let top = _mm_srli_epi16::<12>(words);
    let top = _mm_cvtsi128_si64(top) as u64;
    let d = (top | top >> 12 | top >> 24 | top >> 36) as u16;
    let d = half(&d.to_le_bytes());
    let words = _mm512_castsi128_si512(_mm_cvtepu16_epi32(words));
    let word = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1, 2, 2, 3, 3);
    let shift = _mm512_setr_epi32(0, 6, 0, 6, 0, 6, 0, 6, 3, 9, 3, 9, 3, 9, 3, 9);
    let s = _mm512_srlv_epi32(_mm512_permutexvar_epi32(word, words), shift);
    let s = _mm512_and_si512(s, _mm512_set1_epi32(7));
    let odd = _mm512_add_epi32(_mm512_add_epi32(s, s), _mm512_set1_epi32(1));
    let scale = _mm512_mul_ps(_mm512_set1_ps(d), _mm512_cvtepi32_ps(odd));
    store_halves(
        &mut scales.half,
        _mm512_mul_ps(scale, _mm512_set1_ps(0.125)),
    );
    // Nibbles as bytes, the low one first.
    let packed = _mm256_cvtepu8_epi16(load16(&bytes[32..]));
    let packed = _mm256_or_si256(packed, _mm256_slli_epi16::<4>(packed));
    let high = _mm512_cvtepu8_epi16(_mm256_and_si256(packed, _mm256_set1_epi8(7)));
    let indices = _mm512_or_si512(low_indices(bytes), _mm512_slli_epi16::<8>(high));
    let minus = _mm256_test_epi8_mask(packed, _mm256_set1_epi8(8));
    for i in 0..4 {
        let minus = (minus >> (8 * i)) as u8;
        store_shifted(codes, i, entries8(&IQ1S_GRID, widen16(indices, i)), minus);
    }
}
