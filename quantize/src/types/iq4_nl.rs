//! IQ4_NL: 32 values, four bits each into a fixed table of 16, one half-precision scale.

use gristmill_gguf::TensorType;

use super::format::{f16_at, f16_fault};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::IQ4_VALUES;

/// Block of 18 bytes: scale `d`, then 16 bytes; byte `j` holds value `j` in its low nibble and value
/// `j + 16` in its high one. `value = d * table[code]`.
pub(crate) struct Iq4Nl;

impl Format<18, 32> for Iq4Nl {
    const TYPE: TensorType = TensorType::IQ4_NL;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
        let d = f16_at(block, 0);
        let (low, high) = out.split_at_mut(16);
        for j in 0..16 {
            let codes = block[2 + j];
            low[j] = d * f32::from(IQ4_VALUES[usize::from(codes & 15)]);
            high[j] = d * f32::from(IQ4_VALUES[usize::from(codes >> 4)]);
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 18]]) {}

    fn fault(block: &[u8; 18]) -> Option<&'static str> {
        f16_fault(block, 0)
    }
}
