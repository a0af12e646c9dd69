//! IQ2_XS: 256 values in groups of 16; eight values share an entry of a 512-entry codebook.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::lattice::u16_at;
use super::lattice::{nibble, signed8};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::{IQ2XS_GRID, even_signs};

/// Block of 74 bytes: scale `d`; 32 × u16 (index in bits 0..9, sign index in bits 9..16); eight
/// bytes of scales, a nibble per group of 16. `value = ±(((d * (0.5 + s)) * 0.25) * entry)`.
pub(crate) struct Iq2Xs;

impl Format<74, 256> for Iq2Xs {
    const TYPE: TensorType = TensorType::IQ2_XS;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Required;

    #[inline(always)]
    fn decode(block: &[u8; 74], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            let code = u16_at(block, 2 + 2 * i);
            let scale = (d * (0.5 + f32::from(nibble(&block[66..], i / 2)))) * 0.25;
            let row = &IQ2XS_GRID[usize::from(code & 511)];
            signed8(row, scale, even_signs((code >> 9) as u8), out);
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 74]]) {}

    fn fault(block: &[u8; 74]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}
