//! Activations and their 8-bit form.

use std::sync::OnceLock;

use gristmill_quantize::Isa;

use super::integer::Tiles;
use super::{BLOCK, SUPER, float};
use crate::pool::Pool;
use crate::simd::{Loops, Simd, dispatch};

/// The input of matrix products: `tokens` vectors of `cols` values, token after token.
///
/// Kernels for quantized weights want it in 8 bits; it is converted when the first product asks for
/// it, and all products that read the same input share the result.
#[derive(Debug, Default)]
pub struct Activations {
    tokens: usize,
    cols: usize,
    values: Vec<f32>,
    a32: OnceLock<A32>,
    tiles: OnceLock<Tiles>,
    float_tiles: OnceLock<float::Tiles>,
}

impl Activations {
    /// Takes `tokens` vectors of `cols` values.
    ///
    /// # Panics
    /// If `values` does not hold `tokens * cols` values.
    pub fn new(tokens: usize, cols: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), tokens * cols, "tokens x columns");
        Self {
            tokens,
            cols,
            values,
            ..Self::default()
        }
    }

    /// Makes room for another input, keeping the allocation, and gives its values to be written:
    /// they hold whatever they held before, or zeros.
    pub fn reset(&mut self, tokens: usize, cols: usize) -> &mut [f32] {
        self.a32 = OnceLock::new();
        self.tiles = OnceLock::new();
        self.float_tiles = OnceLock::new();
        self.tokens = tokens;
        self.cols = cols;
        self.values.resize(tokens * cols, 0.0);
        &mut self.values
    }

    /// The values, for their memory to be used again.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// Number of vectors.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Values in a vector.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// All values, token after token.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The vector of one token.
    ///
    /// # Panics
    /// If there is no such token.
    pub fn token(&self, token: usize) -> &[f32] {
        &self.values[token * self.cols..][..self.cols]
    }

    /// The 8-bit form, made on first use.
    pub(super) fn a32(&self, isa: Isa, pool: &Pool) -> &A32 {
        self.a32.get_or_init(|| A32::quantize(self, isa, pool))
    }

    /// The 8-bit form of all tokens in tiles, made on first use.
    pub(super) fn tiles(&self, isa: Isa, pool: &Pool) -> &Tiles {
        self.tiles
            .get_or_init(|| Tiles::new(self.a32(isa, pool), self.tokens, |t| t, pool))
    }

    /// All tokens in f32 tiles, made on first use.
    pub(super) fn float_tiles(&self, pool: &Pool) -> &float::Tiles {
        self.float_tiles
            .get_or_init(|| float::Tiles::new(self, self.tokens, |t| t, pool))
    }
}

/// Activations in signed 8-bit codes with one f32 scale for every 32 values (absmax / 127, round to
/// nearest even), and the sums that weights with an offset or a minimum need.
///
/// Vectors are padded with zeros to whole superblocks of 256 values.
#[derive(Debug)]
pub(super) struct A32 {
    supers: usize,
    blocks: Vec<SuperCodes>,
}

/// The 256 activations of a superblock.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct SuperCodes {
    /// The codes.
    pub codes: [i8; SUPER],
    /// -128 times the sum of the codes of every 16 values: the first halves of the 8 blocks, then
    /// their second halves.
    pub zero: [i32; 16],
    /// Scale times sum of the codes of every 16 values, in the same order.
    pub half_sum: [f32; 16],
    /// Scale of each block of 32.
    pub scale: [f32; 8],
    /// Scale times sum of the codes of each block.
    pub sum: [f32; 8],
}

/// One token's 8-bit form: its superblocks.
pub(super) type A32Token<'a> = &'a [SuperCodes];

impl SuperCodes {
    const ZERO: Self = Self {
        codes: [0; SUPER],
        zero: [0; 16],
        half_sum: [0.0; 16],
        scale: [0.0; 8],
        sum: [0.0; 8],
    };
}

impl A32 {
    fn quantize(x: &Activations, isa: Isa, pool: &Pool) -> Self {
        let supers = x.cols.div_ceil(SUPER);
        let mut blocks = vec![SuperCodes::ZERO; x.tokens * supers];
        if !blocks.is_empty() {
            // A unit of some 16 K values: a few microseconds.
            let tokens = (16384 / x.cols).max(1);
            pool.chunks(&mut blocks, tokens * supers, |unit, blocks| {
                for (i, blocks) in blocks.chunks_exact_mut(supers).enumerate() {
                    let values = x.token(unit * tokens + i);
                    dispatch(isa, QuantizeToken { values, blocks });
                }
            });
        }
        Self { supers, blocks }
    }

    /// Superblocks in a vector.
    pub(super) fn supers(&self) -> usize {
        self.supers
    }

    pub(super) fn token(&self, token: usize) -> A32Token<'_> {
        &self.blocks[token * self.supers..][..self.supers]
    }
}

/// Rounds one vector to superblocks.
struct QuantizeToken<'a> {
    values: &'a [f32],
    blocks: &'a mut [SuperCodes],
}

impl Loops for QuantizeToken<'_> {
    #[inline(always)]
    fn run<S: Simd, const WIDE: usize>(self, _: S) {
        for (values, block) in self.values.chunks(SUPER).zip(self.blocks) {
            for (b, values) in values.chunks(BLOCK).enumerate() {
                let mut padded = [0.0; BLOCK];
                padded[..values.len()].copy_from_slice(values);
                let codes = &mut block.codes.as_chunks_mut::<BLOCK>().0[b];
                let (scale, [first, second]) = quantize_block(&padded, codes);
                block.scale[b] = scale;
                block.sum[b] = scale * (first + second) as f32;
                for (half, sum) in [(b, first), (8 + b, second)] {
                    block.zero[half] = -128 * sum;
                    block.half_sum[half] = scale * sum as f32;
                }
            }
        }
    }
}

/// Codes of 32 values; gives their scale and the sums of the codes of either half. Values that are
/// not finite make the scale NaN, so that they show in every product.
#[inline(always)]
fn quantize_block(values: &[f32; BLOCK], codes: &mut [i8; BLOCK]) -> (f32, [i32; 2]) {
    /// Below this the reciprocal of the scale would overflow; such a block counts as zeros.
    const TINY: f32 = 1e-36;
    /// Adding it leaves the nearest integer, ties to even, in the low bits.
    const MAGIC: f32 = 12_582_912.0;
    // Magnitudes compare as integers; infinities and NaNs are the largest.
    let max = values
        .iter()
        .fold(0, |max, value| (value.to_bits() & 0x7FFF_FFFF).max(max));
    let max = f32::from_bits(max);
    if !max.is_finite() {
        codes.fill(0);
        return (f32::NAN, [0, 0]);
    }
    let (scale, inverse) = if max > TINY {
        (max / 127.0, 127.0 / max)
    } else {
        (0.0, 0.0)
    };
    let mut rounded = [0i32; BLOCK];
    for (rounded, value) in rounded.iter_mut().zip(values) {
        *rounded = (value * inverse + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32;
    }
    for (code, &rounded) in codes.iter_mut().zip(&rounded) {
        *code = rounded as i8;
    }
    // Added by halves of halves: vector code, where a plain sum is one of single values.
    let mut sums = [0; 16];
    for i in 0..8 {
        sums[i] = rounded[i] + rounded[8 + i];
        sums[8 + i] = rounded[16 + i] + rounded[24 + i];
    }
    let mut fours = [0; 8];
    for i in 0..4 {
        fours[i] = sums[i] + sums[4 + i];
        fours[4 + i] = sums[8 + i] + sums[12 + i];
    }
    let sum = |four: &[i32]| (four[0] + four[1]) + (four[2] + four[3]);
    (scale, [sum(&fours[..4]), sum(&fours[4..])])
}
