//! NVFP4: 64 E2M1 numbers, a UE4M3 scale per 16.

use gristmill_gguf::TensorType;

use super::packing::part;
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::{E2M1_DOUBLED, ue4m3_half};
use crate::search::{fp4, sum_lanes};
use crate::simd::{Bytes, Float, Kernel, Simd, dispatch};

/// Four scale bytes, then eight bytes of codes for each group of 16: byte `j` of a group holds its
/// value `j` in the low and `j + 8` in the high nibble. A value is `(2·e2m1)·(scale / 2)`. A
/// tensor's own scale, where a model has one, is a separate tensor and no concern of the blocks.
pub(crate) struct Nvfp4;

impl Format<36, 64> for Nvfp4 {
    const TYPE: TensorType = TensorType::NVFP4;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;
    /// Its scales have three bits of mantissa.
    const STRETCHED: bool = false;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 36], values: &mut [f32; 64]) {
        let table = simd.bytes(&E2M1_DOUBLED.map(|value| value as u8));
        let codes = part::<4, 32, _>(block).as_chunks::<8>().0;
        for (group, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
            let scale = simd.splat(ue4m3_half(block[group]));
            // The eight bytes twice: once for the low nibbles, once for the high ones.
            let mut both = [0; 16];
            for j in 0..8 {
                (both[j], both[j + 8]) = (codes[group][j] & 15, codes[group][j] >> 4);
            }
            (simd.widen_signed(simd.bytes(&both).lookup(table)) * scale).store(values);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 36]]) {
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
    blocks: &'a mut [[u8; 36]],
}

impl Kernel for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (block, (values, importance)) in self.blocks.iter_mut().zip(self.rows.blocks::<64>()) {
            let ones = [1.0; 64];
            let weights = importance.unwrap_or(&ones).as_chunks::<16>().0;
            for (group, values) in values.as_chunks::<16>().0.iter().enumerate() {
                let amax = simd.load(values).abs().greatest();
                let mut scale = reference_scale(amax / 6.0);
                if self.effort == Effort::Best && amax > 0.0 {
                    scale = best_scale(simd, &values.map(f32::abs), &weights[group], scale);
                }
                block[group] = scale;
                let codes = fp4::codes(simd, values, ue4m3_half(scale));
                for j in 0..8 {
                    block[4 + 8 * group + j] = codes[j] | codes[j + 8] << 4;
                }
            }
        }
    }
}

/// The scale byte with the least error around ggml's: half an octave up, more than one down.
#[inline(always)]
fn best_scale<S: Simd>(simd: S, magnitudes: &[f32; 16], weights: &[f32; 16], reference: u8) -> u8 {
    let mut best = reference;
    let mut least = error(simd, magnitudes, weights, reference);
    for byte in reference.saturating_sub(10)..=(reference + 5).min(0x7e) {
        let error = error(simd, magnitudes, weights, byte);
        if error < least {
            (best, least) = (byte, error);
        }
    }
    best
}

#[inline(always)]
fn error<S: Simd>(simd: S, magnitudes: &[f32; 16], weights: &[f32; 16], byte: u8) -> f32 {
    let scale = ue4m3_half(byte);
    if scale == 0.0 {
        let x = simd.load(magnitudes);
        return sum_lanes(&(simd.load(weights) * (x * x)).to_array());
    }
    fp4::error(simd, &[*magnitudes], &[*weights], scale)
}

/// ggml's conversion to UE4M3: half up by the next bit alone, and everything from 256 to 448.
#[inline(always)]
fn reference_scale(value: f32) -> u8 {
    const LARGEST: u8 = 0x7e;
    if value.is_nan() || value <= 0.0 {
        return 0;
    }
    let value = value.min(448.0);
    let exponent = (value.to_bits() >> 23) as i32 - 127 + 7;
    if exponent <= 0 {
        return ((value * 512.0 + 0.5) as u8).min(7);
    }
    if exponent >= 15 {
        return LARGEST;
    }
    let mantissa = (value.to_bits() >> 20) & 7;
    let next = (value.to_bits() >> 19) & 1;
    // A mantissa that overflows carries into the exponent.
    let rounded = ((exponent as u32) << 3) + mantissa + next;
    if rounded >= 15 << 3 {
        LARGEST
    } else {
        rounded as u8
    }
}
