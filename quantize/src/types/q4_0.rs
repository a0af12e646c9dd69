//! Q4_0: 32 values of 4 bits and a scale.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::improve::{Improve, improve};
use super::legacy::{self, Symmetric};
use super::packing::{pack_nibbles, part, part_mut, unpack_nibbles};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::half::f32_to_f16;
use crate::search::best_symmetric;
use crate::simd::{Float, Simd};

/// `d` (f16), then nibbles. A value is `(q - 8)·d`.
pub(crate) struct Q4_0;

impl Format<18, 32> for Q4_0 {
    const TYPE: TensorType = TensorType::Q4_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 18], values: &mut [f32; 32]) {
        let d = simd.splat(f16_at(block, 0));
        let offset = simd.splat(8.0);
        let levels = unpack_nibbles(simd, part::<2, 16, _>(block));
        for (values, levels) in values.as_chunks_mut().0.iter_mut().zip(levels) {
            ((simd.widen(levels) - offset) * d).store(values);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 18]]) {
        legacy::encode_symmetric::<Self, 18>(rows, blocks);
        if effort == Effort::Best {
            improve::<Self, 18, 32>(rows, blocks);
        }
    }
}

impl Symmetric<18> for Q4_0 {
    const HALF: i32 = 8;

    #[inline(always)]
    fn pack(d: u16, levels: &[u8; 32]) -> [u8; 18] {
        let mut block = [0; 18];
        *part_mut::<0, 2, _>(&mut block) = d.to_le_bytes();
        pack_nibbles(levels, part_mut::<2, 16, _>(&mut block));
        block
    }
}

impl Improve<18, 32> for Q4_0 {
    #[inline(always)]
    fn improve<S: Simd>(
        simd: S,
        x: &[S::F; 32],
        w: &[S::F; 32],
        levels: &mut [S::F; 32],
    ) -> (S::F, S::F) {
        (
            best_symmetric(simd, Self::HALF, x, w, levels),
            simd.splat(0.0),
        )
    }

    fn assemble(d: f32, _: f32, levels: &[u8; 32]) -> [u8; 18] {
        Self::pack(f32_to_f16(d), levels)
    }
}
