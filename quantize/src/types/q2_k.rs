//! Q2_K: 256 values of 2 bits; sixteen sub-blocks with 4-bit scales and minima.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::k_quant::{self, Affine, PlainWeight};
use super::packing::{pack_two_bits, part, part_mut};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::search::AffineSteps;
use crate::simd::{Bytes, Float, Simd};

/// Sixteen bytes of scale (low) and minimum (high), 64 bytes of two-bit values, `d` and `dmin` (f16).
/// A value is `d·scale·q - dmin·minimum`.
pub(crate) struct Q2K;

impl Format<84, 256> for Q2K {
    const TYPE: TensorType = TensorType::Q2_K;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 84], values: &mut [f32; 256]) {
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        let pairs = part::<0, 16, _>(block);
        let bytes = part::<16, 64, _>(block).as_chunks::<16>().0;
        for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = simd.splat(d * f32::from(pairs[j] & 15));
            let min = simd.splat(dmin * f32::from(pairs[j] >> 4));
            // Bytes of the half of the block, bits of the quarter of the half.
            let levels = simd.bytes(&bytes[j / 8 * 2 + j % 2]);
            let levels = levels.shr((j % 8 / 2 * 2) as u32).and(3);
            (scale * simd.widen(levels) - min).store(values);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 84]]) {
        k_quant::encode_affine::<Self, _, _, _>(rows, effort, blocks);
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
