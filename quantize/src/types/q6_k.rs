//! Q6_K: 256 values of 6 bits; sixteen sub-blocks with 8-bit signed scales.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::k_quant::{self, Symmetric};
use super::packing::{part, part_mut};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::search::{EPSILON, reference_symmetric, signed_extreme};
use crate::simd::{Float, Simd, products};

/// 128 bytes of low nibbles, 64 bytes of high two bits, sixteen signed scales, `d` (f16).
/// A value is `d·scale·(q - 32)`.
pub(crate) struct Q6K;

impl Format<210, 256> for Q6K {
    const TYPE: TensorType = TensorType::Q6_K;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(_: S, block: &[u8; 210], values: &mut [f32; 256]) {
        let d = f16_at(block, 208);
        let scales = part::<192, 16, _>(block).map(|scale| d * f32::from(scale as i8));
        let low = part::<0, 128, _>(block).as_chunks::<64>().0;
        let high = part::<128, 64, _>(block).as_chunks::<32>().0;
        for (half, values) in values.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            let (low, high) = (&low[half], &high[half]);
            for quarter in 0..4 {
                for l in 0..32 {
                    let nibble = low[32 * (quarter & 1) + l] >> (4 * (quarter / 2)) & 15;
                    let level = nibble | (high[l] >> (2 * quarter) & 3) << 4;
                    let scale = scales[8 * half + 2 * quarter + l / 16];
                    values[32 * quarter + l] = scale * f32::from(level as i8 - 32);
                }
            }
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 210]]) {
        k_quant::encode_symmetric::<Self, _>(rows, effort, blocks);
    }
}

impl Symmetric<210> for Q6K {
    const HALF: i32 = 32;
    const SCALE_HALF: i32 = 128;

    #[inline(always)]
    fn search<S: Simd>(
        simd: S,
        x: &[S::F; 16],
        importance: Option<&[S::F; 16]>,
        _mean_square: S::F,
        levels: &mut [S::F; 16],
    ) -> (S::F, S::F) {
        let w = match importance {
            Some(v) => *v,
            None => products(x, x),
        };
        (
            reference_symmetric(simd, Self::HALF, x, &w, levels),
            simd.splat(0.0),
        )
    }

    #[inline(always)]
    fn quantize_scales<S: Simd>(
        simd: S,
        scales: &[S::F; 16],
        _sums: Option<&[S::F; 16]>,
        levels: &mut [S::F; 16],
    ) -> S::F {
        let zero = simd.splat(0.0);
        let (extreme, magnitude) = signed_extreme(simd, scales);
        let is_zero = magnitude.lt(simd.splat(EPSILON));
        let inverse = simd.splat(-128.0) / extreme;
        for (level, &scale) in levels.iter_mut().zip(scales) {
            *level = zero.select(is_zero, (inverse * scale).nearest(-128, 127));
        }
        zero.select(is_zero, simd.splat(1.0) / inverse)
    }

    #[inline(always)]
    fn pack(d: u16, scales: &[i8; 16], levels: &[u8; 256]) -> [u8; 210] {
        let mut block = [0; 210];
        // Without a single scale ggml writes zero bytes, levels too.
        if *scales == [0; 16] {
            return block;
        }
        for half in 0..2 {
            let levels = &levels[128 * half..128 * half + 128];
            for l in 0..64 {
                block[64 * half + l] = levels[l] & 15 | levels[l + 64] << 4;
            }
            for l in 0..32 {
                block[128 + 32 * half + l] = levels[l] >> 4
                    | levels[l + 32] >> 4 << 2
                    | levels[l + 64] >> 4 << 4
                    | levels[l + 96] >> 4 << 6;
            }
        }
        *part_mut::<192, 16, _>(&mut block) = scales.map(|scale| scale as u8);
        *part_mut::<208, 2, _>(&mut block) = d.to_le_bytes();
        block
    }
}
