//! IQ3_S: 256 values in groups of 32; four values share an entry of a 512-entry codebook.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::lattice::{join4, nibble, signed8};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::IQ3S_GRID;

/// Block of 110 bytes: scale `d`; 64 low index bytes; eight bytes with the ninth index bits; 32 sign
/// bytes; four bytes of scales, a nibble per group of 32. `value = ±((d * (1 + 2s)) * entry)`.
pub(crate) struct Iq3S;

impl Format<110, 256> for Iq3S {
    const TYPE: TensorType = TensorType::IQ3_S;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (g, out) in out.chunks_exact_mut(32).enumerate() {
            let high = usize::from(block[66 + g]);
            let scale = d * f32::from(1 + 2 * nibble(&block[106..], g));
            for (l, out) in out.chunks_exact_mut(8).enumerate() {
                let at = 2 + 8 * g + 2 * l;
                let row = join4(
                    &IQ3S_GRID[usize::from(block[at]) | (high << (8 - 2 * l)) & 256],
                    &IQ3S_GRID[usize::from(block[at + 1]) | (high << (7 - 2 * l)) & 256],
                );
                signed8(&row, scale, block[74 + 4 * g + l], out);
            }
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 110]]) {}

    fn fault(block: &[u8; 110]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}
