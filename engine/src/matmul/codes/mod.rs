//! Weights as 8-bit codes: the common form that all integer kernels multiply.
//!
//! A superblock of 256 weights becomes 256 unsigned codes (the signed code plus 128) in the order of
//! the row, and f32 scales and minima. A type says how its bytes become that ([`Codes`]); products
//! know nothing of types but the [`Shape`] of their scales. Types of 32-value blocks count as
//! superblocks of eight.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod codebooks;
mod k_quants;
mod legacy;
mod nibbles;
mod ternary;

pub(super) use codebooks::{IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
pub(super) use k_quants::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
pub(super) use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
pub(super) use nibbles::{IQ4_NL, IQ4_XS, MXFP4, NVFP4};
pub(super) use ternary::{Q1_0, Q2_0, TQ1_0, TQ2_0};

use gristmill_quantize::half::f16_to_f32;

use super::SUPER;

/// How finely scales are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scales {
    /// One for each block of 32, in [`SuperScales::scale`].
    Blocks,
    /// One for every 16 values, in [`SuperScales::half`].
    Halves,
    /// A small integer for every 16 values in [`SuperScales::half`] whose products with the codes
    /// fit 8 bits, times a scale in [`SuperScales::scale`].
    Folded,
}

/// Whether there are minima to add, and for how many values each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Minima {
    /// None.
    None,
    /// One for each block of 32, in the first half of [`SuperScales::min`].
    Blocks,
    /// One for every 16 values, in [`SuperScales::min`].
    Halves,
}

/// What a type's scales look like: constants that kernels are compiled for.
pub(super) trait Shape {
    /// Scales.
    const SCALES: Scales;
    /// Minima.
    const MINIMA: Minima;
}

/// A scale for each block of 32.
pub(super) struct BlockScales;
/// A scale and a minimum for each block of 32.
pub(super) struct BlockScalesMinima;
/// A scale for every 16 values.
pub(super) struct HalfScales;
/// An integer scale for every 16 values.
pub(super) struct FoldedScales;
/// An integer scale and a minimum for every 16 values.
pub(super) struct FoldedScalesMinima;

impl Shape for BlockScales {
    const SCALES: Scales = Scales::Blocks;
    const MINIMA: Minima = Minima::None;
}

impl Shape for BlockScalesMinima {
    const SCALES: Scales = Scales::Blocks;
    const MINIMA: Minima = Minima::Blocks;
}

impl Shape for HalfScales {
    const SCALES: Scales = Scales::Halves;
    const MINIMA: Minima = Minima::None;
}

impl Shape for FoldedScales {
    const SCALES: Scales = Scales::Folded;
    const MINIMA: Minima = Minima::None;
}

impl Shape for FoldedScalesMinima {
    const SCALES: Scales = Scales::Folded;
    const MINIMA: Minima = Minima::Halves;
}

/// A type whose weights become codes.
pub(super) trait Codes {
    /// What its scales look like.
    type Shape: Shape;
    /// Stored bytes of 256 weights.
    const BYTES: usize;
    /// The least and the greatest signed code, of [`Scales::Folded`] types times its integer scale.
    const RANGE: [i32; 2];

    /// Unpacks one superblock of [`Self::BYTES`] bytes.
    fn unpack(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales, cpu: impl Cpu);

    /// The same with AVX-512.
    ///
    /// # Safety
    /// The CPU must have it.
    #[cfg(target_arch = "x86_64")]
    unsafe fn unpack_avx512(bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales);
}

/// What unpacking does that compilers find no instruction for by themselves. A value is the proof
/// that the CPU has the instructions.
pub(super) trait Cpu: Copy {
    /// The little-endian f16 at the start of some bytes.
    fn half(self, bytes: &[u8]) -> f32;

    /// Table values for the nibbles of 8 or 16 bytes: those of the low ones first.
    fn look_up(self, bytes: &[u8], codes: &mut [u8], table: &[u8; 16]);
}

/// Plain code.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Cpu for Plain {
    #[inline(always)]
    fn half(self, bytes: &[u8]) -> f32 {
        f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    #[inline(always)]
    fn look_up(self, bytes: &[u8], codes: &mut [u8], table: &[u8; 16]) {
        let (low, high) = codes.split_at_mut(bytes.len());
        for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
            *low = table[usize::from(byte & 15)];
            *high = table[usize::from(byte >> 4)];
        }
    }
}

/// Place of 16-value sub-block `j` in the order of [`SuperScales`].
#[inline(always)]
const fn place(j: usize) -> usize {
    j / 2 + j % 2 * 8
}

/// 16 bytes of sub-blocks in the order of [`SuperScales`].
#[inline(always)]
fn in_places(bytes: &[u8]) -> [u8; 16] {
    let mut ordered = [0; 16];
    for j in 0..16 {
        ordered[place(j)] = bytes[j];
    }
    ordered
}

/// Unpacks one superblock, in some way: a closure of the kernel, whose instruction set it is compiled
/// for (a function's name would be called through a shim that is compiled for the plainest CPU).
pub(super) trait Unpack: Fn(&[u8], &mut [u8; SUPER], &mut SuperScales) {}

impl<F: Fn(&[u8], &mut [u8; SUPER], &mut SuperScales)> Unpack for F {}

/// Scales and minima of one superblock. What is given for every 16 values stands in this order: the
/// first halves of the eight blocks of 32, then their second halves.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct SuperScales {
    pub half: [f32; 16],
    pub min: [f32; 16],
    pub scale: [f32; 8],
}

impl SuperScales {
    pub(super) const ZERO: Self = Self {
        half: [0.0; 16],
        min: [0.0; 16],
        scale: [0.0; 8],
    };
}

/// The codes of one superblock.
#[repr(C, align(64))]
struct Buffer([u8; SUPER]);

/// Unpacks the superblocks of a row in turn and calls `each` with their index, codes and scales.
#[inline(always)]
pub(super) fn each_super<T: Codes>(
    row: &[u8],
    unpack: impl Unpack,
    mut each: impl FnMut(usize, &[u8; SUPER], &SuperScales),
) {
    let mut codes = Buffer([0; SUPER]);
    let mut scales = SuperScales::ZERO;
    for (s, bytes) in row.chunks(T::BYTES).enumerate() {
        unpack_some(T::BYTES, bytes, &mut codes.0, &mut scales, &unpack);
        each(s, &codes.0, &scales);
    }
}

/// Unpacks the superblock at the start of `bytes`, which may end before the superblock does: what
/// is missing decodes from zeros, and meets activations that are zero.
#[inline(always)]
pub(super) fn unpack_some(
    block: usize,
    bytes: &[u8],
    codes: &mut [u8; SUPER],
    scales: &mut SuperScales,
    unpack: &impl Unpack,
) {
    let mut padded;
    let bytes = match bytes.get(..block) {
        Some(bytes) => bytes,
        None => {
            // Only types of small blocks come here; the longest superblock of theirs is Q8_0's.
            padded = [0; 272];
            padded[..bytes.len()].copy_from_slice(bytes);
            &padded[..block]
        }
    };
    unpack(bytes, codes, scales);
}
