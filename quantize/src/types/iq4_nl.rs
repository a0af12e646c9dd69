//! IQ4_NL: 32 values, four bits each into a fixed table of 16, one half-precision scale.

use std::array::from_fn;

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::packing::{decode_nibbles, pack_nibbles, part, part_mut};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::IQ4_VALUES;
use crate::half::{f16_to_f32, f32_to_f16};
use crate::search::error::keep_better;
use crate::search::multiples::Fit;
use crate::search::{reference_weights, relative_weights, table};
use crate::simd::{Float, Kernel, LANES, Simd, dispatch, gather, products};

/// Block of 18 bytes: scale `d`, then 16 bytes; byte `j` holds value `j` in its low nibble and value
/// `j + 16` in its high one. `value = d * table[code]`.
pub(crate) struct Iq4Nl;

impl Format<18, 32> for Iq4Nl {
    const TYPE: TensorType = TensorType::IQ4_NL;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 18], values: &mut [f32; 32]) {
        let d = simd.splat(f16_at(block, 0));
        decode_nibbles(simd, &IQ4_VALUES, part::<2, 16, _>(block), d, values);
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 18]]) {
        dispatch(
            rows.isa,
            Encode {
                rows,
                effort,
                blocks,
            },
        );
    }
}

struct Encode<'a> {
    rows: &'a Rows<'a>,
    effort: Effort,
    blocks: &'a mut [[u8; 18]],
}

impl Kernel for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
        let inputs: Vec<_> = self.rows.blocks::<32>().collect();
        for (inputs, blocks) in inputs.chunks(LANES).zip(self.blocks.chunks_mut(LANES)) {
            let input = |lane: usize| inputs[lane.min(inputs.len() - 1)];
            let x: [S::F; 32] = gather(simd, |lane| input(lane).0);
            let w = if inputs[0].1.is_some() {
                let v: [S::F; 32] = gather(simd, |lane| input(lane).1.unwrap_or(input(lane).0));
                let mut sum = zero;
                for x in x {
                    sum = sum + x * x;
                }
                reference_weights(&v, &x, sum * simd.splat(2.0 / 32.0))
            } else {
                products(&x, &x)
            };
            let scale = table::reference_table(simd, &x, &w);
            let inverse = zero.select(scale.eq(zero), one / scale);
            let codes = table::codes(simd, &x, inverse);
            let scales = scale.to_array();
            for (lane, block) in blocks.iter_mut().enumerate() {
                *block = pack(f32_to_f16(scales[lane]), &codes[lane]);
            }
            if self.effort == Effort::Best {
                improve(simd, &x, inputs, blocks);
            }
        }
    }
}

fn pack(d: u16, codes: &[u8; 32]) -> [u8; 18] {
    let mut block = [0; 18];
    *part_mut::<0, 2, 18>(&mut block) = d.to_le_bytes();
    pack_nibbles(codes, part_mut::<2, 16, 18>(&mut block));
    block
}

/// Replaces blocks by better ones.
#[inline(always)]
fn improve<S: Simd>(
    simd: S,
    x: &[S::F; 32],
    inputs: &[(&[f32; 32], Option<&[f32; 32]>)],
    blocks: &mut [[u8; 18]],
) {
    let weights: [[f32; 32]; LANES] =
        from_fn(|lane| relative_weights(inputs[lane.min(inputs.len() - 1)].1));
    let w: [S::F; 32] = gather(simd, |lane| &weights[lane]);
    let zero = simd.splat(0.0);
    let mut fits = [Fit::new(zero, zero); table::TRIES];
    let mut scales = table::best_scale(simd, x, &w, &mut fits).to_array();
    // The scale that is stored, its codes, and the scale that fits those.
    for _ in 0..2 {
        let stored = scales.map(|d| f16_to_f32(f32_to_f16(d)));
        let (sum_xq, sum_qq) = table::fit(simd, x, &w, simd.load(&stored));
        let (sum_xq, sum_qq) = (sum_xq.to_array(), sum_qq.to_array());
        for (lane, scale) in scales.iter_mut().enumerate() {
            if sum_qq[lane] > 0.0 {
                *scale = sum_xq[lane] / sum_qq[lane];
            }
        }
    }
    let bits = scales.map(f32_to_f16);
    let scale = simd.load(&bits.map(f16_to_f32));
    let inverse = zero.select(scale.eq(zero), simd.splat(1.0) / scale);
    let codes = table::codes(simd, x, inverse);
    for (lane, (block, &(values, importance))) in blocks.iter_mut().zip(inputs).enumerate() {
        let candidate = pack(bits[lane], &codes[lane]);
        keep_better::<S, Iq4Nl, 18, 32>(simd, block, &candidate, values, importance);
    }
}
