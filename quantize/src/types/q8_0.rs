//! Q8_0: 32 values of 8 bits and a scale.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::improve::{Improve, improve};
use super::packing::{part, part_mut};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::half::{F16_MAX, f32_to_f16};
use crate::search::largest_magnitude;
use crate::simd::{Float, Kernel, Simd, dispatch};

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

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 34]]) {
        let values = rows.values;
        dispatch(rows.isa, Plain { values, blocks });
        if effort == Effort::Best {
            improve::<Self, 34, 32>(rows, blocks);
        }
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
            let d = largest_magnitude(x) / 127.0;
            let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
            let (scale, codes) = block.split_at_mut(2);
            scale.copy_from_slice(&f32_to_f16(d).to_le_bytes());
            for (code, x) in codes.iter_mut().zip(x) {
                *code = (x * inverse).round() as i8 as u8;
            }
        }
    }
}

impl Improve<34, 32> for Q8_0 {
    /// Tries scales around the one that maps the largest value to 127.
    #[inline(always)]
    fn improve<S: Simd>(
        simd: S,
        x: &[S::F; 32],
        w: &[S::F; 32],
        levels: &mut [S::F; 32],
    ) -> (S::F, S::F) {
        let zero = simd.splat(0.0);
        let mut magnitude = zero;
        for &x in x {
            magnitude = x.abs().max(magnitude);
        }
        let base = magnitude * simd.splat(1.0 / 127.0);
        let highest = simd.splat(F16_MAX);
        let (mut best, mut chosen) = (simd.splat(f32::INFINITY), zero);
        for step in -5..=38 {
            let d = base * simd.splat(1.0 + 0.002 * step as f32);
            let d = d.min(highest).round_to_f16();
            let error = error(simd, x, w, d);
            let better = error.lt(best);
            best = error.select(better, best);
            chosen = d.select(better, chosen);
        }
        let inverse = simd.splat(1.0) / chosen;
        for (level, &x) in levels.iter_mut().zip(x) {
            *level = (x * inverse).nearest(-128, 127);
        }
        (chosen, zero)
    }

    fn assemble(d: f32, _: f32, levels: &[u8; 32]) -> [u8; 34] {
        let mut block = [0; 34];
        *part_mut::<0, 2, _>(&mut block) = f32_to_f16(d).to_le_bytes();
        *part_mut::<2, 32, _>(&mut block) = *levels;
        block
    }
}

/// `Σ w·(x - d·q)²`.
#[inline(always)]
fn error<S: Simd>(simd: S, x: &[S::F; 32], w: &[S::F; 32], d: S::F) -> S::F {
    let (lo, hi) = (simd.splat(-128.0), simd.splat(127.0));
    let inverse = simd.splat(1.0) / d;
    let mut sum = simd.splat(0.0);
    for (&x, &w) in x.iter().zip(w) {
        let q = (x * inverse).round_ties_even().max(lo).min(hi);
        let difference = x - d * q;
        sum = sum + w * (difference * difference);
    }
    sum
}
