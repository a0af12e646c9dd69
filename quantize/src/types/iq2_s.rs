//! IQ2_S: 256 values in groups of 16; eight values share an entry of a 1024-entry codebook.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::lattice::{nibble, signed8};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::IQ2S_GRID;

/// Block of 82 bytes: scale `d`; 32 low index bytes; 32 sign bytes; eight bytes with the two high
/// index bits of four entries each; eight bytes of scales, a nibble per group of 16.
/// `value = ±(((d * (0.5 + s)) * 0.25) * entry)`.
pub(crate) struct Iq2S;

impl Format<82, 256> for Iq2S {
    const TYPE: TensorType = TensorType::IQ2_S;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode(block: &[u8; 82], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            let high = (block[66 + i / 4] >> (2 * (i % 4))) & 3;
            let scale = (d * (0.5 + f32::from(nibble(&block[74..], i / 2)))) * 0.25;
            let row = &IQ2S_GRID[usize::from(block[2 + i]) | usize::from(high) << 8];
            signed8(row, scale, block[34 + i], out);
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 82]]) {}

    fn fault(block: &[u8; 82]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}
