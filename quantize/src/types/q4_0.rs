//! Q4_0: 32 values of 4 bits and one scale.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::{Effort, Format, ImportanceUse, Rows};

/// `d` (f16), then 16 bytes: byte `j` holds value `j` in its low and `j + 16` in its high nibble.
/// A value is `(q - 8)·d`.
pub(crate) struct Q4_0;

impl Format<18, 32> for Q4_0 {
    const TYPE: TensorType = TensorType::Q4_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode(block: &[u8; 18], values: &mut [f32; 32]) {
        let d = f16_at(block, 0);
        for j in 0..16 {
            let pair = i32::from(block[2 + j]);
            values[j] = ((pair & 15) - 8) as f32 * d;
            values[j + 16] = ((pair >> 4) - 8) as f32 * d;
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 18]]) {}

    fn fault(block: &[u8; 18]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}
