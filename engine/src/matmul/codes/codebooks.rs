//! Indices into codebooks of 4 or 8 values, with signs apart: the IQ1, IQ2 and IQ3 types.
#![allow(non_camel_case_types)]

use gristmill_quantize::codebooks::{
    IQ1S_GRID, IQ2S_GRID, IQ2XS_GRID, IQ2XXS_GRID, IQ3S_GRID, IQ3XXS_GRID, even_signs,
};

use super::super::SUPER;
#[cfg(target_arch = "x86_64")]
use super::avx512::codebooks as avx512;
use super::{BlockScales, Codes, Cpu, HalfScales, SuperScales, place};

/// Codes of an entry whose values are negative where the bits of `signs` are set.
#[inline(always)]
fn signed<const N: usize>(entry: &[i8; N], signs: u8, codes: &mut [u8]) {
    for j in 0..N {
        let flip = ((signs >> j) & 1).wrapping_neg(); // all ones for a negative value
        codes[j] = ((entry[j] as u8 ^ flip).wrapping_sub(flip)) ^ 0x80;
    }
}

#[inline(always)]
fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[inline(always)]
fn short(bytes: &[u8]) -> u16 {
    u16::from_le_bytes([bytes[0], bytes[1]])
}

/// Nibble `i` of some bytes.
#[inline(always)]
fn nibble(bytes: &[u8], i: usize) -> f32 {
    f32::from(bytes[i / 2] >> (4 * (i % 2)) & 15)
}

/// Sign bits of group `k` of four, 7 bits each, in a word.
#[inline(always)]
fn word_signs(word: u32, k: usize) -> u8 {
    even_signs((word >> (7 * k) & 127) as u8)
}

/// d, then for each block four indices and a word: four sign indices and a scale;
/// value = d * (0.5 + s) / 4 * entry.
pub(crate) struct IQ2_XXS;

impl Codes for IQ2_XXS {
    const BYTES: usize = 66;
    const RANGE: [i32; 2] = [-43, 43];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let d = cpu.half(bytes);
        let records = bytes[2..].as_chunks::<8>().0.iter();
        for (b, (record, codes)) in records.zip(codes.chunks_exact_mut(32)).enumerate() {
            let word = word(&record[4..]);
            scales.scale[b] = d * (0.5 + (word >> 28) as f32) * 0.25;
            for (k, codes) in codes.chunks_exact_mut(8).enumerate() {
                let entry = &IQ2XXS_GRID[usize::from(record[k])];
                signed(entry, word_signs(word, k), codes);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::iq2_xxs(bytes, codes, scales) };
    }
}

/// d, 32 words of a 9-bit index and a sign index, 16 scale nibbles; value as IQ2_XXS.
pub(crate) struct IQ2_XS;

impl Codes for IQ2_XS {
    const BYTES: usize = 74;
    const RANGE: [i32; 2] = [-43, 43];
    type Shape = HalfScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let d = cpu.half(bytes);
        for j in 0..16 {
            scales.half[place(j)] = d * (0.5 + nibble(&bytes[66..], j)) * 0.25;
        }
        for (i, codes) in codes.chunks_exact_mut(8).enumerate() {
            let word = short(&bytes[2 + 2 * i..]);
            let entry = &IQ2XS_GRID[usize::from(word & 511)];
            signed(entry, even_signs((word >> 9) as u8), codes);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::iq2_xs(bytes, codes, scales) };
    }
}

/// d, 32 low index bytes, 32 sign bytes, 8 bytes of high index bits, 16 scale nibbles; value as IQ2_XXS.
pub(crate) struct IQ2_S;

impl Codes for IQ2_S {
    const BYTES: usize = 82;
    const RANGE: [i32; 2] = [-43, 43];
    type Shape = HalfScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let d = cpu.half(bytes);
        for j in 0..16 {
            scales.half[place(j)] = d * (0.5 + nibble(&bytes[74..], j)) * 0.25;
        }
        for (i, codes) in codes.chunks_exact_mut(8).enumerate() {
            let high = bytes[66 + i / 4] >> (2 * (i % 4)) & 3;
            let entry = &IQ2S_GRID[usize::from(bytes[2 + i]) | usize::from(high) << 8];
            signed(entry, bytes[34 + i], codes);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::iq2_s(bytes, codes, scales) };
    }
}

/// d, 64 indices, then for each block a word as in IQ2_XXS; value = d * (0.5 + s) / 2 * entry.
pub(crate) struct IQ3_XXS;

impl Codes for IQ3_XXS {
    const BYTES: usize = 98;
    const RANGE: [i32; 2] = [-62, 62];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let d = cpu.half(bytes);
        for (b, codes) in codes.chunks_exact_mut(32).enumerate() {
            let word = word(&bytes[66 + 4 * b..]);
            scales.scale[b] = d * (0.5 + (word >> 28) as f32) * 0.5;
            for (k, codes) in codes.chunks_exact_mut(4).enumerate() {
                let entry = &IQ3XXS_GRID[usize::from(bytes[2 + 8 * b + k])];
                signed(entry, word_signs(word, k / 2) >> (4 * (k % 2)), codes);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::iq3_xxs(bytes, codes, scales) };
    }
}

/// d, 64 low index bytes, 8 bytes of high index bits, 32 sign bytes, 8 scale nibbles;
/// value = d * (1 + 2 * s) * entry.
pub(crate) struct IQ3_S;

impl Codes for IQ3_S {
    const BYTES: usize = 110;
    const RANGE: [i32; 2] = [-15, 15];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let d = cpu.half(bytes);
        for b in 0..8 {
            scales.scale[b] = d * (1.0 + 2.0 * nibble(&bytes[106..], b));
        }
        for (k, codes) in codes.chunks_exact_mut(4).enumerate() {
            let high = usize::from(bytes[66 + k / 8] >> (k % 8) & 1);
            let entry = &IQ3S_GRID[usize::from(bytes[2 + k]) | high << 8];
            signed(entry, bytes[74 + k / 2] >> (4 * (k % 2)), codes);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::iq3_s(bytes, codes, scales) };
    }
}

/// Codes of eight times an entry of -1, 0, 1, plus 1, or minus 1 where `minus`.
#[inline(always)]
fn shifted(entry: &[i8; 8], minus: bool, codes: &mut [u8]) {
    let shift = if minus { 127 } else { 129 };
    for j in 0..8 {
        codes[j] = (8 * entry[j]) as u8 ^ 0x80;
        codes[j] = codes[j].wrapping_add(shift).wrapping_sub(128);
    }
}

/// d, 32 low index bytes, 8 words of high index bits, scale and sign of the shift;
/// value = d * (2 * s + 1) * (entry ± 1/8).
pub(crate) struct IQ1_S;

impl Codes for IQ1_S {
    const BYTES: usize = 50;
    const RANGE: [i32; 2] = [-9, 9];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let d = cpu.half(bytes);
        for (b, codes) in codes.chunks_exact_mut(32).enumerate() {
            let word = short(&bytes[34 + 2 * b..]);
            scales.scale[b] = d * f32::from(2 * (word >> 12 & 7) + 1) * 0.125;
            for (k, codes) in codes.chunks_exact_mut(8).enumerate() {
                let high = usize::from(word >> (3 * k) & 7) << 8;
                let entry = &IQ1S_GRID[usize::from(bytes[2 + 4 * b + k]) | high];
                shifted(entry, word >> 15 != 0, codes);
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::iq1_s(bytes, codes, scales) };
    }
}

/// 32 low index bytes, 32 nibbles of high index bits and sign of the shift, 4 words of scales with
/// the bits of d on top; value as IQ1_S.
pub(crate) struct IQ1_M;

impl Codes for IQ1_M {
    const BYTES: usize = 56;
    const RANGE: [i32; 2] = [-9, 9];
    type Shape = HalfScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let words: [u16; 4] = std::array::from_fn(|i| short(&bytes[48 + 2 * i..]));
        let d = words
            .iter()
            .rev()
            .fold(0, |bits, word| bits << 4 | word >> 12);
        let d = cpu.half(&d.to_le_bytes());
        for j in 0..16 {
            let s = words[j / 4] >> (3 * (j % 4)) & 7;
            scales.half[place(j)] = d * f32::from(2 * s + 1) * 0.125;
        }
        for (i, codes) in codes.chunks_exact_mut(8).enumerate() {
            let high = bytes[32 + i / 2] >> (4 * (i % 2));
            let entry = &IQ1S_GRID[usize::from(bytes[i]) | usize::from(high & 7) << 8];
            shifted(entry, high & 8 != 0, codes);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales) {
        // SAFETY: the caller's promise.
        unsafe { avx512::iq1_m(bytes, codes, scales) };
    }
}
