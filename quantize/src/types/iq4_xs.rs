//! IQ4_XS: 256 values, four bits each into the table of IQ4_NL, a six-bit scale per 32.

use std::array::from_fn;

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::lattice::u16_at;
use super::packing::{decode_nibbles, pack_nibbles, part, part_mut};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::IQ4_VALUES;
use crate::half::f32_to_f16;
use crate::search::error::keep_better;
use crate::search::multiples::{self, Choice, Fit, Within};
use crate::search::{nearest_int, reference_weights, relative_weights, table};
use crate::simd::{Float, Kernel, LANES, Simd, dispatch, gather, products};

/// Block of 136 bytes: scale `d`; `scales_h` (u16, two high bits per group); `scales_l` (four bytes,
/// a low nibble per group); 128 code bytes, 16 per group in the order of IQ4_NL.
/// `value = (d * (scale - 32)) * table[code]`.
pub(crate) struct Iq4Xs;

impl Format<136, 256> for Iq4Xs {
    const TYPE: TensorType = TensorType::IQ4_XS;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 136], values: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        let codes = part::<8, 128, _>(block).as_chunks().0;
        for (g, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
            let scale = simd.splat(d * scale(block, g) as f32);
            decode_nibbles(simd, &IQ4_VALUES, &codes[g], scale, values);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 136]]) {
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

/// The signed scale of group `g` of a block.
#[inline(always)]
pub(super) fn scale(block: &[u8; 136], g: usize) -> i32 {
    let low = (block[4 + g / 2] >> (4 * (g % 2))) & 15;
    let high = (u16_at(block, 2) >> (2 * g)) & 3;
    i32::from(low) + 16 * i32::from(high) - 32
}

struct Encode<'a> {
    rows: &'a Rows<'a>,
    effort: Effort,
    blocks: &'a mut [[u8; 136]],
}

impl Kernel for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let zero = simd.splat(0.0);
        let inputs: Vec<_> = self.rows.blocks::<256>().collect();
        for (inputs, blocks) in inputs.chunks(2).zip(self.blocks.chunks_mut(2)) {
            // Group `g` of block `b` is in lane `8b + g`; a single last block is there twice.
            let input = |lane: usize| inputs[(lane / 8).min(inputs.len() - 1)];
            let x: [S::F; 32] = gather(simd, |lane| &input(lane).0.as_chunks().0[lane % 8]);
            let w = if inputs[0].1.is_some() {
                let v: [S::F; 32] = gather(simd, |lane| {
                    let (values, importance) = input(lane);
                    &importance.unwrap_or(values).as_chunks().0[lane % 8]
                });
                let means = [0, 8].map(|lane| mean_square(input(lane).0));
                let mean = simd.load(&from_fn(|lane| means[lane / 8]));
                reference_weights(&v, &x, mean)
            } else {
                products(&x, &x)
            };
            let found = table::reference_table(simd, &x, &w).to_array();
            let mut coded = [Coded::default(); 2];
            let mut scales = [0.0; LANES];
            for ((coded, found), scales) in coded
                .iter_mut()
                .zip(found.as_chunks().0)
                .zip(scales.as_chunks_mut().0)
            {
                (*coded, *scales) = round_scales(found);
            }
            let scale = simd.load(&scales);
            let inverse = zero.select(scale.eq(zero), simd.splat(1.0) / scale);
            let codes = table::codes(simd, &x, inverse);
            for ((block, coded), codes) in blocks.iter_mut().zip(&coded).zip(codes.chunks(8)) {
                *block = pack(coded, codes);
            }
            if self.effort == Effort::Best {
                improve(simd, &x, inputs, blocks);
            }
        }
    }
}

/// Scales of a block as they are stored.
#[derive(Clone, Copy, Default)]
struct Coded {
    /// Bits of the block's scale.
    d: u16,
    /// Six bits each, offset by 32.
    levels: [u8; 8],
}

/// ggml's rounding of the groups' scales, and the scales it then takes the codes for: multiples of
/// the block's scale before that is rounded to half precision.
#[inline(always)]
fn round_scales(found: &[f32; 8]) -> (Coded, [f32; 8]) {
    let mut extreme = 0.0f32;
    for &scale in found {
        if scale.abs() > extreme.abs() {
            extreme = scale;
        }
    }
    let d = -extreme / 32.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let levels = found.map(|scale| nearest_int(inverse * scale).clamp(-32, 31));
    let coded = Coded {
        d: f32_to_f16(d),
        levels: levels.map(|level| (level + 32) as u8),
    };
    (coded, levels.map(|level| d * level as f32))
}

/// ggml's doubled mean square of a block.
#[inline(always)]
fn mean_square(values: &[f32; 256]) -> f32 {
    values.iter().fold(0.0, |sum, x| sum + x * x) * (2.0 / 256.0)
}

fn pack(coded: &Coded, codes: &[[u8; 32]]) -> [u8; 136] {
    let mut block = [0; 136];
    *part_mut::<0, 2, 136>(&mut block) = coded.d.to_le_bytes();
    let mut high = 0;
    for (g, &level) in coded.levels.iter().enumerate() {
        high |= u16::from(level >> 4) << (2 * g);
        block[4 + g / 2] |= (level & 15) << (4 * (g % 2));
    }
    *part_mut::<2, 2, 136>(&mut block) = high.to_le_bytes();
    for (codes, bytes) in codes.iter().zip(block[8..].as_chunks_mut().0) {
        pack_nibbles(codes, bytes);
    }
    block
}

/// Replaces one or two blocks by better ones.
#[inline(always)]
fn improve<S: Simd>(
    simd: S,
    x: &[S::F; 32],
    inputs: &[(&[f32; 256], Option<&[f32; 256]>)],
    blocks: &mut [[u8; 136]],
) {
    /// Block scales tried, relative to the largest scale by magnitude: that goes to the negative end, which
    /// reaches further, or near it.
    const FACTORS: [f32; 8] = [
        -1.0 / 32.0,
        -1.0 / 31.0,
        -1.0 / 30.0,
        -1.0 / 29.0,
        -1.0 / 28.0,
        -1.0 / 27.0,
        -1.0 / 25.5,
        -1.0 / 24.0,
    ];
    /// Times that codes are chosen anew for the scales found.
    const AGAIN: usize = 2;
    const LEVELS: Within = Within(-32, 31);
    let weights: [[f32; 256]; 2] = from_fn(|b| relative_weights(inputs[b.min(inputs.len() - 1)].1));
    let w: [S::F; 32] = gather(simd, |lane| &weights[lane / 8].as_chunks().0[lane % 8]);
    let zero = simd.splat(0.0);
    let mut fits = [Fit::new(zero, zero); table::TRIES + AGAIN];
    let best = table::best_scale(
        simd,
        x,
        &w,
        fits.first_chunk_mut().expect("more are asked for"),
    );
    let extreme = multiples::extreme::<S, 8>(simd, best);
    let tried = &fits[..table::TRIES];
    let mut choice = Choice::best::<S, _, 8>(simd, &LEVELS, tried, extreme, &FACTORS);
    for i in table::TRIES..fits.len() {
        let (xq, qq) = table::fit(simd, x, &w, choice.d * choice.multiples);
        fits[i] = Fit::new(xq, qq);
        choice = Choice::best::<S, _, 8>(simd, &LEVELS, &fits[..=i], choice.d, &[1.0]);
    }
    let scale = choice.d * choice.multiples;
    let inverse = zero.select(scale.eq(zero), simd.splat(1.0) / scale);
    let codes = table::codes(simd, x, inverse);
    let (d, levels) = (choice.d.to_array(), choice.multiples.to_i32());
    let best = [0, 8].map(|first| Coded {
        d: f32_to_f16(d[first]),
        levels: from_fn(|g| (levels[first + g] + 32) as u8),
    });
    for (b, (block, &(values, importance))) in blocks.iter_mut().zip(inputs).enumerate() {
        let candidate = pack(&best[b], &codes[8 * b..8 * b + 8]);
        keep_better::<S, Iq4Xs, 136, 256>(simd, block, &candidate, values, importance);
    }
}
