//! Q1_0: 128 signs, one half-precision scale.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::{Effort, Format, ImportanceUse, Rows};

/// Block of 18 bytes: scale `d`, 16 bytes of bits. `value = bit ? d : -d`.
pub(crate) struct Q1_0;

impl Format<18, 128> for Q1_0 {
    const TYPE: TensorType = TensorType::Q1_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;

    #[inline(always)]
    fn decode(block: &[u8; 18], out: &mut [f32; 128]) {
        let d = f16_at(block, 0);
        for (out, &bits) in out.chunks_exact_mut(8).zip(&block[2..]) {
            for (j, value) in out.iter_mut().enumerate() {
                *value = if (bits >> j) & 1 == 1 { d } else { -d };
            }
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 18]]) {}

    fn fault(block: &[u8; 18]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}
