//! Q2_0: 64 values of {-1, 0, 1, 2} times a half-precision scale.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::{Effort, Format, ImportanceUse, Rows};

/// Block of 18 bytes: scale `d`, 16 bytes of four two-bit codes, first value lowest.
/// `value = (code - 1) * d`.
pub(crate) struct Q2_0;

impl Format<18, 64> for Q2_0 {
    const TYPE: TensorType = TensorType::Q2_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;

    #[inline(always)]
    fn decode(block: &[u8; 18], out: &mut [f32; 64]) {
        let d = f16_at(block, 0);
        for (out, &codes) in out.chunks_exact_mut(4).zip(&block[2..]) {
            for (j, value) in out.iter_mut().enumerate() {
                *value = (((codes >> (2 * j)) & 3) as i8 - 1) as f32 * d;
            }
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 18]]) {}

    fn fault(block: &[u8; 18]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}
