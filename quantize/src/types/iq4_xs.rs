//! IQ4_XS: 256 values, four bits each into the table of IQ4_NL, a six-bit scale per 32.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::lattice::u16_at;
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::IQ4_VALUES;

/// Block of 136 bytes: scale `d`; `scales_h` (u16, two high bits per group); `scales_l` (four bytes,
/// a low nibble per group); 128 code bytes, 16 per group in the order of IQ4_NL.
/// `value = (d * (scale - 32)) * table[code]`.
pub(crate) struct Iq4Xs;

impl Format<136, 256> for Iq4Xs {
    const TYPE: TensorType = TensorType::IQ4_XS;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode(block: &[u8; 136], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (g, out) in out.chunks_exact_mut(32).enumerate() {
            let dl = d * scale(block, g) as f32;
            let codes = &block[8 + 16 * g..][..16];
            let (low, high) = out.split_at_mut(16);
            for j in 0..16 {
                low[j] = dl * f32::from(IQ4_VALUES[usize::from(codes[j] & 15)]);
                high[j] = dl * f32::from(IQ4_VALUES[usize::from(codes[j] >> 4)]);
            }
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 136]]) {}

    fn fault(block: &[u8; 136]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}

/// The signed scale of group `g` of a block.
#[inline(always)]
pub(super) fn scale(block: &[u8; 136], g: usize) -> i32 {
    let low = (block[4 + g / 2] >> (4 * (g % 2))) & 15;
    let high = (u16_at(block, 2) >> (2 * g)) & 3;
    i32::from(low) + 16 * i32::from(high) - 32
}
