//! Q4_1: 32 values of 4 bits, a scale and a minimum.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::improve::{Improve, improve};
use super::legacy::{self, Affine};
use super::packing::{pack_nibbles, part, part_mut, unpack_nibbles};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::half::f32_to_f16;
use crate::search::best_affine;
use crate::simd::{Float, Simd};

/// `d` and `m` (f16), then nibbles. A value is `q·d + m`.
pub(crate) struct Q4_1;

impl Format<20, 32> for Q4_1 {
    const TYPE: TensorType = TensorType::Q4_1;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 20], values: &mut [f32; 32]) {
        let (d, m) = (simd.splat(f16_at(block, 0)), simd.splat(f16_at(block, 2)));
        let levels = unpack_nibbles(simd, part::<4, 16, _>(block));
        for (values, levels) in values.as_chunks_mut().0.iter_mut().zip(levels) {
            (simd.widen(levels) * d + m).store(values);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 20]]) {
        legacy::encode_affine::<Self, 20>(rows, blocks);
        if effort == Effort::Best {
            improve::<Self, 20, 32>(rows, blocks);
        }
    }
}

impl Affine<20> for Q4_1 {
    const TOP: i32 = 15;

    #[inline(always)]
    fn pack(d: u16, m: u16, levels: &[u8; 32]) -> [u8; 20] {
        let mut block = [0; 20];
        *part_mut::<0, 2, _>(&mut block) = d.to_le_bytes();
        *part_mut::<2, 2, _>(&mut block) = m.to_le_bytes();
        pack_nibbles(levels, part_mut::<4, 16, _>(&mut block));
        block
    }
}

impl Improve<20, 32> for Q4_1 {
    #[inline(always)]
    fn improve<S: Simd>(
        simd: S,
        x: &[S::F; 32],
        w: &[S::F; 32],
        levels: &mut [S::F; 32],
    ) -> (S::F, S::F) {
        best_affine(simd, Self::TOP, x, w, levels)
    }

    fn assemble(d: f32, m: f32, levels: &[u8; 32]) -> [u8; 20] {
        Self::pack(f32_to_f16(d), f32_to_f16(m), levels)
    }
}
