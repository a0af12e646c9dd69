//! The types of 32-value blocks with f16 scales.

use super::super::{BLOCK, SUPER};
#[cfg(target_arch = "x86_64")]
use super::avx512::legacy as avx512;
use super::{BlockScales, BlockScalesMinima, Codes, Cpu, SuperScales};

/// The same byte eight times.
const fn repeated(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Eight bytes as a word, on which operations that carry nothing from byte to byte act side by side.
#[inline(always)]
fn word(bytes: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*bytes)
}

/// Nibbles of 16 bytes, the low ones first, plus `offset`.
#[inline(always)]
fn nibbles(packed: &[u8; 16], codes: &mut [u8; BLOCK], offset: u8) {
    five_bits([0; 4], packed, codes, offset);
}

/// [`nibbles`] with a fifth bit, bit `e % 8` of byte `e / 8` of `high` for value `e`.
#[inline(always)]
fn five_bits(high: [u8; 4], packed: &[u8; 16], codes: &mut [u8; BLOCK], offset: u8) {
    let packed = packed.as_chunks::<8>().0;
    let codes = codes.as_chunks_mut::<8>().0;
    for (i, codes) in codes.iter_mut().enumerate() {
        let low = word(&packed[i % 2]) >> (4 * (i / 2)) & repeated(15);
        let bits = u64::from(high[i]);
        // Bit e alone in byte e; then wherever there is one, bit 7; then bit 4.
        let alone = bits.wrapping_mul(repeated(1)) & 0x8040_2010_0804_0201;
        let fifth = ((alone + repeated(127)) & repeated(128)) >> 3;
        *codes = ((low | fifth) + repeated(offset)).to_le_bytes();
    }
}

/// d, then 16 bytes of nibbles; value = d * (q - 8).
pub(crate) struct Q4_0;

impl Codes for Q4_0 {
    const BYTES: usize = 8 * 18;
    const RANGE: [i32; 2] = [-8, 7];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let blocks = bytes.as_chunks::<18>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.as_chunks_mut::<BLOCK>().0).enumerate() {
            scales.scale[b] = cpu.half(block);
            let [_, _, packed @ ..] = block;
            nibbles(packed, codes, 128 - 8);
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
    const RANGE: [i32; 2] = [0, 15];
    type Shape = BlockScalesMinima;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let blocks = bytes.as_chunks::<20>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.as_chunks_mut::<BLOCK>().0).enumerate() {
            scales.scale[b] = cpu.half(block);
            scales.min[b] = cpu.half(&block[2..]);
            let [_, _, _, _, packed @ ..] = block;
            nibbles(packed, codes, 128);
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
    const RANGE: [i32; 2] = [-16, 15];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let blocks = bytes.as_chunks::<22>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.as_chunks_mut::<BLOCK>().0).enumerate() {
            scales.scale[b] = cpu.half(block);
            let &[_, _, a, b, c, d, ref packed @ ..] = block;
            five_bits([a, b, c, d], packed, codes, 128 - 16);
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
    const RANGE: [i32; 2] = [0, 31];
    type Shape = BlockScalesMinima;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let blocks = bytes.as_chunks::<24>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.as_chunks_mut::<BLOCK>().0).enumerate() {
            scales.scale[b] = cpu.half(block);
            scales.min[b] = cpu.half(&block[2..]);
            let &[_, _, _, _, a, b, c, d, ref packed @ ..] = block;
            five_bits([a, b, c, d], packed, codes, 128);
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
    const RANGE: [i32; 2] = [-128, 127];
    type Shape = BlockScales;

    #[inline(always)]
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu) {
        let blocks = bytes.as_chunks::<34>().0.iter();
        for (b, (block, codes)) in blocks.zip(codes.as_chunks_mut::<BLOCK>().0).enumerate() {
            scales.scale[b] = cpu.half(block);
            let [_, _, signed @ ..] = block;
            let words = signed.as_chunks::<8>().0.iter();
            for (codes, signed) in codes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
                *codes = (word(signed) ^ repeated(0x80)).to_le_bytes();
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
