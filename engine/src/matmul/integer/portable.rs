//! The plain form of the integer product: what the others must equal bit for bit.

use super::super::activations::{A32Token, SuperSums};
use super::super::codes::{CodeRow, Minima, Scales, Shape, SuperScales};
use super::super::{BLOCK, SUPER};

/// The product of an unpacked row and a token.
#[inline(always)]
pub(in super::super) fn dot<S: Shape>(row: &CodeRow, x: A32Token<'_>) -> f32 {
    let mut strands = [0.0f32; 8];
    let weights = row.codes.as_chunks::<SUPER>().0.iter().zip(&row.scales);
    let activations = x.codes.as_chunks::<SUPER>().0.iter().zip(x.blocks);
    for ((codes, scales), (x, sums)) in weights.zip(activations) {
        for b in 0..8 {
            let halves = [b, 8 + b].map(|half| {
                let start = BLOCK * b + half / 8 * 16;
                let products = codes[start..start + 16].iter().zip(&x[start..start + 16]);
                let sum: i32 = products.map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
                sum + sums.zero[half]
            });
            strands[b] = epilogue::<S>(b, halves, scales, sums, strands[b]);
        }
    }
    strands.iter().sum()
}

/// Adds one block to its strand: the float operations that every kernel does, in this order.
#[inline(always)]
fn epilogue<S: Shape>(
    b: usize,
    [first, second]: [i32; 2],
    weight: &SuperScales,
    x: &SuperSums,
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
