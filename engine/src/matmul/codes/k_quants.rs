//! The k-quants: superblocks of 256 values with quantized scales.
#![allow(non_camel_case_types)]

use super::super::SUPER;
#[cfg(target_arch = "x86_64")]
use super::avx512::k_quants as avx512;
use super::{
    BlockScalesMinima, Codes, Cpu, FoldedScales, FoldedScalesMinima, HalfScales, SuperScales,
    in_places,
};

/// 16 bytes of scale and minimum nibbles, 64 bytes of 2-bit codes, d, dmin;
/// value = d * sc * q - dmin * mn.
pub(crate) struct Q2_K;

impl Codes for Q2_K {
    const BYTES: usize = 84;
    const RANGE: [i32; 2] = [0, 45];
    type Shape = FoldedScalesMinima;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let (d, dmin) = (cpu.half(&bytes[80..]), cpu.half(&bytes[82..]));
        scales.scale = [d; 8];
        for (i, packed) in in_places(&bytes[..16]).into_iter().enumerate() {
            scales.half[i] = f32::from(packed & 15);
            scales.min[i] = -(dmin * f32::from(packed >> 4));
        }
        for (codes, packed) in codes
            .chunks_exact_mut(128)
            .zip(bytes[16..80].chunks_exact(32))
        {
            for l in 0..32 {
                for s in 0..4 {
                    codes[32 * s + l] = (packed[l] >> (2 * s) & 3) + 128;
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q2_k(bytes, codes, scales) };
    }
}

/// 32 bytes of high bits, 64 bytes of 2-bit codes, 16 six-bit scales in 12 bytes, d;
/// value = d * (sc - 32) * (q - 4).
///
/// Scale and code are both signed, and their product reaches 128, which no signed byte holds.
/// Negated scales and a negated d give the same values with products in -128..=124.
pub(crate) struct Q3_K;

impl Codes for Q3_K {
    const BYTES: usize = 110;
    const RANGE: [i32; 2] = [-128, 124];
    type Shape = FoldedScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        scales.scale = [-cpu.half(&bytes[108..]); 8];
        // Four 6-bit fields in the bytes of each word.
        let high = word(bytes, 104);
        let mut fields = [0; 16];
        for (i, fields) in fields.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let low = word(bytes, 96 + 4 * (i % 2)) >> (4 * (i / 2)) & 0x0F0F_0F0F;
            *fields = (low | (high >> (2 * i) & 0x0303_0303) << 4).to_le_bytes();
        }
        for (half, field) in scales.half.iter_mut().zip(in_places(&fields)) {
            *half = f32::from(32 - field as i8);
        }
        let high = &bytes[..32];
        for (h, codes) in codes.chunks_exact_mut(128).enumerate() {
            let packed = &bytes[32 + 32 * h..][..32];
            for l in 0..32 {
                for s in 0..4 {
                    let bit = high[l] >> (4 * h + s) & 1;
                    codes[32 * s + l] = (packed[l] >> (2 * s) & 3) + 4 * bit + 128 - 4;
                }
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q3_k(bytes, codes, scales) };
    }
}

/// Four bytes from `at` on.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The eight 6-bit scales and minima that Q4_K and Q5_K pack into 12 bytes.
#[inline(always)]
fn scales_and_minima(bytes: &[u8], scales: &mut SuperScales, cpu: impl Cpu) {
    let (d, dmin) = (cpu.half(bytes), cpu.half(&bytes[2..]));
    let (a, b, c) = (word(bytes, 4), word(bytes, 8), word(bytes, 12));
    // Four 6-bit fields in the bytes of each word.
    let sc = [a & 0x3F3F_3F3F, (c & 0x0F0F_0F0F) | (a >> 2 & 0x3030_3030)];
    let mn = [
        b & 0x3F3F_3F3F,
        (c >> 4 & 0x0F0F_0F0F) | (b >> 2 & 0x3030_3030),
    ];
    for j in 0..8 {
        scales.scale[j] = d * f32::from(sc[j / 4].to_le_bytes()[j % 4]);
        scales.min[j] = -(dmin * f32::from(mn[j / 4].to_le_bytes()[j % 4]));
    }
}

/// d, dmin, 12 bytes of scales and minima, 128 bytes of nibbles; value = d * sc * q - dmin * mn.
pub(crate) struct Q4_K;

impl Codes for Q4_K {
    const BYTES: usize = 144;
    const RANGE: [i32; 2] = [0, 15];
    type Shape = BlockScalesMinima;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        scales_and_minima(bytes, scales, cpu);
        for (codes, packed) in codes.chunks_exact_mut(64).zip(bytes[16..].chunks_exact(32)) {
            for l in 0..32 {
                codes[l] = (packed[l] & 15) + 128;
                codes[32 + l] = (packed[l] >> 4) + 128;
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q4_k(bytes, codes, scales) };
    }
}

/// As Q4_K, with 32 bytes of high bits before the nibbles.
pub(crate) struct Q5_K;

impl Codes for Q5_K {
    const BYTES: usize = 176;
    const RANGE: [i32; 2] = [0, 31];
    type Shape = BlockScalesMinima;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        scales_and_minima(bytes, scales, cpu);
        let high = &bytes[16..48];
        let packed = bytes[48..].chunks_exact(32);
        for (i, (codes, packed)) in codes.chunks_exact_mut(64).zip(packed).enumerate() {
            for l in 0..32 {
                codes[l] = (packed[l] & 15 | (high[l] >> (2 * i) & 1) << 4) + 128;
                codes[32 + l] = (packed[l] >> 4 | (high[l] >> (2 * i + 1) & 1) << 4) + 128;
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q5_k(bytes, codes, scales) };
    }
}

/// 128 bytes of nibbles, 64 bytes of high bit pairs, 16 signed scales, d; value = d * sc * (q - 32).
pub(crate) struct Q6_K;

impl Codes for Q6_K {
    const BYTES: usize = 210;
    const RANGE: [i32; 2] = [-32, 31];
    type Shape = HalfScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let d = cpu.half(&bytes[208..]);
        for (half, scale) in scales.half.iter_mut().zip(in_places(&bytes[192..208])) {
            *half = d * f32::from(scale as i8);
        }
        for (h, codes) in codes.chunks_exact_mut(128).enumerate() {
            let low = &bytes[64 * h..][..64];
            let high = &bytes[128 + 32 * h..][..32];
            for l in 0..32 {
                codes[l] = (low[l] & 15 | (high[l] & 3) << 4) + 96;
                codes[32 + l] = (low[32 + l] & 15 | (high[l] >> 2 & 3) << 4) + 96;
                codes[64 + l] = (low[l] >> 4 | (high[l] >> 4 & 3) << 4) + 96;
                codes[96 + l] = (low[32 + l] >> 4 | (high[l] >> 6 & 3) << 4) + 96;
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::q6_k(bytes, codes, scales) };
    }
}
