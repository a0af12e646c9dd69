//! One- and two-bit values: TQ1_0, TQ2_0, Q1_0, Q2_0.
#![allow(non_camel_case_types)]

use super::super::SUPER;
#[cfg(target_arch = "x86_64")]
use super::avx512::ternary as avx512;
use super::{BlockScales, Codes, Cpu, SuperScales};

/// 48 bytes of five base-3 digits, 4 bytes of four, d; value = d * (digit - 1).
pub(crate) struct TQ1_0;

impl Codes for TQ1_0 {
    const BYTES: usize = 54;
    const RANGE: [i32; 2] = [-1, 1];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
        scales.scale = [cpu.half(&bytes[52..]); 8];
        let (first, rest) = codes.split_at_mut(160);
        let (second, third) = rest.split_at_mut(80);
        let parts = [
            (first, &bytes[..32]),
            (second, &bytes[32..48]),
            (third, &bytes[48..52]),
        ];
        for (codes, bytes) in parts {
            for (codes, power) in codes.chunks_exact_mut(bytes.len()).zip(POWERS) {
                for (code, byte) in codes.iter_mut().zip(bytes) {
                    let digit = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                    *code = digit as u8 + 127;
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::tq1_0(bytes, codes, scales) };
    }
}

/// 64 bytes of 2-bit codes, d; value = d * (q - 1).
pub(crate) struct TQ2_0;

impl Codes for TQ2_0 {
    const BYTES: usize = 66;
    const RANGE: [i32; 2] = [-1, 2];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        scales.scale = [cpu.half(&bytes[64..]); 8];
        for (codes, packed) in codes
            .chunks_exact_mut(128)
            .zip(bytes[..64].chunks_exact(32))
        {
            for l in 0..32 {
                for s in 0..4 {
                    codes[32 * s + l] = (packed[l] >> (2 * s) & 3) + 127;
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::tq2_0(bytes, codes, scales) };
    }
}

/// Blocks of 128: d, 16 bytes of bits; value = d where the bit is set, else -d.
pub(crate) struct Q1_0;

impl Codes for Q1_0 {
    const BYTES: usize = 2 * 18;
    const RANGE: [i32; 2] = [-1, 1];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let blocks = bytes.as_chunks::<18>().0.iter();
        for (i, (block, codes)) in blocks.zip(codes.chunks_exact_mut(128)).enumerate() {
            scales.scale[4 * i..][..4].fill(cpu.half(block));
            for (codes, bits) in codes.chunks_exact_mut(8).zip(&block[2..]) {
                for (e, code) in codes.iter_mut().enumerate() {
                    *code = 127 + (bits >> e & 1) * 2;
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q1_0(bytes, codes, scales) };
    }
}

/// Blocks of 64: d, 16 bytes of 2-bit codes; value = d * (q - 1).
pub(crate) struct Q2_0;

impl Codes for Q2_0 {
    const BYTES: usize = 4 * 18;
    const RANGE: [i32; 2] = [-1, 2];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let blocks = bytes.as_chunks::<18>().0.iter();
        for (i, (block, codes)) in blocks.zip(codes.chunks_exact_mut(64)).enumerate() {
            scales.scale[2 * i..][..2].fill(cpu.half(block));
            for (codes, packed) in codes.chunks_exact_mut(4).zip(&block[2..]) {
                for (e, code) in codes.iter_mut().enumerate() {
                    *code = (packed >> (2 * e) & 3) + 127;
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q2_0(bytes, codes, scales) };
    }
}
