//! Sixteen f32 lanes on every instruction set.
//!
//! Encoders put sixteen blocks side by side, one a lane, and run the scalar sequence of each:
//! every operation is a single correctly rounded IEEE operation, so the bytes do not depend on the
//! instruction set. There is deliberately no fused multiply-add and no sum across lanes.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::{Add, BitAnd, BitOr, Div, Mul, Not, Sub};

use crate::isa::Isa;

/// Number of lanes, the same everywhere.
pub(crate) const LANES: usize = 16;

/// Lanes of a half.
pub(crate) const HALF: usize = LANES / 2;

/// Proof that an instruction set may be used; makes its vectors.
pub(crate) trait Simd: Copy {
    /// Sixteen f32 values.
    type F: Float<Mask = Self::M>;
    /// Sixteen truth values.
    type M: Mask;
    /// Sixteen packed lattice points.
    type Codes: Copy;
    /// Sixteen bytes.
    type B: Bytes;

    /// The same value in all lanes.
    fn splat(self, value: f32) -> Self::F;
    /// Lane `i` gets `values[i]`.
    fn load(self, values: &[f32; LANES]) -> Self::F;
    /// Lane `i` gets `table[places[i]]`, places truncated to whole numbers, which must be 0 to 31.
    fn lookup(self, table: &[f32; 32], places: Self::F) -> Self::F;
    /// Lane `i` gets `codes[i]`.
    fn load_codes(self, codes: &[u16; LANES]) -> Self::Codes;
    /// The lower eight lanes get `low[i]`, the upper eight `high[i]`.
    fn load_code_halves(self, low: &[u16; HALF], high: &[u16; HALF]) -> Self::Codes;
    /// The lower eight lanes get `low`, the upper eight `high`.
    fn splat_halves(self, low: f32, high: f32) -> Self::F;
    /// What digit `place` of the codes stands for, digits being `BITS` wide (2 or 3): lane `i` gets what
    /// its half of `table` has for its digit. Both halves are indexed by digits of three bits; for those of
    /// two, each quarter of the table must be the table.
    fn pick<const BITS: usize>(self, table: Self::F, codes: Self::Codes, place: usize) -> Self::F;
    /// Lane `i` gets bit `i`.
    fn mask(self, lanes: u16) -> Self::M;
    /// The bytes as a vector.
    fn bytes(self, bytes: &[u8; LANES]) -> Self::B;
    /// Lane `i` gets byte `i`.
    fn widen(self, bytes: Self::B) -> Self::F;
    /// Lane `i` gets byte `i`, as an i8.
    fn widen_signed(self, bytes: Self::B) -> Self::F;
}

/// Sixteen bytes, as the codes of blocks are packed.
pub(crate) trait Bytes: Copy {
    /// The bits of `mask` of every byte.
    fn and(self, mask: u8) -> Self;
    /// The bits of both.
    fn or(self, other: Self) -> Self;
    /// Every byte shifted right by up to seven bits.
    fn shr(self, bits: u32) -> Self;
    /// Every byte shifted left by up to seven bits.
    fn shl(self, bits: u32) -> Self;
    /// Every byte times three, modulo 256.
    fn triple(self) -> Self;
    /// Byte `i` gets byte `self[i]` of `table`; `self[i]` must be below sixteen.
    fn lookup(self, table: Self) -> Self;
}

/// Arithmetic on sixteen f32 lanes.
pub(crate) trait Float:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// The result of comparisons.
    type Mask: Mask;

    /// The lanes as an array.
    fn store(self, values: &mut [f32; LANES]);
    /// The integer parts of small lanes, as bytes (modulo 256).
    fn to_u8(self) -> [u8; LANES];
    /// The integer parts of lanes.
    fn to_i32(self) -> [i32; LANES];
    /// `|self|`.
    fn abs(self) -> Self;
    /// Correctly rounded square root.
    fn sqrt(self) -> Self;
    /// `if self > other { self } else { other }`.
    fn max(self, other: Self) -> Self;
    /// `if self < other { self } else { other }`.
    fn min(self, other: Self) -> Self;
    /// `self > other`; false for NaN.
    fn gt(self, other: Self) -> Self::Mask;
    /// `self < other`; false for NaN.
    fn lt(self, other: Self) -> Self::Mask;
    /// `self == other`; false for NaN.
    fn eq(self, other: Self) -> Self::Mask;
    /// `if mask { self } else { other }`.
    fn select(self, mask: Self::Mask, other: Self) -> Self;
    /// ggml's `nearest_int` (ties to even by way of adding 1.5·2^23, wrapping outside ±2^22, NaN
    /// to 0), clamped to `lo..=hi`.
    fn nearest(self, lo: i32, hi: i32) -> Self;
    /// The least of the lanes; if one is NaN, any value.
    fn least(self) -> f32;
    /// In every lane the least of its half; if one is NaN, any value.
    fn least_of_half(self) -> Self;
    /// The greatest of the lanes; if one is NaN, any value.
    fn greatest(self) -> f32;
    /// Nearest value that f16 can hold, ties to even; infinite beyond its range.
    fn round_to_f16(self) -> Self;
    /// Nearest integer, ties to even, for values within ±2^22; cheaper than `nearest`.
    fn round_ties_even(self) -> Self;

    /// The lanes by value.
    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        self.store(&mut values);
        values
    }
}

/// Sixteen truth values.
pub(crate) trait Mask:
    Copy + BitAnd<Output = Self> + BitOr<Output = Self> + Not<Output = Self>
{
    /// Whether any lane is true.
    fn any(self) -> bool;
    /// Lane `i` as bit `i`.
    fn bits(self) -> u16;
}

// Arrays of vectors are filled by loops in functions that are `#[inline(always)]`, as in the two below,
// never by closures (so not by `array::from_fn` or `array::map` either). A closure is compiled for the
// set only if the compiler happens to inline it, and where it does not, every operation in it is a
// call; and arrays of vectors handed on by value have been seen stored with instructions for aligned
// memory where it is not aligned (rustc 1.95).

/// One vector for each array.
#[inline(always)]
pub(crate) fn load_all<S: Simd, const N: usize>(simd: S, lanes: &[[f32; LANES]; N]) -> [S::F; N] {
    let mut all = [simd.splat(0.0); N];
    for (vector, lanes) in all.iter_mut().zip(lanes) {
        *vector = simd.load(lanes);
    }
    all
}

/// `a[j]·b[j]`.
#[inline(always)]
pub(crate) fn products<F: Float, const N: usize>(a: &[F; N], b: &[F; N]) -> [F; N] {
    let mut all = *a;
    for (product, &b) in all.iter_mut().zip(b) {
        *product = *product * b;
    }
    all
}

/// Sixteen blocks of `N` values side by side: lane `i` of vector `j` is value `j` of block `i`.
#[inline(always)]
pub(crate) fn gather<'a, S: Simd, const N: usize>(
    simd: S,
    block: impl Fn(usize) -> &'a [f32; N],
) -> [S::F; N] {
    let mut lanes = [[0.0; LANES]; N];
    for lane in 0..LANES {
        for (lanes, &value) in lanes.iter_mut().zip(block(lane)) {
            lanes[lane] = value;
        }
    }
    load_all(simd, &lanes)
}

/// [`Float::to_u8`] of every vector.
#[inline(always)]
pub(crate) fn to_u8_all<F: Float, const N: usize>(vectors: &[F; N]) -> [[u8; LANES]; N] {
    let mut all = [[0; LANES]; N];
    for (bytes, vector) in all.iter_mut().zip(vectors) {
        *bytes = vector.to_u8();
    }
    all
}

/// Inverse of [`gather`] for levels, which are small integers.
#[inline(always)]
pub(crate) fn scatter_levels<F: Float, const N: usize>(levels: &[F; N]) -> [[u8; N]; LANES] {
    let mut blocks = [[0; N]; LANES];
    for (j, levels) in levels.iter().enumerate() {
        for (block, level) in blocks.iter_mut().zip(levels.to_u8()) {
            block[j] = level;
        }
    }
    blocks
}

/// Code that runs on whichever instruction set is chosen. `run` must be `#[inline(always)]`, and
/// so must all it calls in its inner loops: only inlined code is compiled for the set.
pub(crate) trait Kernel {
    /// What it gives back.
    type Output;
    /// Runs it.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `kernel` compiled for `isa`; on the portable set if this CPU lacks it.
#[inline]
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if isa.is_available() {
        match isa {
            Isa::Portable => {}
            // SAFETY: the CPU has every feature of the set, checked just above.
            Isa::Avx2 => return unsafe { x86::run_avx2(kernel) },
            // SAFETY: the CPU has every feature of the set, checked just above.
            Isa::Avx512 => return unsafe { x86::run_avx512(kernel) },
        }
    }
    kernel.run(portable::Portable)
}
