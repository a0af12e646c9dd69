//! Q8_0: 32 values of 8 bits and a scale.

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::improve::{Improve, improve};
use super::packing::{part, part_mut};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::half::{F16_MAX, f32_to_f16};
use crate::simd::{Float, Kernel, Simd, dispatch};

/// `d` (f16), then 32 signed bytes. A value is `q·d`.
pub(crate) struct Q8_0;

impl Format<34, 32> for Q8_0 {
    const TYPE: TensorType = TensorType::Q8_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 34], values: &mut [f32; 32]) {
        let d = simd.splat(f16_at(block, 0));
        let codes = part::<2, 32, _>(block).as_chunks().0;
        for (values, codes) in values.as_chunks_mut().0.iter_mut().zip(codes) {
            (simd.widen_signed(simd.bytes(codes)) * d).store(values);
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

/// The number before one half: added to a number just below a half, it does not round up to one.
const BELOW_HALF: f32 = 0.5f32.next_down();

struct Plain<'a> {
    values: &'a [f32],
    blocks: &'a mut [[u8; 34]],
}

impl Kernel for Plain<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let values: &[[f32; 32]] = self.values.as_chunks().0;
        let (zero, half) = (simd.splat(0.0), simd.splat(BELOW_HALF));
        let (lo, hi) = (simd.splat(-128.0), simd.splat(127.0));
        for (block, x) in self.blocks.iter_mut().zip(values) {
            let [low, high] = x.as_chunks().0 else {
                continue;
            };
            let halves = [simd.load(low), simd.load(high)];
            let d = halves[0].abs().max(halves[1].abs()).greatest() / 127.0;
            let inverse = simd.splat(if d == 0.0 { 0.0 } else { 1.0 / d });
            *part_mut::<0, 2, _>(block) = f32_to_f16(d).to_le_bytes();
            let codes = part_mut::<2, 32, _>(block).as_chunks_mut().0;
            for (codes, x) in codes.iter_mut().zip(halves) {
                // Rounds away from zero at the half.
                let v = x * inverse;
                let v = v + (zero - half).select(v.lt(zero), half);
                *codes = v.max(lo).min(hi).to_u8();
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
