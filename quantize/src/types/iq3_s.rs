//! IQ3_S: 256 values in groups of 32; four values share an entry of a 512-entry codebook.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::lattice::{self, Coded, Signed, nibble, pack_nibbles, signed};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::{IQ3S_GRID, IQ3S_LEVELS};
use crate::search::lattice::{Again, Lattice, Start};
use crate::search::lattice_best::Decoded;
use crate::search::points::{self, Points};
use crate::simd::Simd;

/// Block of 110 bytes: scale `d`; 64 low index bytes; eight bytes with the ninth index bits; 32 sign
/// bytes; four bytes of scales, a nibble per group of 32. `value = ±((d * (1 + 2s)) * entry)`.
pub(crate) struct Iq3S;

impl Format<110, 256> for Iq3S {
    const TYPE: TensorType = TensorType::IQ3_S;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 110], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (i, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let high = nibble(&block[66..], i);
            let scale = d * f32::from(1 + 2 * nibble(&block[106..], i / 2));
            let row = |l: usize| {
                let high = usize::from(high >> l & 1);
                &IQ3S_GRID[usize::from(block[2 + 4 * i + l]) | high << 8]
            };
            let signs = [block[74 + 2 * i], block[75 + 2 * i]];
            signed(simd, row, scale, signs, out);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 110]]) {
        lattice::encode::<Self, 110, 32, 8, 4, 3>(rows, effort, blocks);
    }
}

impl Signed<110, 32, 8, 4, 3> for Iq3S {
    const LATTICE: Lattice = Lattice {
        levels: 8,
        steps: 9,
        step: 0.2,
        zero_below: 0.0,
        start: Start::Extreme,
        again: Again::AllIfAbsent,
    };
    const EVEN: bool = false;
    const MEAN_SQUARE: (f32, f32) = (2.0, 0.0);
    const CORRECTION: f32 = 1.033;
    const DECODED: Decoded = Decoded::new(IQ3S_LEVELS, 1.0);

    fn points() -> &'static Points {
        &points::IQ3S
    }

    #[inline(always)]
    fn pack(d: u16, coded: &Coded) -> [u8; 110] {
        let mut block = [0; 110];
        block[..2].copy_from_slice(&d.to_le_bytes());
        // ggml does not move on in the index and sign bytes after a sub-block of zeros.
        let mut at = 0;
        for g in 0..8 {
            if coded.empty >> g & 1 == 1 {
                continue;
            }
            for k in 0..8 {
                let row = coded.rows[8 * g + k];
                block[2 + 8 * at + k] = row as u8;
                block[66 + g] |= ((row >> 8) as u8) << k;
            }
            block[74 + 4 * at..][..4].copy_from_slice(&coded.signs[4 * g..4 * g + 4]);
            at += 1;
        }
        pack_nibbles(&coded.scales[..8], &mut block[106..]);
        block
    }
}
