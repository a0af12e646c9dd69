//! Pieces shared by the types with lattice codebooks.

/// Nibble `i` of packed bytes, low nibble first.
#[inline(always)]
pub(super) fn nibble(bytes: &[u8], i: usize) -> u8 {
    (bytes[i / 2] >> (4 * (i % 2))) & 15
}

/// Two rows of four as one of eight.
#[inline(always)]
pub(super) fn join4(a: &[i8; 4], b: &[i8; 4]) -> [i8; 8] {
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// `scale * row`, negated where `signs` has a bit.
#[inline(always)]
pub(super) fn signed8(row: &[i8; 8], scale: f32, signs: u8, out: &mut [f32]) {
    for (j, (value, &entry)) in out.iter_mut().zip(row).enumerate() {
        let magnitude = scale * f32::from(entry);
        let sign = (u32::from(signs) << (31 - j)) & 0x8000_0000;
        *value = f32::from_bits(magnitude.to_bits() ^ sign);
    }
}

/// `scale * (row ± 1/8)`.
#[inline(always)]
pub(super) fn shifted8(row: &[i8; 8], scale: f32, minus: bool, out: &mut [f32]) {
    let shift = if minus { -0.125 } else { 0.125 };
    for (value, &entry) in out.iter_mut().zip(row) {
        *value = scale * (f32::from(entry) + shift);
    }
}

/// The u16 at byte `at`.
#[inline(always)]
pub(super) fn u16_at<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The u32 at byte `at`.
#[inline(always)]
pub(super) fn u32_at<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}
