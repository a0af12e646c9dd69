//! Which experts a token goes to, and with what weights.

use std::ops::Range;

use crate::architecture::Gating;
use crate::ops;
use crate::parameters::Routing;

/// The experts of one token, best first.
pub(super) struct Choice {
    /// Index and weight.
    pub experts: Vec<(usize, f32)>,
}

impl Choice {
    /// Chooses by router logits; `bias` takes part in the choice, not in the weights.
    pub fn new(routing: &Routing, bias: Option<&[f32]>, logits: &[f32]) -> Self {
        let mut weights = logits.to_vec();
        match routing.gating {
            Gating::Softmax => ops::softmax(&mut weights),
            Gating::Sigmoid => weights.iter_mut().for_each(|w| *w = ops::sigmoid(*w)),
            Gating::SoftmaxChosen => {}
            Gating::SparseMixer => return sparse_mixer(logits, routing.used),
        }
        let mut scores = weights.clone();
        if let Some(bias) = bias {
            ops::add(&mut scores, bias);
        }
        if routing.groups > 1 {
            // DeepSeek-V2 ranks groups by their best expert, all later models by their best two.
            let best = if routing.gating == Gating::Softmax {
                1
            } else {
                2
            };
            limit_groups(&mut scores, routing.groups, routing.groups_used, best);
        }
        let mut experts: Vec<(usize, f32)> = highest(&scores, routing.used)
            .into_iter()
            .map(|e| (e, weights[e]))
            .collect();
        if routing.gating == Gating::SoftmaxChosen {
            let mut chosen: Vec<f32> = experts.iter().map(|e| e.1).collect();
            ops::softmax(&mut chosen);
            for (expert, weight) in experts.iter_mut().zip(chosen) {
                expert.1 = weight;
            }
        }
        if routing.normalise {
            /// The smallest normal half: what llama.cpp divides by at least.
            const LEAST: f32 = 6.103_515_6e-5;
            let sum: f32 = experts.iter().map(|e| e.1).sum();
            experts.iter_mut().for_each(|e| e.1 /= sum.max(LEAST));
        }
        experts.iter_mut().for_each(|e| e.1 *= routing.scale);
        Self { experts }
    }
}

/// Indices of the `count` highest scores, best first; of equal ones the first.
fn highest(scores: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(count);
    order
}

/// Only experts of the groups with the highest sums of the `best` highest scores stay in the choice.
fn limit_groups(scores: &mut [f32], groups: usize, used: usize, best: usize) {
    let size = scores.len() / groups;
    let range = |group: usize| -> Range<usize> { group * size..(group + 1) * size };
    let sums: Vec<f32> = (0..groups)
        .map(|group| {
            let scores = &scores[range(group)];
            highest(scores, best).into_iter().map(|i| scores[i]).sum()
        })
        .collect();
    let kept = highest(&sums, used.max(1));
    for group in (0..groups).filter(|group| !kept.contains(group)) {
        scores[range(group)].fill(f32::NEG_INFINITY);
    }
}

/// Phi-3.5-MoE's routing at inference: each choice is weighed by a softmax over the logits that are
/// within a relative distance of the best (arXiv 2310.00811); files do not carry the distance, all
/// published models use 0.01.
fn sparse_mixer(logits: &[f32], used: usize) -> Choice {
    const JITTER: f32 = 0.01;
    let mut open = logits.to_vec();
    let mut experts = Vec::with_capacity(used);
    for best in highest(logits, used) {
        let max = logits[best];
        let mut gates = open.clone();
        for (gate, &logit) in gates.iter_mut().zip(logits) {
            if (max - logit) / logit.abs().max(max) > 2.0 * JITTER {
                *gate = f32::NEG_INFINITY;
            }
        }
        ops::softmax(&mut gates);
        experts.push((best, gates[best]));
        open[best] = f32::NEG_INFINITY;
    }
    Choice { experts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_limit_the_choice() {
        let mut scores = [0.9, 0.1, 0.6, 0.5, 0.2, 0.3];
        limit_groups(&mut scores, 3, 1, 2);
        assert_eq!(highest(&scores, 2), [2, 3]);
        let mut scores = [0.9, 0.1, 0.6, 0.5, 0.2, 0.3];
        limit_groups(&mut scores, 3, 1, 1);
        assert_eq!(highest(&scores, 2), [0, 1]);
    }

    #[test]
    fn ties_go_to_the_first() {
        assert_eq!(highest(&[1.0, 2.0, 2.0, 0.0], 3), [1, 2, 0]);
    }
}
