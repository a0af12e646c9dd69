//! Lanes as plain arrays: any target, and the compiler's own vectors where it has them.

use std::array::from_fn;
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Not, Sub};

use super::{Float, LANES, Mask, Simd};
use crate::half::{f16_to_f32, f32_to_f16};

/// The portable set.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// Sixteen f32 lanes.
#[derive(Clone, Copy)]
pub(crate) struct Lanes([f32; LANES]);

/// Sixteen truth values.
#[derive(Clone, Copy)]
pub(crate) struct Truths([bool; LANES]);

impl Lanes {
    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(from_fn(|i| f(self.0[i])))
    }

    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(from_fn(|i| f(self.0[i], other.0[i])))
    }

    #[inline(always)]
    fn test(self, other: Self, f: impl Fn(f32, f32) -> bool) -> Truths {
        Truths(from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Simd for Portable {
    type F = Lanes;
    type M = Truths;
    type Codes = [u16; LANES];

    #[inline(always)]
    fn splat(self, value: f32) -> Lanes {
        Lanes([value; LANES])
    }
    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Lanes {
        Lanes(*values)
    }
    #[inline(always)]
    fn lookup(self, table: &[f32; 32], places: Lanes) -> Lanes {
        Lanes(places.0.map(|place| table[place as usize % 32]))
    }
    #[inline(always)]
    fn load_codes(self, codes: &[u16; LANES]) -> [u16; LANES] {
        *codes
    }
    #[inline(always)]
    fn pick(self, table: Lanes, codes: [u16; LANES], shift: usize) -> Lanes {
        Lanes(codes.map(|code| table.0[usize::from(code >> shift) % 8]))
    }
}

impl Add for Lanes {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
}

impl Sub for Lanes {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
}

impl Mul for Lanes {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
}

impl Div for Lanes {
    type Output = Self;
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
}

impl Float for Lanes {
    type Mask = Truths;

    #[inline(always)]
    fn store(self, values: &mut [f32; LANES]) {
        *values = self.0;
    }
    #[inline(always)]
    fn to_u8(self) -> [u8; LANES] {
        const MAGIC: f32 = 12_582_912.0;
        self.0.map(|v| (v + MAGIC).to_bits() as u8)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn gt(self, other: Self) -> Truths {
        self.test(other, |a, b| a > b)
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Truths {
        self.test(other, |a, b| a < b)
    }
    #[inline(always)]
    fn eq(self, other: Self) -> Truths {
        self.test(other, |a, b| a == b)
    }
    #[inline(always)]
    fn select(self, mask: Truths, other: Self) -> Self {
        Self(from_fn(|i| if mask.0[i] { self.0[i] } else { other.0[i] }))
    }
    #[inline(always)]
    fn nearest(self, lo: i32, hi: i32) -> Self {
        self.map(|v| crate::search::nearest_int(v).clamp(lo, hi) as f32)
    }
    #[inline(always)]
    fn least(self) -> f32 {
        let halves = |n: usize, v: [f32; LANES]| -> [f32; LANES] {
            from_fn(|i| {
                if v[i] < v[(i + n) % LANES] {
                    v[i]
                } else {
                    v[(i + n) % LANES]
                }
            })
        };
        halves(1, halves(2, halves(4, halves(8, self.0))))[0]
    }
    #[inline(always)]
    fn round_to_f16(self) -> Self {
        self.map(|v| f16_to_f32(f32_to_f16(v)))
    }
    #[inline(always)]
    fn round_ties_even(self) -> Self {
        const MAGIC: f32 = 12_582_912.0;
        self.map(|v| (v + MAGIC) - MAGIC)
    }
}

impl BitAnd for Truths {
    type Output = Self;
    #[inline(always)]
    fn bitand(self, other: Self) -> Self {
        Self(from_fn(|i| self.0[i] & other.0[i]))
    }
}

impl BitOr for Truths {
    type Output = Self;
    #[inline(always)]
    fn bitor(self, other: Self) -> Self {
        Self(from_fn(|i| self.0[i] | other.0[i]))
    }
}

impl Not for Truths {
    type Output = Self;
    #[inline(always)]
    fn not(self) -> Self {
        Self(self.0.map(|truth| !truth))
    }
}

impl Mask for Truths {
    #[inline(always)]
    fn any(self) -> bool {
        self.0.iter().any(|&truth| truth)
    }
    #[inline(always)]
    fn bits(self) -> u16 {
        (0..LANES).fold(0, |bits, i| bits | u16::from(self.0[i]) << i)
    }
}
