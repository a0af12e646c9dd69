//! Packing that several types share.

use crate::simd::{Bytes, Float, Simd};

/// Sixteen bytes for 32 values below 16: byte `j` holds value `j` low and value `j + 16` high.
#[inline(always)]
pub(crate) fn pack_nibbles(levels: &[u8; 32], bytes: &mut [u8; 16]) {
    for j in 0..16 {
        bytes[j] = levels[j] & 15 | levels[j + 16] << 4;
    }
}

/// Bit 4 of 32 values below 32: value `e` in bit `e`.
#[inline(always)]
pub(crate) fn pack_fifth_bits(levels: &[u8; 32]) -> u32 {
    let mut bits = [0; 4];
    for (bits, levels) in bits.iter_mut().zip(levels.as_chunks().0) {
        // One bit of each byte; the product brings them together in the highest byte.
        let ones = u64::from_le_bytes(*levels) >> 4 & 0x0101_0101_0101_0101;
        *bits = (ones.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
    }
    u32::from_le_bytes(bits)
}

/// Inverse of [`pack_nibbles`]: the first sixteen values, then the others.
#[inline(always)]
pub(crate) fn unpack_nibbles<S: Simd>(simd: S, bytes: &[u8; 16]) -> [S::B; 2] {
    let bytes = simd.bytes(bytes);
    [bytes.and(15), bytes.shr(4)]
}

/// Values of a table times a scale, their places in the table packed by [`pack_nibbles`].
#[inline(always)]
pub(crate) fn decode_nibbles<S: Simd>(
    simd: S,
    table: &[i8; 16],
    bytes: &[u8; 16],
    scale: S::F,
    values: &mut [f32; 32],
) {
    let table = simd.bytes(&table.map(|value| value as u8));
    let places = unpack_nibbles(simd, bytes);
    for (values, places) in values.as_chunks_mut().0.iter_mut().zip(places) {
        (simd.widen_signed(places.lookup(table)) * scale).store(values);
    }
}

/// Inverse of [`pack_fifth_bits`], little-endian: those of the first sixteen values, then of the others.
#[inline(always)]
pub(crate) fn fifth_bits(bytes: &[u8; 4]) -> [u16; 2] {
    let bits = u32::from_le_bytes(*bytes);
    [bits as u16, (bits >> 16) as u16]
}

/// The eight (scale, minimum) pairs of six bits in the twelve bytes of Q4_K and Q5_K.
#[inline(always)]
pub(crate) fn unpack_six_bit_pairs(bytes: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut minima) = ([0; 8], [0; 8]);
    for j in 0..4 {
        scales[j] = bytes[j] & 63;
        minima[j] = bytes[j + 4] & 63;
        scales[j + 4] = bytes[j + 8] & 15 | bytes[j] >> 6 << 4;
        minima[j + 4] = bytes[j + 8] >> 4 | bytes[j + 4] >> 6 << 4;
    }
    (scales, minima)
}

/// Inverse of [`unpack_six_bit_pairs`].
#[inline(always)]
pub(crate) fn pack_six_bit_pairs(scales: &[u8; 8], minima: &[u8; 8]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for j in 0..4 {
        bytes[j] = scales[j] | scales[j + 4] >> 4 << 6;
        bytes[j + 4] = minima[j] | minima[j + 4] >> 4 << 6;
        bytes[j + 8] = scales[j + 4] & 15 | minima[j + 4] << 4;
    }
    bytes
}

/// 256 values below 4 in 64 bytes: value `e` is in byte `32·(e/128) + e%32`, at bit `2·(e%128/32)`.
#[inline(always)]
pub(crate) fn pack_two_bits(levels: &[u8; 256], bytes: &mut [u8; 64]) {
    for (half, bytes) in bytes.chunks_exact_mut(32).enumerate() {
        let levels = &levels[128 * half..128 * half + 128];
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = levels[l] & 3
                | (levels[l + 32] & 3) << 2
                | (levels[l + 64] & 3) << 4
                | levels[l + 96] << 6;
        }
    }
}

/// One bit of 256 values in 32 bytes: value `e` is bit `e/32` of byte `e%32`. `bit` gives it from a
/// level.
#[inline(always)]
pub(crate) fn pack_high_bits(levels: &[u8; 256], bit: u32, bytes: &mut [u8; 32]) {
    for (l, byte) in bytes.iter_mut().enumerate() {
        *byte = 0;
        for eighth in 0..8 {
            *byte |= (levels[32 * eighth + l] >> bit & 1) << eighth;
        }
    }
}

/// The `LEN` bytes at `AT`.
#[inline(always)]
pub(crate) fn part<const AT: usize, const LEN: usize, const BYTES: usize>(
    block: &[u8; BYTES],
) -> &[u8; LEN] {
    const { assert!(AT + LEN <= BYTES) }
    block[AT..].first_chunk().expect("asserted at compile time")
}

/// The `LEN` bytes at `AT`, to write.
#[inline(always)]
pub(crate) fn part_mut<const AT: usize, const LEN: usize, const BYTES: usize>(
    block: &mut [u8; BYTES],
) -> &mut [u8; LEN] {
    const { assert!(AT + LEN <= BYTES) }
    block[AT..]
        .first_chunk_mut()
        .expect("asserted at compile time")
}

/// 256 values below 16 (higher bits are dropped) in 128 bytes: value `e` is in byte
/// `32·(e/64) + e%32`, low nibble if `e%64 < 32`.
#[inline(always)]
pub(crate) fn pack_nibble_pairs(levels: &[u8; 256], bytes: &mut [u8; 128]) {
    for (levels, bytes) in levels
        .as_chunks::<64>()
        .0
        .iter()
        .zip(bytes.chunks_exact_mut(32))
    {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = levels[l] & 15 | levels[l + 32] << 4;
        }
    }
}
