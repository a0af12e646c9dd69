//! IQ3_XXS: 256 values in groups of 32; four values share an entry of a 256-entry codebook.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::lattice::u32_at;
use super::lattice::{join4, signed8};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::{IQ3XXS_GRID, even_signs};

/// Block of 98 bytes: scale `d`; 64 codebook indices; eight u32, one per group, with four seven-bit
/// sign indices (eight values each) and a four-bit scale `s`.
/// `value = ±(((d * (0.5 + s)) * 0.5) * entry)`.
pub(crate) struct Iq3Xxs;

impl Format<98, 256> for Iq3Xxs {
    const TYPE: TensorType = TensorType::IQ3_XXS;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode(block: &[u8; 98], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (g, out) in out.chunks_exact_mut(32).enumerate() {
            let aux = u32_at(block, 66 + 4 * g);
            let scale = (d * (0.5 + (aux >> 28) as f32)) * 0.5;
            for (l, out) in out.chunks_exact_mut(8).enumerate() {
                let at = 2 + 8 * g + 2 * l;
                let row = join4(
                    &IQ3XXS_GRID[usize::from(block[at])],
                    &IQ3XXS_GRID[usize::from(block[at + 1])],
                );
                signed8(&row, scale, even_signs((aux >> (7 * l)) as u8), out);
            }
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 98]]) {}

    fn fault(block: &[u8; 98]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}
