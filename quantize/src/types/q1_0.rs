//! Q1_0: 128 signs, one half-precision scale.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::{Effort, Format, ImportanceUse, Rows};
use crate::half::f32_to_f16;
use crate::simd::{Kernel, Simd, dispatch};

/// Block of 18 bytes: scale `d`, 16 bytes of bits. `value = bit ? d : -d`.
///
/// Effort `best` writes what the reference writes: models made for this type are exact in it, and in
/// others a scale weighted by importance, stretched or not, raised divergence.
pub(crate) struct Q1_0;

impl Format<18, 128> for Q1_0 {
    const TYPE: TensorType = TensorType::Q1_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;
    const STRETCHED: bool = false;

    #[inline(always)]
    fn decode<S: Simd>(_: S, block: &[u8; 18], out: &mut [f32; 128]) {
        let d = f16_at(block, 0);
        for (out, &bits) in out.chunks_exact_mut(8).zip(&block[2..]) {
            for (j, value) in out.iter_mut().enumerate() {
                *value = if (bits >> j) & 1 == 1 { d } else { -d };
            }
        }
    }

    fn encode(rows: &Rows<'_>, _: Effort, blocks: &mut [[u8; 18]]) {
        dispatch(rows.isa, Encode { rows, blocks });
    }
}

struct Encode<'a> {
    rows: &'a Rows<'a>,
    blocks: &'a mut [[u8; 18]],
}

impl Kernel for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (block, (values, _)) in self.blocks.iter_mut().zip(self.rows.blocks::<128>()) {
            let d = values.iter().fold(0.0, |sum, x| sum + x.abs()) / 128.0;
            block[..2].copy_from_slice(&f32_to_f16(d).to_le_bytes());
            for (bits, values) in block[2..].iter_mut().zip(values.as_chunks::<8>().0) {
                *bits = (0..8).fold(0, |bits, j| bits | u8::from(values[j] >= 0.0) << j);
            }
        }
    }
}
