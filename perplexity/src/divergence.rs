//! From two rows of logits to the figures of one prediction.

/// What one row of logits says of the token that really came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Natural logarithm of the probability of the token.
    pub log_probability: f64,
    /// The most probable token.
    pub top: u32,
}

/// How far one prediction of a variant is from the base's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Divergence {
    /// The base's view.
    pub base: Prediction,
    /// The variant's view.
    pub variant: Prediction,
    /// KL divergence of the variant from the base, Σ p·(ln p − ln q) over the vocabulary, in nats.
    pub kl: f64,
}

/// Values summed in `f32` before they go to the `f64` total: few enough to keep seven digits.
const BLOCK: usize = 64;

/// eˣ for x ≤ 80, within 2 units of the last place; values below e⁻⁸⁷ give 0.
///
/// Plain arithmetic on purpose: the loop over a row then becomes vector code on every target.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4f32;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * (r * r) + r + 1.0;
    let scale = f32::from_bits(
        (shifted
            .to_bits()
            .wrapping_sub(ROUND.to_bits())
            .wrapping_add(127))
            << 23,
    );
    if x < -87.0 { 0.0 } else { value * scale }
}

/// Index and value of the first largest logit.
fn top(logits: &[f32]) -> (usize, f32) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (logits.iter().position(|&x| x == max).unwrap_or(0), max)
}

fn sum_exp(logits: &[f32], max: f32) -> f64 {
    logits
        .chunks(BLOCK)
        .map(|block| f64::from(block.iter().map(|&x| exp(x - max)).sum::<f32>()))
        .sum()
}

/// Scores the token `target` under one row of logits.
///
/// # Panics
/// If `target` is outside the row.
pub fn predict(logits: &[f32], target: u32) -> Prediction {
    let (top, max) = top(logits);
    let log_sum = sum_exp(logits, max).ln();
    Prediction {
        log_probability: f64::from(logits[target as usize]) - f64::from(max) - log_sum,
        top: top as u32,
    }
}

/// Compares a variant's row of logits with the base's for the token `target`.
///
/// # Panics
/// If the rows' lengths differ or `target` is outside them.
pub fn compare(base: &[f32], variant: &[f32], target: u32) -> Divergence {
    assert_eq!(base.len(), variant.len(), "both rows cover one vocabulary");
    let ((base_top, base_max), (variant_top, variant_max)) = (top(base), top(variant));
    // The variant's logits are taken relative to its logit of the base's top token, so that the
    // differences d = a − b are small where the base's probability is not.
    let shift = match variant[base_top] {
        at_top if variant_max - at_top < MAX_SHIFT => at_top,
        _ => variant_max,
    };
    let (mut base_sum, mut variant_sum) = (0f64, 0f64);
    let (mut weighted, mut excess, mut second_order) = (0f64, 0f64, 0f64);
    // KL = Σp·d + ln Σp·e⁻ᵈ = Σp·(d + e⁻ᵈ − 1) + ln(1 + s) − s with s = Σp·(e⁻ᵈ − 1). Every term is of
    // second order in d, so a KL of 1e-6 keeps its digits although the logits are near 10. Where s is
    // not small nothing needs saving, and near −1 the plain form is the one that keeps its digits.
    for (a, b) in base.chunks(BLOCK).zip(variant.chunks(BLOCK)) {
        let (mut sum_a, mut sum_b, mut sum_d, mut sum_s, mut sum_h) =
            (0f32, 0f32, 0f32, 0f32, 0f32);
        for (&a, &b) in a.iter().zip(b) {
            let (a, b) = (a - base_max, b - shift);
            let (d, p, q) = (a - b, exp(a), exp(b));
            let series = p * (d * d) * second_order_series(d);
            let direct = p * d + (q - p);
            let h = if d.abs() < SERIES_RADIUS {
                series
            } else {
                direct
            };
            sum_a += p;
            sum_b += q;
            sum_d += p * d;
            sum_s += h - p * d;
            sum_h += h;
        }
        base_sum += f64::from(sum_a);
        variant_sum += f64::from(sum_b);
        weighted += f64::from(sum_d);
        excess += f64::from(sum_s);
        second_order += f64::from(sum_h);
    }
    let s = excess / base_sum;
    let kl = if s.abs() < 0.1 {
        second_order / base_sum + (s.ln_1p() - s)
    } else {
        weighted / base_sum + (variant_sum / base_sum).ln()
    };
    let log_probability = |row: &[f32], shift: f32, sum: f64| {
        f64::from(row[target as usize]) - f64::from(shift) - sum.ln()
    };
    Divergence {
        base: Prediction {
            log_probability: log_probability(base, base_max, base_sum),
            top: base_top as u32,
        },
        variant: Prediction {
            log_probability: log_probability(variant, shift, variant_sum),
            top: variant_top as u32,
        },
        kl,
    }
}

/// Beyond this the variant is so far off that its own maximum serves better as zero.
const MAX_SHIFT: f32 = 40.0;

/// Below this |d| the series has the full precision of `f32`.
const SERIES_RADIUS: f32 = 0.35;

/// (d + e⁻ᵈ − 1) / d² by its Taylor series.
#[inline(always)]
fn second_order_series(d: f32) -> f32 {
    let mut sum = -1.0 / 5040.0;
    for term in [1.0 / 720.0, -1.0 / 120.0, 1.0 / 24.0, -1.0 / 6.0, 0.5] {
        sum = sum * d + term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(seed: u32, len: usize, noise: f32) -> (Vec<f32>, Vec<f32>) {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let base: Vec<f32> = (0..len).map(|_| 20.0 * next()).collect();
        let variant = base.iter().map(|x| x + noise * next()).collect();
        (base, variant)
    }

    fn exact(base: &[f32], variant: &[f32]) -> f64 {
        let soft = |row: &[f32]| {
            let max = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let sum: f64 = row.iter().map(|&x| (f64::from(x) - max).exp()).sum();
            row.iter()
                .map(|&x| f64::from(x) - max - sum.ln())
                .collect::<Vec<_>>()
        };
        soft(base)
            .iter()
            .zip(soft(variant))
            .map(|(p, q)| p.exp() * (p - q))
            .sum()
    }

    #[test]
    fn exp_agrees_with_the_library() {
        for i in 0..100_000 {
            let x = -87.0 * i as f32 / 100_000.0;
            let (ours, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / exact - 1.0).abs() < 3e-7, "{x}: {ours} {exact}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn kl_agrees_with_the_definition() {
        for (seed, noise) in [(1, 100.0), (2, 1.0), (3, 0.1), (4, 0.01)] {
            let (base, variant) = rows(seed, 5000, noise);
            let (ours, exact) = (compare(&base, &variant, 7).kl, exact(&base, &variant));
            assert!(
                (ours - exact).abs() < 1e-3 * exact + 1e-9,
                "{noise}: {ours} {exact}"
            );
        }
    }

    #[test]
    fn equal_rows_do_not_diverge() {
        let (base, _) = rows(4, 3000, 0.0);
        let d = compare(&base, &base, 11);
        assert_eq!(d.kl, 0.0);
        assert_eq!(d.base, d.variant);
        assert!((d.base.log_probability - predict(&base, 11).log_probability).abs() < 1e-12);
    }

    #[test]
    fn probabilities_sum_to_one() {
        let (base, _) = rows(5, 300, 0.0);
        let total: f64 = (0..300)
            .map(|t| predict(&base, t).log_probability.exp())
            .sum();
        assert!((total - 1.0).abs() < 1e-6);
    }
}
