//! Rotary position embedding.

use crate::architecture::Rope;
use crate::parameters::RopeParameters;

/// Cosines and sines of a batch's positions.
#[derive(Debug)]
pub(crate) struct RopeTable {
    kind: Rope,
    dims: usize,
    /// Token × pair × (cosine, sine).
    turns: Vec<[f32; 2]>,
}

impl RopeTable {
    /// Tables for tokens at `positions`; `factors` divide the frequencies.
    pub fn new(rope: &RopeParameters, factors: Option<&[f32]>, positions: &[usize]) -> Self {
        let frequencies = frequencies(rope, factors);
        let amplitude = f64::from(rope.amplitude);
        let turns = positions.iter().flat_map(|&position| {
            frequencies.iter().map(move |&frequency| {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                [(cos * amplitude) as f32, (sin * amplitude) as f32]
            })
        });
        Self {
            kind: rope.kind,
            dims: rope.dims,
            turns: turns.collect(),
        }
    }

    /// Rotates a head of the token with this index in the batch.
    pub fn apply(&self, token: usize, head: &mut [f32]) {
        self.apply_as(self.kind, token, head);
    }

    /// The same where other dimensions rotate together.
    pub fn apply_as(&self, kind: Rope, token: usize, head: &mut [f32]) {
        let half = self.dims / 2;
        let turns = &self.turns[token * half..][..half];
        match kind {
            Rope::None => {}
            Rope::Pairs => {
                for (pair, [cos, sin]) in head.chunks_exact_mut(2).zip(turns) {
                    let (a, b) = (pair[0], pair[1]);
                    pair[0] = a * cos - b * sin;
                    pair[1] = a * sin + b * cos;
                }
            }
            Rope::HalvesOfPairs => {
                let middle = head.len() / 2;
                let place = |i: usize| match i.checked_sub(middle) {
                    None => 2 * i,
                    Some(i) => 2 * i + 1,
                };
                for (i, [cos, sin]) in turns.iter().enumerate() {
                    let (i, j) = (place(i), place(i + half));
                    (head[i], head[j]) =
                        (head[i] * cos - head[j] * sin, head[i] * sin + head[j] * cos);
                }
            }
            Rope::Halves => {
                let (low, high) = head[..self.dims].split_at_mut(half);
                for ((a, b), [cos, sin]) in low.iter_mut().zip(high).zip(turns) {
                    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
                }
            }
        }
    }
}

/// Radians a position turns each pair by (YaRN: arXiv 2309.00071, section 3).
fn frequencies(rope: &RopeParameters, factors: Option<&[f32]>) -> Vec<f64> {
    let (dims, base) = (rope.dims as f64, f64::from(rope.base));
    let factor = f64::from(rope.factor);
    (0..rope.dims / 2)
        .map(|i| {
            let mut extrapolated = base.powf(-2.0 * i as f64 / dims);
            if let Some(&divisor) = factors.and_then(|f| f.get(i)) {
                extrapolated /= f64::from(divisor);
            }
            let interpolated = extrapolated / factor;
            let Some(yarn) = rope.yarn else {
                return interpolated;
            };
            let turns_at = |beta: f32| {
                let context = f64::from(yarn.original_context);
                let turns = context / (f64::from(beta) * std::f64::consts::TAU);
                dims * turns.ln() / (2.0 * base.ln())
            };
            let (mut low, mut high) = (turns_at(yarn.beta_fast), turns_at(yarn.beta_slow));
            if !yarn.exact_ramp {
                (low, high) = (low.floor(), high.ceil());
            }
            let (low, high) = (low.max(0.0), high.min(dims - 1.0));
            let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
            let mix = (1.0 - ramp) * f64::from(yarn.extrapolation);
            interpolated * (1.0 - mix) + extrapolated * mix
        })
        .collect()
}
