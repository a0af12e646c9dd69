//! Q5_0: 32 values of 5 bits and a scale.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::improve::{Improve, improve};
use super::legacy::{self, Symmetric};
use super::packing::{fifth_bits, pack_fifth_bits, pack_nibbles, part, part_mut, unpack_nibbles};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::half::f32_to_f16;
use crate::search::best_symmetric;
use crate::simd::{Float, Simd};

/// `d` (f16), the fifth bits (u32), then nibbles. A value is `(q - 16)·d`.
pub(crate) struct Q5_0;

impl Format<22, 32> for Q5_0 {
    const TYPE: TensorType = TensorType::Q5_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 22], values: &mut [f32; 32]) {
        let d = simd.splat(f16_at(block, 0));
        // The nibble less 16, where the fifth bit does not make up for it.
        let (zero, offset) = (simd.splat(0.0), simd.splat(16.0));
        let levels = unpack_nibbles(simd, part::<6, 16, _>(block));
        let fifth_bits = fifth_bits(part::<2, 4, _>(block));
        let values = values.as_chunks_mut().0.iter_mut();
        for ((values, levels), fifth) in values.zip(levels).zip(fifth_bits) {
            let offset = zero.select(simd.mask(fifth), offset);
            ((simd.widen(levels) - offset) * d).store(values);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 22]]) {
        legacy::encode_symmetric::<Self, 22>(rows, blocks);
        if effort == Effort::Best {
            improve::<Self, 22, 32>(rows, blocks);
        }
    }
}

impl Symmetric<22> for Q5_0 {
    const HALF: i32 = 16;

    #[inline(always)]
    fn pack(d: u16, levels: &[u8; 32]) -> [u8; 22] {
        let mut block = [0; 22];
        *part_mut::<0, 2, _>(&mut block) = d.to_le_bytes();
        *part_mut::<2, 4, _>(&mut block) = pack_fifth_bits(levels).to_le_bytes();
        pack_nibbles(levels, part_mut::<6, 16, _>(&mut block));
        block
    }
}

impl Improve<22, 32> for Q5_0 {
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

    fn assemble(d: f32, _: f32, levels: &[u8; 32]) -> [u8; 22] {
        Self::pack(f32_to_f16(d), levels)
    }
}
