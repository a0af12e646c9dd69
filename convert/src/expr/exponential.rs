//! The exponential function in f32, as PyTorch computes it.
//!
//! PyTorch hands arrays to a vector library, whose last bit differs from the correctly rounded one
//! in one value of a hundred. State space models store the logarithm of their decay, and converted
//! files hold its exponential as PyTorch gives it, so this is the same function: a table for
//! 2^(j/32) and a polynomial of degree three for the rest. The polynomial's coefficients were
//! fitted to PyTorch's results on random arguments: between -20 and 20, where decays lie, none of
//! 24 million differs; beyond 60 one of four thousand does.

use std::f64::consts::LN_2;
use std::sync::LazyLock;

/// Parts of an octave.
const PARTS: usize = 1 << 5;

/// 2^(j/32), rounded, and what rounding took away, as a share of it.
static POWERS: LazyLock<[(f32, f32); PARTS]> = LazyLock::new(|| {
    std::array::from_fn(|j| {
        let exact = (j as f64 / PARTS as f64).exp2();
        let rounded = exact as f32;
        let rest = (exact - f64::from(rounded)) / f64::from(rounded);
        (rounded, rest as f32)
    })
});

/// ln 2 / 32 in two parts.
const STEP: (f32, f32) = (
    (LN_2 / PARTS as f64) as f32,
    (LN_2 / PARTS as f64 - ((LN_2 / PARTS as f64) as f32) as f64) as f32,
);

/// Coefficients of x² and x³.
const SQUARE: f32 = f32::from_bits(0x3f00_00f6);
const CUBE: f32 = f32::from_bits(0x3e2a_abf3);

/// `e^x`.
pub(super) fn exp(x: f32) -> f32 {
    if !(-87.0..=88.0).contains(&x) {
        return f64::from(x).exp() as f32;
    }
    let n = (f64::from(x) * (PARTS as f64 / LN_2)).floor();
    let (octave, part) = ((n as i32) >> 5, (n as i32 & 31) as usize);
    let (power, rest) = POWERS[part];
    let n = n as f32;
    let x = n.mul_add(-STEP.1, n.mul_add(-STEP.0, x));
    let polynomial = CUBE.mul_add(x, SQUARE).mul_add(x * x, x + rest);
    power.mul_add(polynomial, power) * 2f32.powi(octave)
}

#[cfg(test)]
mod tests {
    use super::exp;

    /// Results of PyTorch that are not the correctly rounded ones.
    #[test]
    fn as_pytorch() {
        for (x, y) in [
            (0x3fad_bc9f, 0x4078_b04e),
            (0x401a_b48a, 0x4133_716d),
            (0x401c_eb89, 0x4139_c2fe),
            (0x3f21_e518, 0x3ff0_e981),
            (0x403d_0c6e, 0x4199_7141),
            (0x3d83_a756, 0x3f88_7fa3),
            (0x3fa5_cc21, 0x4069_bb64),
            (0x3f50_0421, 0x4010_3c3e),
        ] {
            assert_eq!(exp(f32::from_bits(x)).to_bits(), y);
            assert_ne!(f64::from(f32::from_bits(x)).exp() as f32, f32::from_bits(y));
        }
    }

    #[test]
    fn within_a_unit_in_the_last_place() {
        for i in -11_000..=11_000 {
            let x = i as f32 / 100.0;
            let (found, exact) = (exp(x), f64::from(x).exp() as f32);
            let apart = i64::from(found.to_bits()) - i64::from(exact.to_bits());
            assert!(apart.abs() <= 1, "{x}: {found} is {exact}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
    }
}
