//! Q3_K: 256 values of 3 bits; sixteen sub-blocks with 6-bit signed scales.

use std::array::from_fn;

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::k_quant::{self, Symmetric};
use super::packing::{pack_high_bits, pack_two_bits, part, part_mut};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::search::{
    reference_symmetric, reference_symmetric_greedy, reference_weights, signed_extreme,
};
use crate::simd::{Bytes, Float, Simd};

/// 32 bytes of high bits, 64 bytes of low two bits, twelve bytes of scales, `d` (f16).
/// A value is `d·(scale - 32)·(q - 4)`.
pub(crate) struct Q3K;

impl Format<110, 256> for Q3K {
    const TYPE: TensorType = TensorType::Q3_K;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 110], values: &mut [f32; 256]) {
        let d = f16_at(block, 108);
        let high = part::<0, 32, _>(block).as_chunks::<16>().0;
        let low = part::<32, 64, _>(block).as_chunks::<16>().0;
        let scales = unpack_scales(part::<96, 12, _>(block));
        let offset = simd.splat(4.0);
        for (j, values) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = simd.splat(d * f32::from(scales[j] as i8 - 32));
            // Bytes of the half of the block, bits of the quarter of the half; then one bit for
            // each eighth of the block.
            let low = simd.bytes(&low[j / 8 * 2 + j % 2]);
            let high = simd.bytes(&high[j % 2]).shr((j / 2) as u32);
            let low = low.shr((j % 8 / 2 * 2) as u32).and(3);
            let levels = low.or(high.and(1).shl(2));
            (scale * (simd.widen(levels) - offset)).store(values);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 110]]) {
        k_quant::encode_symmetric::<Self, _>(rows, effort, blocks);
    }
}

impl Symmetric<110> for Q3K {
    const HALF: i32 = 4;
    const SCALE_HALF: i32 = 32;

    #[inline(always)]
    fn search<S: Simd>(
        simd: S,
        x: &[S::F; 16],
        importance: Option<&[S::F; 16]>,
        mean_square: S::F,
        levels: &mut [S::F; 16],
    ) -> (S::F, S::F) {
        let zero = simd.splat(0.0);
        let Some(v) = importance else {
            return (
                reference_symmetric_greedy(simd, Self::HALF, x, levels),
                zero,
            );
        };
        let w = reference_weights(v, x, mean_square);
        let mut sum = zero;
        for &w in &w {
            sum = sum + w;
        }
        (reference_symmetric(simd, Self::HALF, x, &w, levels), sum)
    }

    #[inline(always)]
    fn quantize_scales<S: Simd>(
        simd: S,
        scales: &[S::F; 16],
        sums: Option<&[S::F; 16]>,
        levels: &mut [S::F; 16],
    ) -> S::F {
        let zero = simd.splat(0.0);
        let half = simd.splat(Self::SCALE_HALF as f32);
        if let Some(sums) = sums {
            let d = reference_symmetric(simd, Self::SCALE_HALF, scales, sums, levels);
            for level in levels.iter_mut() {
                *level = *level - half;
            }
            return d;
        }
        let (extreme, _) = signed_extreme(simd, scales);
        let is_zero = extreme.eq(zero);
        let inverse = simd.splat(-Self::SCALE_HALF as f32) / extreme;
        for (level, &scale) in levels.iter_mut().zip(scales) {
            let l = (inverse * scale).nearest(-Self::SCALE_HALF, Self::SCALE_HALF - 1);
            *level = (zero - half).select(is_zero, l);
        }
        zero.select(is_zero, simd.splat(1.0) / inverse)
    }

    #[inline(always)]
    fn pack(d: u16, scales: &[i8; 16], levels: &[u8; 256]) -> [u8; 110] {
        let mut block = [0; 110];
        pack_high_bits(levels, 2, part_mut::<0, 32, _>(&mut block));
        pack_two_bits(levels, part_mut::<32, 64, _>(&mut block));
        *part_mut::<96, 12, _>(&mut block) = pack_scales(&scales.map(|scale| (scale + 32) as u8));
        *part_mut::<108, 2, _>(&mut block) = d.to_le_bytes();
        block
    }
}

/// Sixteen six-bit scales: scale `j` has its low nibble in byte `j % 8` (low nibble for `j < 8`)
/// and its two high bits in byte `8 + j % 4` at bit `2·(j/4)`.
#[inline(always)]
fn unpack_scales(bytes: &[u8; 12]) -> [u8; 16] {
    from_fn(|j| {
        let low = bytes[j % 8] >> (4 * (j / 8)) & 15;
        let high = bytes[8 + j % 4] >> (2 * (j / 4)) & 3;
        low | high << 4
    })
}

/// Inverse of [`unpack_scales`].
#[inline(always)]
fn pack_scales(scales: &[u8; 16]) -> [u8; 12] {
    let mut bytes = [0; 12];
    for (j, scale) in scales.iter().enumerate() {
        bytes[j % 8] |= (scale & 15) << (4 * (j / 8));
        bytes[8 + j % 4] |= (scale >> 4) << (2 * (j / 4));
    }
    bytes
}
