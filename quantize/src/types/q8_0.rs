//! Q8_0: 32 values of 8 bits and a scale.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::packing::part;
use super::{Effort, Format, ImportanceUse, Rows};
use crate::half::f32_to_f16;
use crate::simd::{Kernel, Simd, dispatch};

/// `d` (f16), then 32 signed bytes. A value is `q·d`.
pub(crate) struct Q8_0;

impl Format<34, 32> for Q8_0 {
    const TYPE: TensorType = TensorType::Q8_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;

    #[inline(always)]
    fn decode(block: &[u8; 34], values: &mut [f32; 32]) {
        let d = f16_at(block, 0);
        for (value, &q) in values.iter_mut().zip(part::<2, 32, _>(block)) {
            *value = f32::from(q as i8) * d;
        }
    }

    fn encode(rows: &Rows<'_>, _effort: Effort, blocks: &mut [[u8; 34]]) {
        dispatch(
            rows.isa,
            Plain {
                values: rows.values,
                blocks,
            },
        );
    }

    fn fault(block: &[u8; 34]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}

struct Plain<'a> {
    values: &'a [f32],
    blocks: &'a mut [[u8; 34]],
}

impl Kernel for Plain<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let values: &[[f32; 32]] = self.values.as_chunks().0;
        for (block, x) in self.blocks.iter_mut().zip(values) {
            let mut magnitudes = [0.0f32; 8];
            for chunk in x.as_chunks::<8>().0 {
                for (magnitude, x) in magnitudes.iter_mut().zip(chunk) {
                    *magnitude = if x.abs() > *magnitude {
                        x.abs()
                    } else {
                        *magnitude
                    };
                }
            }
            let d = magnitudes.into_iter().fold(0.0, f32::max) / 127.0;
            let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
            let (scale, codes) = block.split_at_mut(2);
            scale.copy_from_slice(&f32_to_f16(d).to_le_bytes());
            for (code, x) in codes.iter_mut().zip(x) {
                *code = (x * inverse).round() as i8 as u8;
            }
        }
    }
}
