//! IQ2_S: 256 values in groups of 16; eight values share an entry of a 1024-entry codebook.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::lattice::{self, Coded, Signed, nibble, pack_nibbles, signed};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::{IQ2_LEVELS, IQ2S_GRID};
use crate::search::lattice::{Again, Lattice, Start};
use crate::search::lattice_best::Decoded;
use crate::search::points::{self, Points};
use crate::simd::Simd;

/// Block of 82 bytes: scale `d`; 32 low index bytes; 32 sign bytes; eight bytes with the two high
/// index bits of four entries each; eight bytes of scales, a nibble per group of 16.
/// `value = ±(((d * (0.5 + s)) * 0.25) * entry)`.
pub(crate) struct Iq2S;

impl Format<82, 256> for Iq2S {
    const TYPE: TensorType = TensorType::IQ2_S;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 82], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (i, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let high = nibble(&block[66..], i);
            let scale = (d * (0.5 + f32::from(nibble(&block[74..], i)))) * 0.25;
            let row = |l: usize| {
                let high = usize::from(high >> (2 * l) & 3);
                &IQ2S_GRID[usize::from(block[2 + 2 * i + l]) | high << 8]
            };
            let signs = [block[34 + 2 * i], block[35 + 2 * i]];
            signed(simd, row, scale, signs, out);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 82]]) {
        lattice::encode::<Self, 82, 16, 2, 8, 2>(rows, effort, blocks);
    }
}

impl Signed<82, 16, 2, 8, 2> for Iq2S {
    const LATTICE: Lattice = Lattice {
        levels: 3,
        steps: 9,
        step: 0.1,
        zero_below: 1e-8,
        start: Start::Extreme,
        again: Again::Absent,
    };
    const EVEN: bool = false;
    const MEAN_SQUARE: (f32, f32) = (2.0, 0.5);
    const CORRECTION: f32 = 0.9875;
    const DECODED: Decoded = Decoded::new(IQ2_LEVELS, 0.125);

    fn points() -> &'static Points {
        &points::IQ2S
    }

    #[inline(always)]
    fn pack(d: u16, coded: &Coded) -> [u8; 82] {
        let mut block = [0; 82];
        block[..2].copy_from_slice(&d.to_le_bytes());
        for i in 0..32 {
            block[2 + i] = coded.rows[i] as u8;
            block[34 + i] = coded.signs[i];
            block[66 + i / 4] |= ((coded.rows[i] >> 8) as u8) << (2 * (i % 4));
        }
        pack_nibbles(&coded.scales, &mut block[74..]);
        block
    }
}
