//! Four-bit indices into a table of 16 values: IQ4_NL, IQ4_XS, MXFP4, NVFP4.
#![allow(non_camel_case_types)]

use gristmill_quantize::codebooks::{E2M1_DOUBLED, IQ4_VALUES, e8m0_half, ue4m3_half};

use super::super::{BLOCK, SUPER};
#[cfg(target_arch = "x86_64")]
use super::avx512::nibbles as avx512;
use super::{BlockScales, Codes, Cpu, HalfScales, SuperScales, place};

/// A table of signed values as codes.
const fn codes_of(values: &[i8; 16]) -> [u8; 16] {
    let mut codes = [0; 16];
    let mut i = 0;
    while i < 16 {
        codes[i] = values[i] as u8 ^ 0x80;
        i += 1;
    }
    codes
}

/// Codes of [`IQ4_VALUES`].
pub(super) const IQ4: [u8; 16] = codes_of(&IQ4_VALUES);
/// Codes of [`E2M1_DOUBLED`].
pub(super) const E2M1: [u8; 16] = codes_of(&E2M1_DOUBLED);

/// d, then 16 bytes of nibbles; value = d * table[q].
pub(crate) struct IQ4_NL;

impl Codes for IQ4_NL {
    const BYTES: usize = 8 * 18;
    const RANGE: [i32; 2] = [-127, 113];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let blocks = bytes.as_chunks::<18>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.chunks_exact_mut(BLOCK)).enumerate() {
            scales.scale[b] = cpu.half(block);
            cpu.look_up(&block[2..], codes, &IQ4);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::iq4_nl(bytes, codes, scales) };
    }
}

/// d, high bit pairs and low nibbles of 8 six-bit scales, then 16 bytes of nibbles a block;
/// value = d * (sc - 32) * table[q].
pub(crate) struct IQ4_XS;

impl Codes for IQ4_XS {
    const BYTES: usize = 136;
    const RANGE: [i32; 2] = [-127, 113];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let d = cpu.half(bytes);
        let high = u16::from_le_bytes([bytes[2], bytes[3]]);
        for b in 0..8 {
            let low = bytes[4 + b / 2] >> (4 * (b % 2)) & 15;
            let scale = low | ((high >> (2 * b) & 3) << 4) as u8;
            scales.scale[b] = d * f32::from(scale as i8 - 32);
        }
        for (codes, packed) in codes
            .chunks_exact_mut(BLOCK)
            .zip(bytes[8..].chunks_exact(16))
        {
            cpu.look_up(packed, codes, &IQ4);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::iq4_xs(bytes, codes, scales) };
    }
}

/// An exponent byte, then 16 bytes of nibbles; value = 2^(e - 128) * table[q].
pub(crate) struct MXFP4;

impl Codes for MXFP4 {
    const BYTES: usize = 8 * 17;
    const RANGE: [i32; 2] = [-12, 12];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let blocks = bytes.as_chunks::<17>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.chunks_exact_mut(BLOCK)).enumerate() {
            scales.scale[b] = e8m0_half(block[0]);
            cpu.look_up(&block[1..], codes, &E2M1);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::mxfp4(bytes, codes, scales) };
    }
}

/// Blocks of 64: four 8-bit float scales, one for 16 values each, then 8 bytes of nibbles each;
/// value = scale * table[q].
pub(crate) struct NVFP4;

impl Codes for NVFP4 {
    const BYTES: usize = 4 * 36;
    const RANGE: [i32; 2] = [-12, 12];
    type Shape = HalfScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let blocks = bytes.as_chunks::<36>().0.iter();
        for (i, (block, codes)) in blocks.zip(codes.chunks_exact_mut(64)).enumerate() {
            for s in 0..4 {
                scales.half[place(4 * i + s)] = ue4m3_half(block[s]);
                cpu.look_up(&block[4 + 8 * s..][..8], &mut codes[16 * s..][..16], &E2M1);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::nvfp4(bytes, codes, scales) };
    }
}
