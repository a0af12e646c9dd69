//! Encodings that do not shrink.
//!
//! The encoding `y` of least `Σ w·(x - y)²` has `Σ w·x·y = Σ w·y²`, which is less than `Σ w·x²`: it is `x`
//! made smaller by the share of the error, plus noise. The noise of many weights cancels in a layer's
//! products as far as their inputs are independent; the shrinkage does not, because inputs are correlated
//! along just those directions that the weights look at. Multiplying the scales by `Σ w·x² / Σ w·x·y`
//! leaves the noise alone: the squared error rises by its own square, and the divergence of models falls
//! (by a fifth to a half for types of two bits and fewer, see `docs/quantizing.md`).

use std::marker::PhantomData;

use super::{relative_weights, sum_lanes};
use crate::simd::{Float, Kernel, LANES, Simd, dispatch};
use crate::types::{Format, Rows};

/// Least that is worth it: scales in half precision could not hold less, which would only round them anew,
/// scale and minimum apart.
const LEAST: f32 = 1.0 / 1024.0;

/// Most that a block is stretched: more is no shrinkage but an encoding of something else.
const MOST: f32 = 2.0;

/// Stretches every block whose scales can hold it.
pub(crate) fn unshrink<T, const BYTES: usize, const VALUES: usize>(
    rows: &Rows<'_>,
    blocks: &mut [[u8; BYTES]],
) where
    T: Format<BYTES, VALUES>,
{
    let format = PhantomData::<T>;
    dispatch(
        rows.isa,
        Unshrink {
            rows,
            blocks,
            format,
        },
    );
}

struct Unshrink<'a, T, const BYTES: usize, const VALUES: usize> {
    rows: &'a Rows<'a>,
    blocks: &'a mut [[u8; BYTES]],
    format: PhantomData<T>,
}

impl<T: Format<BYTES, VALUES>, const BYTES: usize, const VALUES: usize> Kernel
    for Unshrink<'_, T, BYTES, VALUES>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut decoded = [0.0; VALUES];
        for (block, (values, importance)) in self.blocks.iter_mut().zip(self.rows.blocks()) {
            T::decode(simd, block, &mut decoded);
            let weights = relative_weights::<VALUES>(importance);
            let (mut xx, mut xy) = (simd.splat(0.0), simd.splat(0.0));
            let lanes = values.as_chunks::<LANES>().0.iter();
            let lanes = lanes.zip(decoded.as_chunks::<LANES>().0);
            for ((x, y), w) in lanes.zip(weights.as_chunks::<LANES>().0) {
                let x = simd.load(x);
                let wx = simd.load(w) * x;
                xx = xx + wx * x;
                xy = xy + wx * simd.load(y);
            }
            let factor = sum_lanes(&xx.to_array()) / sum_lanes(&xy.to_array());
            // Neither for NaN.
            if factor > 0.0 && factor <= MOST && (factor - 1.0).abs() >= LEAST {
                T::rescale(block, factor);
            }
        }
    }
}
