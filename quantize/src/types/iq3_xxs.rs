//! IQ3_XXS: 256 values in groups of 32; four values share an entry of a 256-entry codebook.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::lattice::{self, Coded, Signed, join4, signed8, u32_at};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::{IQ3XXS_GRID, IQ3XXS_LEVELS, even_signs};
use crate::search::lattice::{Again, Lattice, Start};
use crate::search::lattice_best::Decoded;
use crate::search::points::{self, Points};

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

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 98]]) {
        lattice::encode::<Self, 98, 32, 8, 4, 3>(rows, effort, blocks);
    }
}

impl Signed<98, 32, 8, 4, 3> for Iq3Xxs {
    const LATTICE: Lattice = Lattice {
        levels: 8,
        steps: 15,
        step: 0.2,
        zero_below: 1e-8,
        start: Start::Extreme,
        again: Again::Absent,
    };
    const EVEN: bool = true;
    const MEAN_SQUARE: (f32, f32) = (2.0, 0.0);
    const CORRECTION: f32 = 1.0125;
    const DECODED: Decoded = Decoded::new(IQ3XXS_LEVELS, 0.25);

    fn points() -> &'static Points {
        &points::IQ3XXS
    }

    #[inline(always)]
    fn pack(d: u16, coded: &Coded) -> [u8; 98] {
        let mut block = [0; 98];
        block[..2].copy_from_slice(&d.to_le_bytes());
        for i in 0..64 {
            block[2 + i] = coded.rows[i] as u8;
        }
        for (g, aux) in block[66..].chunks_exact_mut(4).enumerate() {
            let mut bits = u32::from(coded.scales[g]) << 28;
            for l in 0..4 {
                bits |= u32::from(coded.signs[4 * g + l] & 127) << (7 * l);
            }
            aux.copy_from_slice(&bits.to_le_bytes());
        }
        block
    }
}
