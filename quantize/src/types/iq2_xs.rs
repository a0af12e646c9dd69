//! IQ2_XS: 256 values in groups of 16; eight values share an entry of a 512-entry codebook.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::lattice::{self, Coded, Signed, nibble, pack_nibbles, signed, u16_at};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::{IQ2_LEVELS, IQ2XS_GRID, even_signs};
use crate::search::lattice::{Again, Lattice, Start};
use crate::search::lattice_best::Decoded;
use crate::search::points::{self, Points};
use crate::simd::Simd;

/// Block of 74 bytes: scale `d`; 32 × u16 (index in bits 0..9, sign index in bits 9..16); eight
/// bytes of scales, a nibble per group of 16. `value = ±(((d * (0.5 + s)) * 0.25) * entry)`.
pub(crate) struct Iq2Xs;

impl Format<74, 256> for Iq2Xs {
    const TYPE: TensorType = TensorType::IQ2_XS;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Required;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 74], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (i, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let codes = [u16_at(block, 2 + 4 * i), u16_at(block, 4 + 4 * i)];
            let scale = (d * (0.5 + f32::from(nibble(&block[66..], i)))) * 0.25;
            let row = |l: usize| &IQ2XS_GRID[usize::from(codes[l] & 511)];
            let signs = codes.map(|code| even_signs((code >> 9) as u8));
            signed(simd, row, scale, signs, out);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 74]]) {
        lattice::encode::<Self, 74, 16, 2, 8, 2>(rows, effort, blocks);
    }
}

impl Signed<74, 16, 2, 8, 2> for Iq2Xs {
    const LATTICE: Lattice = Lattice {
        levels: 3,
        steps: 9,
        step: 0.1,
        zero_below: 1e-15,
        start: Start::Extreme,
        again: Again::Absent,
    };
    const EVEN: bool = true;
    const MEAN_SQUARE: (f32, f32) = (1.0, 0.0);
    const CORRECTION: f32 = 1.0;
    const DECODED: Decoded = Decoded::new(IQ2_LEVELS, 0.125);

    fn points() -> &'static Points {
        &points::IQ2XS
    }

    #[inline(always)]
    fn pack(d: u16, coded: &Coded) -> [u8; 74] {
        let mut block = [0; 74];
        block[..2].copy_from_slice(&d.to_le_bytes());
        for (i, code) in block[2..66].chunks_exact_mut(2).enumerate() {
            let signs = u16::from(coded.signs[i] & 127);
            code.copy_from_slice(&(coded.rows[i] | signs << 9).to_le_bytes());
        }
        pack_nibbles(&coded.scales, &mut block[66..]);
        block
    }
}
