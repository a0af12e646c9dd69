//! The plain form of the integer product: what the others must equal bit for bit.

use super::super::activations::{A32Token, SuperCodes};
use super::super::codes::{Codes, Minima, Plain, Scales, Shape, SuperScales, each_super};
use super::super::{BLOCK, SUPER};
use super::ROW_TOKENS;

/// The products of a stored row and a few tokens.
pub(super) fn row<T: Codes>(row: &[u8], x: &[A32Token<'_>], out: &mut [f32]) {
    let mut strands = [[0.0f32; 8]; ROW_TOKENS];
    let unpack = |b: &[u8], c: &mut _, s: &mut _| T::unpack(b, c, s, Plain);
    each_super::<T>(row, unpack, |s, codes, scales| {
        for (x, strands) in x.iter().zip(&mut strands) {
            add_super::<T::Shape>(codes, scales, &x[s], strands);
        }
    });
    for (out, strands) in out.iter_mut().zip(strands) {
        *out = strands.iter().sum();
    }
}

/// Adds the products of a superblock to the strands.
#[inline(always)]
fn add_super<S: Shape>(
    codes: &[u8; SUPER],
    scales: &SuperScales,
    x: &SuperCodes,
    strands: &mut [f32; 8],
) {
    for (b, strand) in strands.iter_mut().enumerate() {
        let half = |half: usize| {
            let start = BLOCK * b + half / 8 * 16;
            let products = codes[start..start + 16]
                .iter()
                .zip(&x.codes[start..start + 16]);
            let sum: i32 = products.map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
            sum + x.zero[half]
        };
        *strand = epilogue::<S>(b, [half(b), half(8 + b)], scales, x, *strand);
    }
}

/// Adds one block to its strand: the float operations that every kernel does, in this order.
#[inline(always)]
fn epilogue<S: Shape>(
    b: usize,
    [first, second]: [i32; 2],
    weight: &SuperScales,
    x: &SuperCodes,
    mut strand: f32,
) -> f32 {
    let scaled = |half: usize, sum: i32| sum as f32 * weight.half[half];
    strand = match S::SCALES {
        Scales::Blocks => {
            let block = (first + second) as f32 * weight.scale[b];
            block.mul_add(x.scale[b], strand)
        }
        Scales::Halves => {
            strand = scaled(b, first).mul_add(x.scale[b], strand);
            scaled(8 + b, second).mul_add(x.scale[b], strand)
        }
        Scales::Folded => {
            // Integers below 2^24: exact.
            let block = (scaled(b, first) + scaled(8 + b, second)) * weight.scale[b];
            block.mul_add(x.scale[b], strand)
        }
    };
    match S::MINIMA {
        Minima::None => strand,
        Minima::Blocks => weight.min[b].mul_add(x.sum[b], strand),
        Minima::Halves => {
            strand = weight.min[b].mul_add(x.half_sum[b], strand);
            weight.min[8 + b].mul_add(x.half_sum[8 + b], strand)
        }
    }
}
