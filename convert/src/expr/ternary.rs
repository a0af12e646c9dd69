//! Three levels for the values of a matrix, as BitNet's linear layers use them.

use gristmill_gguf::ReadError;

use super::Expr;

/// The levels of a matrix: zero, and its mean magnitude with either sign.
#[derive(Debug, Clone, Copy)]
pub(super) struct Levels {
    /// Levels in one: the reciprocal of the mean magnitude.
    per_unit: f32,
    /// The outer level. Kept as the reciprocal of the reciprocal, which is what the layer
    /// multiplies by and may differ from the mean in its last place.
    level: f32,
}

impl Levels {
    /// Smallest mean that counts: a matrix of zeros stays finite.
    const LEAST_MEAN: f32 = 1e-5;

    /// The levels of a whole matrix, by one pass over it.
    pub(super) fn of(matrix: &Expr) -> Result<Self, ReadError> {
        let mut magnitudes = 0f64;
        for row in 0..matrix.row_count() {
            let row = matrix.f32_rows(row..row + 1)?;
            magnitudes += row.iter().map(|value| f64::from(value.abs())).sum::<f64>();
        }
        let mean = magnitudes / matrix.elements() as f64;
        Ok(Self::around(mean as f32))
    }

    fn around(mean: f32) -> Self {
        let per_unit = mean.max(Self::LEAST_MEAN).recip();
        Self {
            per_unit,
            level: per_unit.recip(),
        }
    }

    /// The level nearest to a value; values half-way go to zero, and zero keeps their sign. What is
    /// no number stays none.
    pub(super) fn nearest(self, value: f32) -> f32 {
        let distance = (value * self.per_unit).abs();
        if distance.is_nan() {
            return value;
        }
        let magnitude = if distance > 0.5 { self.level } else { 0.0 };
        magnitude.copysign(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn edges() {
        let levels = Levels::around(2.0);
        assert_eq!(levels.nearest(1.0), 0.0);
        assert_eq!(levels.nearest(1.01), 2.0);
        assert_eq!(levels.nearest(-9.0), -2.0);
        assert!(levels.nearest(-0.5).is_sign_negative());
        assert!(levels.nearest(f32::NAN).is_nan());
        assert_eq!(levels.nearest(f32::INFINITY), 2.0);
        assert_eq!(Levels::around(0.0).nearest(0.0), 0.0);
    }

    proptest! {
        /// No level is nearer than the one that is taken, and levels are their own nearest.
        #[test]
        fn takes_the_nearest(mean in 1e-4f32..10.0, value in -30f32..30.0) {
            let levels = Levels::around(mean);
            let taken = levels.nearest(value);
            let nearest = [-levels.level, 0.0, levels.level]
                .map(|level| (value - level).abs())
                .into_iter()
                .fold(f32::INFINITY, f32::min);
            prop_assert!((value - taken).abs() <= nearest * 1.000_001);
            prop_assert_eq!(levels.nearest(taken), taken);
        }
    }
}
