//! What several kernels do with lanes and cache lines.

use std::arch::x86_64::*;

/// Transposes 16 x 16 lanes of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose_16x16(v: &mut [__m512i; 16]) {
    let mut t = *v;
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    // Now by pairs of rows; then by fours: t[4i + c] holds column c (mod 4) of rows 4i..4i+4.
    for i in 0..4 {
        let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
        t[4 * i] = _mm512_unpacklo_epi64(a, c);
        t[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
        t[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
        t[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // 128-bit lanes: lane q of t[4i + c] is column 4q + c of rows 4i..4i+4.
    for c in 0..4 {
        let [a, b, x, y] = [t[c], t[4 + c], t[8 + c], t[12 + c]];
        let low = (
            _mm512_shuffle_i32x4::<0x88>(a, b),
            _mm512_shuffle_i32x4::<0x88>(x, y),
        );
        let high = (
            _mm512_shuffle_i32x4::<0xDD>(a, b),
            _mm512_shuffle_i32x4::<0xDD>(x, y),
        );
        v[c] = _mm512_shuffle_i32x4::<0x88>(low.0, low.1);
        v[8 + c] = _mm512_shuffle_i32x4::<0xDD>(low.0, low.1);
        v[4 + c] = _mm512_shuffle_i32x4::<0x88>(high.0, high.1);
        v[12 + c] = _mm512_shuffle_i32x4::<0xDD>(high.0, high.1);
    }
}

/// Transposes 8 x 8 lanes of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transpose_8x8(v: &mut [__m256i; 8]) {
    let mut t = *v;
    for i in 0..4 {
        t[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    for i in 0..2 {
        let [a, b, c, d] = [t[4 * i], t[4 * i + 1], t[4 * i + 2], t[4 * i + 3]];
        t[4 * i] = _mm256_unpacklo_epi64(a, c);
        t[4 * i + 1] = _mm256_unpackhi_epi64(a, c);
        t[4 * i + 2] = _mm256_unpacklo_epi64(b, d);
        t[4 * i + 3] = _mm256_unpackhi_epi64(b, d);
    }
    // 128-bit lanes: lane q of t[4i + c] is column 4q + c of rows 4i..4i+4.
    for c in 0..4 {
        v[c] = _mm256_permute2x128_si256::<0x20>(t[c], t[4 + c]);
        v[4 + c] = _mm256_permute2x128_si256::<0x31>(t[c], t[4 + c]);
    }
}

/// Asks for lines that are used later: those as far behind `bytes` as a row ends long before them, and
/// the next follows.
#[inline(always)]
pub(super) fn prefetch(bytes: &[u8], len: usize) {
    const AHEAD: usize = 4096;
    for line in (0..len).step_by(64) {
        let ahead = bytes.as_ptr().wrapping_add(AHEAD + line);
        // SAFETY: nothing is read; an address that is not mapped does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(ahead.cast()) };
    }
}
