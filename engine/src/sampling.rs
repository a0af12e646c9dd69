//! Choosing the next token.

/// How tokens are drawn from logits. Filters apply in the order of the fields after the
/// temperature, which comes last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0: always the best token.
    pub temperature: f32,
    /// Only the best so many; 0: all.
    pub top_k: usize,
    /// Only the best that together have this probability; 1: all.
    pub top_p: f32,
    /// Only those with at least this share of the best one's probability; 0: all.
    pub min_p: f32,
    /// Where the random numbers begin: the same seed draws the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    /// llama.cpp's.
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            seed: 0,
        }
    }
}

/// Draws tokens.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    state: u64,
}

impl Sampler {
    /// Starts at the seed.
    pub fn new(sampling: Sampling) -> Self {
        Self {
            sampling,
            state: sampling.seed,
        }
    }

    /// A number in 0..1 (SplitMix64).
    fn random(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The next token; 0 for no logits.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            ..
        } = self.sampling;
        let best = || {
            let ids = (0..logits.len()).rev();
            ids.max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
                .unwrap_or(0)
        };
        if temperature <= 0.0 || logits.is_empty() {
            return best() as u32;
        }
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        let order = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
        if top_k > 0 && top_k < ids.len() {
            ids.select_nth_unstable_by(top_k - 1, order);
            ids.truncate(top_k);
        }
        ids.sort_unstable_by(order);
        let max = f64::from(logits[ids[0]]);
        let weights = |ids: &[usize], temperature: f64| -> Vec<f64> {
            ids.iter()
                .map(|&id| ((f64::from(logits[id]) - max) / temperature).exp())
                .collect()
        };
        let plain = weights(&ids, 1.0);
        let total: f64 = plain.iter().sum();
        let mut sum = 0.0;
        let kept = plain.iter().take_while(|&&w| {
            let keep = sum < f64::from(top_p) * total && w >= f64::from(min_p);
            sum += w;
            keep
        });
        let kept = kept.count().max(1);
        ids.truncate(kept);
        let weights = weights(&ids, f64::from(temperature));
        let mut left = self.random() * weights.iter().sum::<f64>();
        for (&id, weight) in ids.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return id as u32;
            }
        }
        ids[ids.len() - 1] as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [0.0, 3.0, 1.0, 3.0, -2.0];

    fn draws(sampling: Sampling) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        (0..2000).map(|_| sampler.sample(&LOGITS)).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_the_best() {
        let sampling = Sampling {
            temperature: 0.0,
            ..Sampling::default()
        };
        assert!(draws(sampling).iter().all(|&t| t == 1));
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let all = Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 7,
        };
        let draws = draws(all);
        let sum: f32 = LOGITS.iter().map(|l| l.exp()).sum();
        for (token, logit) in LOGITS.iter().enumerate() {
            let share = draws.iter().filter(|&&t| t as usize == token).count() as f32 / 2000.0;
            assert!((share - logit.exp() / sum).abs() < 0.03, "{token}: {share}");
        }
    }

    #[test]
    fn filters_cut_and_seeds_repeat() {
        let base = Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 3,
        };
        let only = |sampling, allowed: &[u32]| draws(sampling).iter().all(|t| allowed.contains(t));
        assert!(only(Sampling { top_k: 3, ..base }, &[1, 2, 3]));
        assert!(only(Sampling { top_p: 0.5, ..base }, &[1, 3]));
        assert!(only(Sampling { min_p: 0.5, ..base }, &[1, 3]));
        assert_eq!(draws(base), draws(base));
        assert_ne!(draws(base), draws(Sampling { seed: 4, ..base }));
    }
}
