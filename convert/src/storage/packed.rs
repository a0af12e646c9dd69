//! Small integers packed into 32-bit words, least significant first.

use crate::checkpoint::Stored;

/// The words of a stored tensor.
pub(super) fn words(stored: &Stored) -> &[[u8; 4]] {
    stored.bytes().as_chunks::<4>().0
}

/// Field `at` of a word, `bits` wide.
pub(super) fn field(word: [u8; 4], at: usize, bits: usize) -> u32 {
    u32::from_le_bytes(word) >> (at * bits) & ((1 << bits) - 1)
}
