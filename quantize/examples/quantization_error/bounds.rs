//! What no encoder can beat: the least error of a block over all scales, with the nearest codes.

use gristmill_gguf::TensorType;

/// A bound on the error of a block `x` with weights `v`: how many values it is for, and how to find it.
pub(crate) struct Bound {
    pub(crate) ty: TensorType,
    pub(crate) values: usize,
    pub(crate) least: fn(&[f64], &[f64]) -> f64,
}

/// The types whose targets are missed on some rows.
pub(crate) const BOUNDS: [Bound; 3] = [
    Bound {
        ty: TensorType::MXFP4,
        values: 32,
        least: mxfp4,
    },
    Bound {
        ty: TensorType::Q3_K,
        values: 16,
        least: q3_k,
    },
    Bound {
        ty: TensorType::Q4_K,
        values: 32,
        least: q4_k,
    },
];

/// All exponents: this is what the format can do.
fn mxfp4(x: &[f64], v: &[f64]) -> f64 {
    const MAGNITUDES: [f64; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let error = |exponent: i32| {
        let scale = 2f64.powi(exponent);
        let nearest = |x: f64| {
            let errors = MAGNITUDES.iter().map(|m| (x.abs() - scale * m).powi(2));
            errors.fold(f64::INFINITY, f64::min)
        };
        x.iter().zip(v).map(|(&x, v)| v * nearest(x)).sum::<f64>()
    };
    (-127..=127).map(error).fold(f64::INFINITY, f64::min)
}

/// All real scales of a sub-block, though the format has but 64 for each d: an encoder cannot reach it.
fn q3_k(x: &[f64], v: &[f64]) -> f64 {
    // Inverse scales at which some level changes; between two of them the levels are the same.
    let ends = |&x: &f64| (-4..4).map(move |level| (f64::from(level) + 0.5) / x);
    let mut changes: Vec<f64> = x.iter().filter(|x| **x != 0.0).flat_map(ends).collect();
    changes.sort_by(f64::total_cmp);
    let explained = |inverse: f64| {
        let (mut xq, mut qq) = (0.0, 0.0);
        for (&x, v) in x.iter().zip(v) {
            let q = (x * inverse).round().clamp(-4.0, 3.0);
            xq += v * x * q;
            qq += v * q * q;
        }
        if qq > 0.0 { xq * xq / qq } else { 0.0 }
    };
    let between = changes.windows(2).map(|pair| 0.5 * (pair[0] + pair[1]));
    let most = between.map(explained).fold(0.0, f64::max);
    let total: f64 = x.iter().zip(v).map(|(x, v)| v * x * x).sum();
    total - most
}

/// Real scales and minima of a sub-block from a dense grid, each fitted by least squares: nearly a bound.
fn q4_k(x: &[f64], v: &[f64]) -> f64 {
    const SCALES: u32 = 160;
    const MINIMA: u32 = 60;
    let low = x.iter().copied().fold(0.0, f64::min);
    let high = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if high <= low {
        return 0.0;
    }
    let sum = |of: &dyn Fn(usize) -> f64| (0..x.len()).map(of).sum::<f64>();
    let (w, wx) = (sum(&|i| v[i]), sum(&|i| v[i] * x[i]));
    let mut least = f64::INFINITY;
    for min in 0..=MINIMA {
        let min = low * (0.4 + 0.8 * f64::from(min) / f64::from(MINIMA));
        for scale in 0..=SCALES {
            let scale = (high - min) / (12.0 + 8.0 * f64::from(scale) / f64::from(SCALES));
            let q = |i: usize| ((x[i] - min) / scale).round().clamp(0.0, 15.0);
            let (mut wq, mut wqq, mut wqx) = (0.0, 0.0, 0.0);
            for i in 0..x.len() {
                let q = q(i);
                wq += v[i] * q;
                wqq += v[i] * q * q;
                wqx += v[i] * q * x[i];
            }
            let determinant = w * wqq - wq * wq;
            if determinant <= 0.0 {
                continue;
            }
            let slope = (w * wqx - wq * wx) / determinant;
            let offset = (wqq * wx - wq * wqx) / determinant;
            let (slope, offset) = if offset > 0.0 {
                (wqx / wqq, 0.0)
            } else {
                (slope, offset)
            };
            least = least.min(sum(&|i| v[i] * (x[i] - slope * q(i) - offset).powi(2)));
        }
    }
    least
}
