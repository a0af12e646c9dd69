//! One- and two-bit values.

use std::arch::x86_64::*;

use super::super::SuperScales;
use super::{SuperCodes, half, load16, load64, store, store_planes, two_bits};

/// Codes of base-3 digits. In every lane of `low` and `high` is a byte, in its upper half, which
/// times the lane of `powers` has the digit wanted as its first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn digits(low: __m512i, low_powers: __m512i, high: __m512i, high_powers: __m512i) -> __m512i {
    let three = _mm512_set1_epi16(3);
    let low = _mm512_mulhi_epu16(_mm512_mullo_epi16(low, low_powers), three);
    let high = _mm512_mulhi_epu16(_mm512_mullo_epi16(high, high_powers), three);
    let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    let both = _mm512_permutexvar_epi64(order, _mm512_packus_epi16(low, high));
    _mm512_add_epi8(both, _mm512_set1_epi8(127))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn tq1_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    scales.scale = [half(&bytes[52..]); 8];
    let upper = |v: __m256i| _mm512_slli_epi16::<8>(_mm512_cvtepu8_epi16(v));
    let power = |power: i16| _mm512_set1_epi16(power);
    let powers =
        |low, high| _mm512_inserti64x4::<1>(_mm512_set1_epi16(low), _mm256_set1_epi16(high));
    // 32 bytes of five digits each, then 16.
    let (low, high) = (load16(bytes), load16(&bytes[16..]));
    let first = upper(_mm256_set_m128i(high, low));
    let second = load16(&bytes[32..]);
    let twice = upper(_mm256_set_m128i(second, second));
    // Four bytes of four digits each.
    let last = i32::from_le_bytes([bytes[48], bytes[49], bytes[50], bytes[51]]);
    let last = upper(_mm256_set_m128i(_mm_set1_epi32(last), second));
    let last_powers = _mm256_setr_epi16(1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27);
    let last_powers = _mm512_inserti64x4::<1>(power(81), last_powers);
    store(codes, 0, digits(first, power(1), first, power(3)));
    store(codes, 1, digits(first, power(9), first, power(27)));
    store(codes, 2, digits(first, power(81), twice, powers(1, 3)));
    store(codes, 3, digits(twice, powers(9, 27), last, last_powers));
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn tq2_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
    scales.scale = [half(&bytes[64..]); 8];
    let v = load64(bytes);
    let offset = _mm512_set1_epi8(127);
    store_planes(codes, 0, _mm512_add_epi8(two_bits::<0>(v), offset));
    store_planes(codes, 1, _mm512_add_epi8(two_bits::<2>(v), offset));
    store_planes(codes, 2, _mm512_add_epi8(two_bits::<4>(v), offset));
    store_planes(codes, 3, _mm512_add_epi8(two_bits::<6>(v), offset));
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(in super::super) fn q1_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
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
pub(in super::super) fn q2_0(bytes: &[u8], codes: &mut SuperCodes, scales: &mut SuperScales) {
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
