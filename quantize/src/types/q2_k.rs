//! Q2_K: 256 values of 2 bits; sixteen sub-blocks with 4-bit scales and minima.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::k_quant::{self, Affine, PlainWeight};
use super::packing::{pack_two_bits, part, part_mut, unpack_two_bits};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::search::AffineSteps;

/// Sixteen bytes of scale (low) and minimum (high), 64 bytes of two-bit values, `d` and `dmin` (f16).
/// A value is `d·scale·q - dmin·minimum`.
pub(crate) struct Q2K;

impl Format<84, 256> for Q2K {
    const TYPE: TensorType = TensorType::Q2_K;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode(block: &[u8; 84], values: &mut [f32; 256]) {
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        let levels = unpack_two_bits(part::<16, 64, _>(block));
        for (j, &pair) in part::<0, 16, _>(block).iter().enumerate() {
            let scale = d * f32::from(pair & 15);
            let min = dmin * f32::from(pair >> 4);
            for e in 16 * j..16 * j + 16 {
                values[e] = scale * f32::from(levels[e]) - min;
            }
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 84]]) {
        k_quant::encode_affine::<Self, _, _, _>(rows, effort, blocks);
    }

    fn fault(block: &[u8; 84]) -> Option<&'static str> {
        f16_fault(block, 80).or_else(|| f16_fault(block, 82))
    }
}

impl Affine<84, 16, 16> for Q2K {
    const TOP: i32 = 3;
    const SCALE_TOP: i32 = 15;
    const PLAIN: AffineSteps = AffineSteps {
        first: -0.5,
        step: 0.1,
        last: 15,
        absolute: true,
    };
    const PLAIN_WEIGHT: PlainWeight = PlainWeight::Magnitude;
    const MEAN_SQUARE_FACTOR: f32 = 1.0;

    #[inline(always)]
    fn pack(
        d: u16,
        dmin: u16,
        scales: &[u8; 16],
        minima: &[u8; 16],
        levels: &[u8; 256],
    ) -> [u8; 84] {
        let mut block = [0; 84];
        for j in 0..16 {
            block[j] = scales[j] | minima[j] << 4;
        }
        pack_two_bits(levels, part_mut::<16, 64, _>(&mut block));
        *part_mut::<80, 2, _>(&mut block) = d.to_le_bytes();
        *part_mut::<82, 2, _>(&mut block) = dmin.to_le_bytes();
        block
    }
}
