//! Q4_K: 256 values of 4 bits; eight sub-blocks with 6-bit scales and minima.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::k_quant::{self, Affine, PlainWeight};
use super::packing::{pack_nibble_pairs, pack_six_bit_pairs, part, part_mut, unpack_six_bit_pairs};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::search::AffineSteps;
use crate::simd::Simd;

/// `d` and `dmin` (f16), twelve bytes of scales and minima, 128 bytes of nibbles.
/// A value is `d·scale·q - dmin·minimum`.
pub(crate) struct Q4K;

impl Format<144, 256> for Q4K {
    const TYPE: TensorType = TensorType::Q4_K;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(_: S, block: &[u8; 144], values: &mut [f32; 256]) {
        let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
        let (scales, minima) = unpack_six_bit_pairs(part::<4, 12, _>(block));
        let nibbles = part::<16, 128, _>(block).as_chunks::<32>().0;
        for (pair, (nibbles, values)) in nibbles
            .iter()
            .zip(values.as_chunks_mut::<64>().0)
            .enumerate()
        {
            let (a, b) = (2 * pair, 2 * pair + 1);
            let (scale_a, min_a) = (d * f32::from(scales[a]), dmin * f32::from(minima[a]));
            let (scale_b, min_b) = (d * f32::from(scales[b]), dmin * f32::from(minima[b]));
            for l in 0..32 {
                values[l] = scale_a * f32::from(nibbles[l] & 15) - min_a;
                values[l + 32] = scale_b * f32::from(nibbles[l] >> 4) - min_b;
            }
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 144]]) {
        k_quant::encode_affine::<Self, _, _, _>(rows, effort, blocks);
    }
}

impl Affine<144, 8, 32> for Q4K {
    const TOP: i32 = 15;
    const SCALE_TOP: i32 = 63;
    const PLAIN: AffineSteps = AffineSteps {
        first: -1.0,
        step: 0.1,
        last: 20,
        absolute: false,
    };
    const PLAIN_WEIGHT: PlainWeight = PlainWeight::RootMeanSquarePlusMagnitude;
    const MEAN_SQUARE_FACTOR: f32 = 2.0;

    #[inline(always)]
    fn pack(
        d: u16,
        dmin: u16,
        scales: &[u8; 8],
        minima: &[u8; 8],
        levels: &[u8; 256],
    ) -> [u8; 144] {
        let mut block = [0; 144];
        *part_mut::<0, 2, _>(&mut block) = d.to_le_bytes();
        *part_mut::<2, 2, _>(&mut block) = dmin.to_le_bytes();
        *part_mut::<4, 12, _>(&mut block) = pack_six_bit_pairs(scales, minima);
        pack_nibble_pairs(levels, part_mut::<16, 128, _>(&mut block));
        block
    }
}
