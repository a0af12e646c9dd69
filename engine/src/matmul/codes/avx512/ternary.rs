//! One- and two-bit values.

use std::arch::x86_64::*;

use super::super::SuperScales;
use super::{SuperCodes, half, load16, load64, store, store_planes, two_bits};

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
