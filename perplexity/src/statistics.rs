//! Means with their errors, and percentiles.

/// Sums from which a mean and its standard error come.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    count: u64,
    sum: f64,
    sum_of_squares: f64,
}

impl Moments {
    /// Takes one more value.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        self.sum_of_squares += value * value;
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean; 0 without values.
    pub fn mean(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            self.sum / self.count as f64
        }
    }

    /// The root of the mean square.
    pub fn root_mean_square(&self) -> f64 {
        if self.count == 0 {
            0.0
        } else {
            (self.sum_of_squares / self.count as f64).sqrt()
        }
    }

    /// The standard error of the mean: √((⟨x²⟩ − ⟨x⟩²) / (n − 1)), the formula of
    /// `llama-perplexity`. 0 for fewer than two values.
    pub fn error(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let mean = self.mean();
        let variance = self.sum_of_squares / self.count as f64 - mean * mean;
        (variance.max(0.0) / (self.count - 1) as f64).sqrt()
    }
}

impl Extend<f64> for Moments {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        for value in values {
            self.add(value);
        }
    }
}

impl FromIterator<f64> for Moments {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut moments = Self::default();
        moments.extend(values);
        moments
    }
}

/// The covariance of the means of two series of one length, divided as [`Moments::error`] is.
///
/// # Panics
/// If the lengths differ.
pub fn covariance_of_means(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "the series are of one length");
    if a.len() < 2 {
        return 0.0;
    }
    let count = a.len() as f64;
    let mean = |series: &[f64]| series.iter().sum::<f64>() / count;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum: f64 = a
        .iter()
        .zip(b)
        .map(|(x, y)| (x - mean_a) * (y - mean_b))
        .sum();
    sum / count / (count - 1.0)
}

/// The value below which the share `fraction` of the sorted values lies, linear between
/// neighbours; `None` without values.
pub fn percentile(sorted: &[f64], fraction: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = fraction.clamp(0.0, 1.0) * last as f64;
    let below = position as usize;
    let share = position - below as f64;
    Some(sorted[below] * (1.0 - share) + sorted[(below + 1).min(last)] * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_a_small_series() {
        let m: Moments = [1.0, 2.0, 3.0, 4.0].into_iter().collect();
        assert_eq!(m.mean(), 2.5);
        assert!((m.error() - (1.25f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(m.root_mean_square(), 7.5f64.sqrt());
    }

    #[test]
    fn covariance_with_itself_is_the_squared_error() {
        let series = [0.3, 1.7, -0.4, 2.2, 0.9];
        let m: Moments = series.into_iter().collect();
        assert!((covariance_of_means(&series, &series) - m.error().powi(2)).abs() < 1e-15);
    }

    #[test]
    fn percentiles_interpolate() {
        let sorted = [0.0, 1.0, 2.0, 10.0];
        assert_eq!(percentile(&sorted, 0.5), Some(1.5));
        assert_eq!(percentile(&sorted, 1.0), Some(10.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
