//! IQ1_M: 256 values in groups of 16; eight values share an entry of the codebook of IQ1_S.

use gristmill_gguf::TensorType;

use super::format::scale_fault;
use super::lattice::u16_at;
use super::lattice::{nibble, shifted8};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::IQ1S_GRID;
use crate::half::f16_to_f32;

/// Block of 56 bytes: 32 low index bytes; 16 bytes with a nibble per entry (three high index bits
/// and the sign of its shift); four u16 that hold three-bit scales `s`, one per group of 16, in bits
/// 0..12 and, in their top nibbles, the half-precision scale `d`.
/// `value = (d * (2s + 1)) * (entry ± 1/8)`.
pub(crate) struct Iq1M;

impl Format<56, 256> for Iq1M {
    const TYPE: TensorType = TensorType::IQ1_M;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode(block: &[u8; 56], out: &mut [f32; 256]) {
        let d = super_scale(block);
        for (i, out) in out.chunks_exact_mut(8).enumerate() {
            let group = i / 2;
            let s = (u16_at(block, 48 + 2 * (group / 4)) >> (3 * (group % 4))) & 7;
            let high = nibble(&block[32..], i);
            let index = usize::from(block[i]) | usize::from(high & 7) << 8;
            shifted8(
                &IQ1S_GRID[index],
                d * f32::from(2 * s + 1),
                high & 8 != 0,
                out,
            );
        }
    }

    fn encode(_rows: &Rows<'_>, _effort: Effort, _blocks: &mut [[u8; 56]]) {}

    fn fault(block: &[u8; 56]) -> Option<&'static str> {
        scale_fault(super_scale(block))
    }
}

/// The scale scattered over the top nibbles of the four scale words.
#[inline(always)]
pub(super) fn super_scale(block: &[u8; 56]) -> f32 {
    let bits = (0..4).fold(0, |bits, i| {
        bits | (u16_at(block, 48 + 2 * i) >> 12) << (4 * i)
    });
    f16_to_f32(bits)
}
