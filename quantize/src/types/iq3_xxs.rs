//! IQ3_XXS: 256 values in groups of 32; four values share an entry of a 256-entry codebook.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::lattice::{self, Coded, Signed, signed, u32_at};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::{IQ3XXS_GRID, IQ3XXS_LEVELS, even_signs};
use crate::search::lattice::{Again, Lattice, Start};
use crate::search::lattice_best::Decoded;
use crate::search::points::{self, Points};
use crate::simd::Simd;

/// Block of 98 bytes: scale `d`; 64 codebook indices; eight u32, one per group, with four seven-bit
/// sign indices (eight values each) and a four-bit scale `s`.
/// `value = ±(((d * (0.5 + s)) * 0.5) * entry)`.
pub(crate) struct Iq3Xxs;

impl Format<98, 256> for Iq3Xxs {
    const TYPE: TensorType = TensorType::IQ3_XXS;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 98], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (i, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let aux = u32_at(block, 66 + i / 2 * 4);
            let scale = (d * (0.5 + (aux >> 28) as f32)) * 0.5;
            let row = |l: usize| &IQ3XXS_GRID[usize::from(block[2 + 4 * i + l])];
            let place = [i % 2 * 2, i % 2 * 2 + 1];
            let signs = place.map(|l| even_signs((aux >> (7 * l)) as u8));
            signed(simd, row, scale, signs, out);
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
