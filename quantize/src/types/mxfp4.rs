//! MXFP4: 32 E2M1 numbers with a shared power-of-two scale (OCP microscaling formats).

use gristmill_gguf::TensorType;

use super::packing::{decode_nibbles, part};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::{E2M1_DOUBLED, e8m0_half};
use crate::search::fp4;
use crate::simd::{Float, Kernel, Simd, dispatch};

/// Exponent byte `e` (E8M0), then 16 bytes: byte `j` holds value `j` in its low and `j + 16` in its
/// high nibble. A value is `(2·e2m1)·2^(e - 128)`.
pub(crate) struct Mxfp4;

impl Format<17, 32> for Mxfp4 {
    const TYPE: TensorType = TensorType::MXFP4;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;
    /// Its scales are powers of two.
    const STRETCHED: bool = false;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 17], values: &mut [f32; 32]) {
        let scale = simd.splat(e8m0_half(block[0]));
        decode_nibbles(simd, &E2M1_DOUBLED, part::<1, 16, _>(block), scale, values);
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 17]]) {
        dispatch(
            rows.isa,
            Encode {
                rows,
                effort,
                blocks,
            },
        );
    }
}

struct Encode<'a> {
    rows: &'a Rows<'a>,
    effort: Effort,
    blocks: &'a mut [[u8; 17]],
}

impl Kernel for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (block, (values, importance)) in self.blocks.iter_mut().zip(self.rows.blocks::<32>()) {
            let halves = values.as_chunks().0;
            let (low, high) = (simd.load(&halves[0]), simd.load(&halves[1]));
            let amax = low.abs().max(high.abs()).greatest();
            block[0] = reference_exponent(amax);
            if self.effort == Effort::Best && amax > 0.0 {
                let magnitudes = [halves[0].map(f32::abs), halves[1].map(f32::abs)];
                let ones = [1.0; 32];
                let weights = importance.unwrap_or(&ones).as_chunks().0;
                block[0] = best_exponent(simd, &magnitudes, &[weights[0], weights[1]], block[0]);
            }
            let scale = e8m0_half(block[0]);
            let low = fp4::codes(simd, &halves[0], scale);
            let high = fp4::codes(simd, &halves[1], scale);
            for j in 0..16 {
                block[1 + j] = low[j] | high[j] << 4;
            }
        }
    }
}

/// The exponent with the least error around ggml's: the next above it, or as far below it as that
/// helps, since the largest values may matter little.
#[inline(always)]
fn best_exponent<S: Simd>(
    simd: S,
    magnitudes: &[[f32; 16]; 2],
    weights: &[[f32; 16]; 2],
    reference: u8,
) -> u8 {
    let mut best = reference;
    let mut least = fp4::error(simd, magnitudes, weights, e8m0_half(reference));
    if reference < 254 {
        let error = fp4::error(simd, magnitudes, weights, e8m0_half(reference + 1));
        if error < least {
            return reference + 1;
        }
    }
    while best > 0 {
        let error = fp4::error(simd, magnitudes, weights, e8m0_half(best - 1));
        if error >= least {
            break;
        }
        (best, least) = (best - 1, error);
    }
    best
}

/// ggml's `floor(log2f(amax)) - 2 + 127`, at least zero.
///
/// The f32 logarithm of a number just below a power of two rounds up to the integer; how many
/// numbers below it do depends on the size of the logarithm. Where ggml's exponent is negative and
/// wraps around to nonsense, zero is meant: all codes are then zero, or the values nearly subnormal.
#[inline(always)]
fn reference_exponent(amax: f32) -> u8 {
    if amax < f32::MIN_POSITIVE {
        return 0;
    }
    let exponent = (amax.to_bits() >> 23) as i32 - 127;
    let size = if exponent >= 0 {
        exponent
    } else {
        -exponent - 1
    };
    let rounded_up = match size {
        0..=1 => 0,
        2..=3 => 1,
        4..=7 => 2,
        8..=15 => 5,
        16..=31 => 11,
        32..=63 => 22,
        _ => 44,
    };
    let below_power = 0x80_0000 - (amax.to_bits() & 0x7f_ffff);
    let log2 = exponent + i32::from(below_power <= rounded_up);
    (log2 + 125).clamp(0, 255) as u8
}
