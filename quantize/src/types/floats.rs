//! F32, F16 and BF16: plain little-endian values.

use gristmill_gguf::TensorType;

use super::{Effort, Format, ImportanceUse, Rows};
use crate::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::simd::{Kernel, Simd, dispatch};

/// IEEE binary32.
pub(crate) struct F32;

/// IEEE binary16.
pub(crate) struct F16;

/// bfloat16.
pub(crate) struct Bf16;

impl Format<4, 1> for F32 {
    const TYPE: TensorType = TensorType::F32;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;

    #[inline(always)]
    fn decode<S: Simd>(_: S, block: &[u8; 4], values: &mut [f32; 1]) {
        values[0] = f32::from_le_bytes(*block);
    }

    fn encode(rows: &Rows<'_>, _: Effort, blocks: &mut [[u8; 4]]) {
        for (block, value) in blocks.iter_mut().zip(rows.values) {
            *block = value.to_le_bytes();
        }
    }
}

impl Format<2, 1> for F16 {
    const TYPE: TensorType = TensorType::F16;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;

    #[inline(always)]
    fn decode<S: Simd>(_: S, block: &[u8; 2], values: &mut [f32; 1]) {
        values[0] = f16_to_f32(u16::from_le_bytes(*block));
    }

    fn encode(rows: &Rows<'_>, _: Effort, blocks: &mut [[u8; 2]]) {
        let convert = f32_to_f16;
        dispatch(
            rows.isa,
            Narrow {
                values: rows.values,
                blocks,
                convert,
            },
        );
    }
}

impl Format<2, 1> for Bf16 {
    const TYPE: TensorType = TensorType::BF16;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;

    #[inline(always)]
    fn decode<S: Simd>(_: S, block: &[u8; 2], values: &mut [f32; 1]) {
        values[0] = bf16_to_f32(u16::from_le_bytes(*block));
    }

    fn encode(rows: &Rows<'_>, _: Effort, blocks: &mut [[u8; 2]]) {
        let convert = f32_to_bf16;
        dispatch(
            rows.isa,
            Narrow {
                values: rows.values,
                blocks,
                convert,
            },
        );
    }
}

/// Writes values as 16-bit floats.
struct Narrow<'a, C> {
    values: &'a [f32],
    blocks: &'a mut [[u8; 2]],
    convert: C,
}

impl<C: Fn(f32) -> u16> Kernel for Narrow<'_, C> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (block, &value) in self.blocks.iter_mut().zip(self.values) {
            *block = (self.convert)(value).to_le_bytes();
        }
    }
}
