//! Element-wise steps of a forward pass.

use gristmill_quantize::Isa;

use crate::architecture::{Activation, Norm};
use crate::simd::{Loops, Simd, dispatch};
use crate::weights::NormWeights;

/// Sums in sixteen lanes, then the lanes in f64: exact enough and the same for every caller.
fn lanes(values: &[f32], term: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0f64; 16];
    let chunks = values.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(term(x));
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(term(x));
    }
    lanes.iter().sum()
}

/// Sum of squares.
pub(crate) fn squares(values: &[f32]) -> f64 {
    lanes(values, |x| x * x)
}

impl NormWeights {
    /// Normalises one vector in place.
    pub fn apply(&self, x: &mut [f32]) {
        self.apply_at(x, 0);
    }

    /// Normalises one vector with the weights from `at` on.
    pub fn apply_at(&self, x: &mut [f32], at: usize) {
        let n = x.len().max(1) as f64;
        let mut mean = 0f32;
        if self.kind == Norm::Layer {
            mean = (lanes(x, |x| x) / n) as f32;
        }
        let variance = lanes(x, |x| (x - mean) * (x - mean)) / n;
        let scale = (1.0 / (variance + f64::from(self.epsilon)).sqrt()) as f32;
        match &self.weight {
            None => x.iter_mut().for_each(|x| *x = (*x - mean) * scale),
            Some(weight) => {
                let weight = &weight[at..at + x.len()];
                for (x, w) in x.iter_mut().zip(weight) {
                    *x = (*x - mean) * scale * w;
                }
            }
        }
        if let Some(bias) = &self.bias {
            add(x, &bias[at..at + x.len()]);
        }
    }
}

/// `x += y`.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `x += scale · y`.
pub(crate) fn add_scaled(x: &mut [f32], y: &[f32], scale: f32) {
    if scale == 1.0 {
        return add(x, y);
    }
    for (x, y) in x.iter_mut().zip(y) {
        *x += scale * y;
    }
}

/// `x *= scale`.
pub(crate) fn multiply(x: &mut [f32], scale: f32) {
    if scale != 1.0 {
        x.iter_mut().for_each(|x| *x *= scale);
    }
}

/// `c · tanh(x / c)`; nothing for 0.
pub(crate) fn softcap(x: &mut [f32], cap: f32) {
    if cap > 0.0 {
        x.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }
}

/// `e^x` within 2 ulp, without branches, so that loops over it become vector code: 2^n times a
/// polynomial. 0 below -87.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let low = if x < -87.0 { -87.0 } else { x };
    let clamped = if low > 88.0 { 88.0 } else { low };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { p * scale }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x · sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// `ln(1 + e^x)`.
pub(crate) fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let t = SQRT_2_OVER_PI * x * (1.0 + 0.044715 * x * x);
    // tanh(t) = 1 - 2 / (e^2t + 1)
    let tanh = 1.0 - 2.0 / (exp(2.0 * t) + 1.0);
    0.5 * x * (1.0 + tanh)
}

/// The error function within 1.2e-7 (Numerical Recipes' rational Chebyshev `erfc`), in f64.
fn erf(x: f64) -> f64 {
    let z = x.abs();
    let t = 1.0 / (1.0 + 0.5 * z);
    let terms = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let polynomial = terms.iter().fold(0.0, |sum, term| sum * t + term);
    let complement = t * (-z * z + polynomial).exp();
    if x >= 0.0 {
        1.0 - complement
    } else {
        complement - 1.0
    }
}

fn gelu_erf(x: f32) -> f32 {
    let x = f64::from(x);
    (0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))) as f32
}

/// xIELU's parameters of a layer (Apertus).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct XIelu {
    pub alpha_n: f32,
    pub alpha_p: f32,
    pub beta: f32,
    pub epsilon: f32,
}

impl XIelu {
    fn apply(&self, x: f32) -> f32 {
        if x > 0.0 {
            softplus(self.alpha_p) * x * x + self.beta * x
        } else {
            let alpha = self.beta + softplus(self.alpha_n);
            (x.min(self.epsilon).exp_m1() - x) * alpha + self.beta * x
        }
    }
}

/// Applies the activation to `gate`, then multiplies with `up` where there is one.
pub(crate) fn activate(
    isa: Isa,
    kind: Activation,
    xielu: XIelu,
    gate: &mut [f32],
    up: Option<&[f32]>,
) {
    match (kind, up) {
        (Activation::Silu, Some(up)) => dispatch(isa, Gated(gate, up, silu)),
        (Activation::GeluTanh, Some(up)) => dispatch(isa, Gated(gate, up, gelu_tanh)),
        (Activation::Silu, None) => map(gate, up, silu),
        (Activation::GeluTanh, None) => map(gate, up, gelu_tanh),
        (Activation::GeluErf, _) => map(gate, up, gelu_erf),
        (Activation::Relu, _) => map(gate, up, |x| x.max(0.0)),
        (Activation::ReluSquared, _) => map(gate, up, |x| x.max(0.0) * x.max(0.0)),
        (Activation::XIelu, _) => map(gate, up, |x| xielu.apply(x)),
        (Activation::SwigluOai, Some(up)) => {
            for (g, &u) in gate.iter_mut().zip(up) {
                let limited = g.min(7.0);
                *g = limited * sigmoid(1.702 * limited) * (u.clamp(-7.0, 7.0) + 1.0);
            }
        }
        (Activation::SwigluOai, None) => map(gate, None, silu),
    }
}

fn map(gate: &mut [f32], up: Option<&[f32]>, f: impl Fn(f32) -> f32) {
    match up {
        Some(up) => gate.iter_mut().zip(up).for_each(|(g, u)| *g = f(*g) * u),
        None => gate.iter_mut().for_each(|g| *g = f(*g)),
    }
}

/// The activations that language models spend time on, as vector code.
struct Gated<'a, F: Fn(f32) -> f32>(&'a mut [f32], &'a [f32], F);

impl<F: Fn(f32) -> f32> Loops for Gated<'_, F> {
    #[inline(always)]
    fn run<S: Simd, const WIDE: usize>(self, _: S) {
        let Self(gate, up, f) = self;
        for (g, &u) in gate.iter_mut().zip(up) {
            *g = f(*g) * u;
        }
    }
}

/// Softmax in place.
pub(crate) fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f32;
    for x in x.iter_mut() {
        *x = exp(*x - max);
        sum += *x;
    }
    x.iter_mut().for_each(|x| *x /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_everywhere() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let (ours, real) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((ours / real - 1.0).abs() < 3e-7, "{x}: {ours} {real}");
        }
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    #[test]
    fn error_function() {
        for (x, y) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_8),
            (-1.0, -0.842_700_792_9),
            (3.0, 0.999_977_909_5),
        ] {
            assert!((erf(x) - y).abs() < 2e-7, "{x}");
        }
    }
}
