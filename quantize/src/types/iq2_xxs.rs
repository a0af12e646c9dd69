//! IQ2_XXS: 256 values in groups of 32; eight values share an entry of a 256-entry codebook.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::lattice::signed8;
use super::lattice::u32_at;
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::{IQ2XXS_GRID, even_signs};

/// Block of 66 bytes: scale `d`, then eight records of eight bytes, one per group: four codebook
/// indices, then a u32 with four seven-bit sign indices (bits 0..28) and a four-bit scale `s`.
/// `value = ±(((d * (0.5 + s)) * 0.25) * entry)`.
pub(crate) struct Iq2Xxs;

impl Format<66, 256> for Iq2Xxs {
    const TYPE: TensorType = TensorType::IQ2_XXS;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Required;

    #[inline(always)]
    fn decode(block: &[u8; 66], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (g, out) in out.chunks_exact_mut(32).enumerate() {
            let at = 2 + 8 * g;
            let aux = u32_at(block, at + 4);
            let scale = (d * (0.5 + (aux >> 28) as f32)) * 0.25;
            for (l, out) in out.chunks_exact_mut(8).enumerate() {
                let row = &IQ2XXS_GRID[usize::from(block[at + l])];
                signed8(row, scale, even_signs((aux >> (7 * l)) as u8), out);
            }
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 66]]) {}

    fn fault(block: &[u8; 66]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}
