//! Lanes as plain arrays: any target, and the compiler's own vectors where it has them.

use std::array::from_fn;
use std::ops::{Add, BitAnd, BitOr, Div, Mul, Not, Sub};

use super::{Bytes, Float, HALF, LANES, Mask, Simd};
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

    /// Combines all lanes, by halves.
    #[inline(always)]
    fn fold(self, combine: impl Fn(Self, Self) -> Self) -> f32 {
        let mut all = self;
        for n in [8, 4, 2, 1] {
            all = combine(all, Self(from_fn(|i| all.0[(i + n) % LANES])));
        }
        all.0[0]
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
    type B = [u8; LANES];

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
    fn load_code_halves(self, low: &[u16; HALF], high: &[u16; HALF]) -> [u16; LANES] {
        from_fn(|i| if i < HALF { low[i] } else { high[i - HALF] })
    }
    #[inline(always)]
    fn splat_halves(self, low: f32, high: f32) -> Lanes {
        Lanes(from_fn(|i| if i < HALF { low } else { high }))
    }
    #[inline(always)]
    fn pick<const BITS: usize>(self, table: Lanes, codes: [u16; LANES], place: usize) -> Lanes {
        let digit = |code: u16| usize::from(code >> (BITS * place)) % (1 << BITS);
        Lanes(from_fn(|i| table.0[i / HALF * HALF + digit(codes[i])]))
    }
    #[inline(always)]
    fn mask(self, lanes: u16) -> Truths {
        Truths(from_fn(|i| lanes >> i & 1 == 1))
    }
    #[inline(always)]
    fn bytes(self, bytes: &[u8; LANES]) -> [u8; LANES] {
        *bytes
    }
    #[inline(always)]
    fn widen(self, bytes: [u8; LANES]) -> Lanes {
        Lanes(bytes.map(f32::from))
    }
    #[inline(always)]
    fn widen_signed(self, bytes: [u8; LANES]) -> Lanes {
        Lanes(bytes.map(|byte| f32::from(byte as i8)))
    }
}

impl Bytes for [u8; LANES] {
    #[inline(always)]
    fn and(self, mask: u8) -> Self {
        self.map(|byte| byte & mask)
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        from_fn(|i| self[i] | other[i])
    }
    #[inline(always)]
    fn shr(self, bits: u32) -> Self {
        self.map(|byte| byte >> bits)
    }
    #[inline(always)]
    fn shl(self, bits: u32) -> Self {
        self.map(|byte| byte << bits)
    }
    #[inline(always)]
    fn triple(self) -> Self {
        self.map(|byte| byte.wrapping_mul(3))
    }
    #[inline(always)]
    fn lookup(self, table: Self) -> Self {
        self.map(|code| table[usize::from(code) % LANES])
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
        self.0.map(|v| v as i32 as u8)
    }
    #[inline(always)]
    fn to_i32(self) -> [i32; LANES] {
        self.0.map(|v| v as i32)
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
        self.fold(Self::min)
    }
    #[inline(always)]
    fn least_of_half(self) -> Self {
        let mut all = self;
        for n in [4, 2, 1] {
            all = all.min(Self(from_fn(|i| all.0[i ^ n])));
        }
        all
    }
    #[inline(always)]
    fn greatest(self) -> f32 {
        self.fold(Self::max)
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
