//! TQ2_0: 256 ternary values of two bits, one half-precision scale.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::packing::{pack_two_bits, part_mut};
use super::ternary::{self, Ternary};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::simd::Simd;

/// Block of 66 bytes: 64 bytes, then scale `d`. Value `128h + 32k + m` is bits `2k..2k+2` of byte
/// `32h + m`. `value = (code - 1) * d`; no encoder writes code 3, which decodes to `2d`.
pub(crate) struct Tq2_0;

impl Format<66, 256> for Tq2_0 {
    const TYPE: TensorType = TensorType::TQ2_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;

    #[inline(always)]
    fn decode<S: Simd>(_: S, block: &[u8; 66], out: &mut [f32; 256]) {
        let d = f16_at(block, 64);
        for (i, out) in out.chunks_exact_mut(32).enumerate() {
            let codes = &block[32 * (i / 4)..][..32];
            for (value, code) in out.iter_mut().zip(codes) {
                *value = (((code >> (2 * (i % 4))) & 3) as i8 - 1) as f32 * d;
            }
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 66]]) {
        ternary::encode::<Self, 66>(rows, effort, blocks);
    }
}

impl Ternary<66> for Tq2_0 {
    #[inline(always)]
    fn pack(d: u16, digits: &[u8; 256]) -> [u8; 66] {
        let mut block = [0; 66];
        pack_two_bits(digits, part_mut::<0, 64, 66>(&mut block));
        block[64..].copy_from_slice(&d.to_le_bytes());
        block
    }
}
