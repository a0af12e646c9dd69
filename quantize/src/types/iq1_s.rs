//! IQ1_S: 256 values in groups of 32; eight values share an entry of a 2048-entry codebook.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::lattice::shifted8;
use super::lattice::u16_at;
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::IQ1S_GRID;

/// Block of 50 bytes: scale `d`; 32 low index bytes; eight u16, one per group: three high index bits
/// of each of four entries (bits 0..12), a three-bit scale `s` and the sign of the group's shift.
/// `value = (d * (2s + 1)) * (entry ± 1/8)`.
pub(crate) struct Iq1S;

impl Format<50, 256> for Iq1S {
    const TYPE: TensorType = TensorType::IQ1_S;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Required;

    #[inline(always)]
    fn decode(block: &[u8; 50], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (g, out) in out.chunks_exact_mut(32).enumerate() {
            let high = u16_at(block, 34 + 2 * g);
            let scale = d * f32::from(2 * ((high >> 12) & 7) + 1);
            for (l, out) in out.chunks_exact_mut(8).enumerate() {
                let index =
                    usize::from(block[2 + 4 * g + l]) | usize::from((high >> (3 * l)) & 7) << 8;
                shifted8(&IQ1S_GRID[index], scale, high & 0x8000 != 0, out);
            }
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 50]]) {}

    fn fault(block: &[u8; 50]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}
