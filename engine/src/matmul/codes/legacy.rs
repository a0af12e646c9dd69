//! The types of 32-value blocks with f16 scales.

use gristmill_quantize::half::f16_to_f32;

use super::super::{BLOCK, SUPER};
#[cfg(target_arch = "x86_64")]
use super::avx512::legacy as avx512;
use super::{BlockScales, BlockScalesMinima, Codes, SuperScales};

/// Reads a little-endian f16 at the start of `bytes`.
#[inline(always)]
pub(super) fn half(bytes: &[u8]) -> f32 {
    f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// Nibbles of 16 bytes, the low ones first, plus `offset`.
#[inline(always)]
fn nibbles(bytes: &[u8], codes: &mut [u8], offset: u8) {
    for j in 0..16 {
        codes[j] = (bytes[j] & 15) + offset;
        codes[16 + j] = (bytes[j] >> 4) + offset;
    }
}

/// [`nibbles`] with a fifth bit, bit `e` of `high` for value `e`.
#[inline(always)]
fn five_bits(high: &[u8], bytes: &[u8], codes: &mut [u8], offset: u8) {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    for j in 0..16 {
        codes[j] = ((bytes[j] & 15) | ((high >> j << 4) & 16) as u8) + offset;
        codes[16 + j] = ((bytes[j] >> 4) | ((high >> (j + 16) << 4) & 16) as u8) + offset;
    }
}

/// d, then 16 bytes of nibbles; value = d * (q - 8).
pub(crate) struct Q4_0;

impl Codes for Q4_0 {
    const BYTES: usize = 8 * 18;
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        let blocks = bytes.as_chunks::<18>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.chunks_exact_mut(BLOCK)).enumerate() {
            scales.scale[b] = half(block);
            nibbles(&block[2..], codes, 128 - 8);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q4_0(bytes, codes, scales) };
    }
}

/// d, m, then 16 bytes of nibbles; value = d * q + m.
pub(crate) struct Q4_1;

impl Codes for Q4_1 {
    const BYTES: usize = 8 * 20;
    type Shape = BlockScalesMinima;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        let blocks = bytes.as_chunks::<20>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.chunks_exact_mut(BLOCK)).enumerate() {
            scales.scale[b] = half(block);
            scales.min[b] = half(&block[2..]);
            nibbles(&block[4..], codes, 128);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q4_1(bytes, codes, scales) };
    }
}

/// d, 32 high bits, then 16 bytes of nibbles; value = d * (q - 16).
pub(crate) struct Q5_0;

impl Codes for Q5_0 {
    const BYTES: usize = 8 * 22;
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        let blocks = bytes.as_chunks::<22>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.chunks_exact_mut(BLOCK)).enumerate() {
            scales.scale[b] = half(block);
            five_bits(&block[2..], &block[6..], codes, 128 - 16);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q5_0(bytes, codes, scales) };
    }
}

/// d, m, 32 high bits, then 16 bytes of nibbles; value = d * q + m.
pub(crate) struct Q5_1;

impl Codes for Q5_1 {
    const BYTES: usize = 8 * 24;
    type Shape = BlockScalesMinima;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        let blocks = bytes.as_chunks::<24>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.chunks_exact_mut(BLOCK)).enumerate() {
            scales.scale[b] = half(block);
            scales.min[b] = half(&block[2..]);
            five_bits(&block[4..], &block[8..], codes, 128);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q5_1(bytes, codes, scales) };
    }
}

/// d, then 32 signed bytes; value = d * q.
pub(crate) struct Q8_0;

impl Codes for Q8_0 {
    const BYTES: usize = 8 * 34;
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        let blocks = bytes.as_chunks::<34>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.chunks_exact_mut(BLOCK)).enumerate() {
            scales.scale[b] = half(block);
            for (code, &byte) in codes.iter_mut().zip(&block[2..]) {
                *code = byte ^ 0x80;
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q8_0(bytes, codes, scales) };
    }
}
