//! IQ2_XXS: 256 values in groups of 32; eight values share an entry of a 256-entry codebook.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::lattice::{self, Coded, Signed, signed, u32_at};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::{IQ2_LEVELS, IQ2XXS_GRID, even_signs};
use crate::search::lattice::{Again, Lattice, Start};
use crate::search::lattice_best::Decoded;
use crate::search::points::{self, Points};
use crate::simd::Simd;

/// Block of 66 bytes: scale `d`, then eight records of eight bytes, one per group: four codebook
/// indices, then a u32 with four seven-bit sign indices (bits 0..28) and a four-bit scale `s`.
/// `value = ±(((d * (0.5 + s)) * 0.25) * entry)`.
pub(crate) struct Iq2Xxs;

impl Format<66, 256> for Iq2Xxs {
    const TYPE: TensorType = TensorType::IQ2_XXS;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Required;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 66], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (i, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let at = 2 + i / 2 * 8;
            let aux = u32_at(block, at + 4);
            let scale = (d * (0.5 + (aux >> 28) as f32)) * 0.25;
            let place = [i % 2 * 2, i % 2 * 2 + 1];
            let row = |l: usize| &IQ2XXS_GRID[usize::from(block[at + place[l]])];
            let signs = place.map(|l| even_signs((aux >> (7 * l)) as u8));
            signed(simd, row, scale, signs, out);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 66]]) {
        lattice::encode::<Self, 66, 32, 4, 8, 2>(rows, effort, blocks);
    }
}

impl Signed<66, 32, 4, 8, 2> for Iq2Xxs {
    const LATTICE: Lattice = Lattice {
        levels: 3,
        steps: 6,
        step: 0.1,
        zero_below: 1e-15,
        start: Start::Independent,
        again: Again::All,
    };
    const EVEN: bool = true;
    const MEAN_SQUARE: (f32, f32) = (1.0, 0.0);
    const CORRECTION: f32 = 1.0;
    const DECODED: Decoded = Decoded::new(IQ2_LEVELS, 0.125);

    fn points() -> &'static Points {
        &points::IQ2XXS
    }

    #[inline(always)]
    fn pack(d: u16, coded: &Coded) -> [u8; 66] {
        let mut block = [0; 66];
        block[..2].copy_from_slice(&d.to_le_bytes());
        for (g, record) in block[2..].chunks_exact_mut(8).enumerate() {
            let mut aux = u32::from(coded.scales[g]) << 28;
            for (l, index) in record[..4].iter_mut().enumerate() {
                *index = coded.rows[4 * g + l] as u8;
                aux |= u32::from(coded.signs[4 * g + l] & 127) << (7 * l);
            }
            record[4..].copy_from_slice(&aux.to_le_bytes());
        }
        block
    }
}
