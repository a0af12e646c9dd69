//! IQ1_M: 256 values in groups of 16; eight values share an entry of the codebook of IQ1_S.

use std::array::from_fn;

use gristmill_gguf::TensorType;

use super::format::rescaled;
use super::lattice::{reference_weights, shifted, u16_at};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::IQ1S_GRID;
use crate::half::f16_to_f32;
use crate::half::f32_to_f16;
use crate::search::error::keep_better;
use crate::search::lattice::{Found, SubBlocks};
use crate::search::points::{self, Points};
use crate::search::shifted::{SHIFTED, reference_iq1_m};
use crate::search::shifted_best::Improve;
use crate::search::{nearest_int, relative_weights};
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// Block of 56 bytes: 32 low index bytes; 16 bytes with a nibble per entry (three high index bits
/// and the sign of its shift); four u16 that hold three-bit scales `s`, one per group of 16, in bits
/// 0..12 and, in their top nibbles, the half-precision scale `d`.
/// `value = (d * (2s + 1)) * (entry ± 1/8)`.
pub(crate) struct Iq1M;

impl Format<56, 256> for Iq1M {
    const TYPE: TensorType = TensorType::IQ1_M;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Optional;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 56], out: &mut [f32; 256]) {
        let d = super_scale(block);
        for (i, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let s = (u16_at(block, 48 + i / 4 * 2) >> (3 * (i % 4))) & 7;
            let high = [block[32 + i] & 15, block[32 + i] >> 4];
            let row = |l: usize| {
                &IQ1S_GRID[usize::from(block[2 * i + l]) | usize::from(high[l] & 7) << 8]
            };
            let scale = d * f32::from(2 * s + 1);
            shifted(simd, row, scale, high.map(|high| high & 8 != 0), out);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 56]]) {
        dispatch(
            rows.isa,
            Encode {
                rows,
                effort,
                blocks,
            },
        );
    }

    #[inline(always)]
    fn rescale(block: &mut [u8; 56], factor: f32) {
        let bits = rescaled(super_bits(block), factor);
        for i in 0..4 {
            let word = u16_at(block, 48 + 2 * i) & 0x0fff | bits >> (4 * i) << 12;
            block[48 + 2 * i..][..2].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// The bits of the scale scattered over the top nibbles of the four scale words.
#[inline(always)]
fn super_bits(block: &[u8; 56]) -> u16 {
    (0..4).fold(0, |bits, i| {
        bits | (u16_at(block, 48 + 2 * i) >> 12) << (4 * i)
    })
}

/// The block's scale.
#[inline(always)]
pub(super) fn super_scale(block: &[u8; 56]) -> f32 {
    f16_to_f32(super_bits(block))
}

struct Encode<'a> {
    rows: &'a Rows<'a>,
    effort: Effort,
    blocks: &'a mut [[u8; 56]],
}

impl Kernel for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let points = &*points::IQ1S;
        let mut batch = SubBlocks {
            values: [[0.0; 16]; LANES],
            weights: [[0.0; 16]; LANES],
        };
        for (block, (values, importance)) in self.blocks.iter_mut().zip(self.rows.blocks()) {
            let weights = reference_weights(values, importance, (2.0, 0.0));
            batch.values.copy_from_slice(values.as_chunks().0);
            batch.weights.copy_from_slice(weights.as_chunks().0);
            let (found, down) = reference_iq1_m(simd, points, &batch);
            *block = finish(points, &found, &down, &batch);
            if self.effort == Effort::Best {
                batch
                    .weights
                    .copy_from_slice(relative_weights(importance).as_chunks().0);
                let candidate = improve(simd, points, block, &batch);
                keep_better::<S, Iq1M, 56, 256>(simd, block, &candidate, values, importance);
            }
        }
    }
}

/// ggml's rounding of the scales, its fit of the block's scale, and the block.
fn finish(points: &Points, found: &Found<2>, down: &[u16; 2], batch: &SubBlocks<16>) -> [u8; 56] {
    let mut block = [0; 56];
    let largest = found
        .scales
        .iter()
        .fold(0.0, |max: f32, &scale| max.max(scale));
    if largest == 0.0 {
        return block;
    }
    let mut d = largest / 15.0;
    let inverse = 1.0 / d;
    let mut levels = [0; 16];
    let (mut sum_xq, mut sum_qq) = (0.0f32, 0.0f32);
    for (sub, &scale) in found.scales.iter().enumerate() {
        let level = nearest_int(0.5 * (inverse * scale - 1.0)).clamp(0, 7);
        levels[sub] = level as u16;
        for (half, (codes, down)) in found.codes.iter().zip(down).enumerate() {
            let code = codes[sub];
            let is_down = down >> sub & 1;
            write_entry(&mut block, 2 * sub + half, is_down, points.row(code));
            let values = SHIFTED[usize::from(is_down)];
            for i in 0..8 {
                let digit = usize::from(code >> (2 * i) & 3);
                let q = values[digit] * (2 * level + 1) as f32;
                let at = 8 * half + i;
                let wq = batch.weights[sub][at] * q;
                sum_xq += wq * batch.values[sub][at];
                sum_qq += wq * q;
            }
        }
    }
    if sum_qq > 0.0 {
        d = sum_xq / sum_qq;
    }
    // The factor makes up for what the codebook loses, by the perplexity of models.
    write_scales(&mut block, f32_to_f16(d * 1.1125), &levels);
    block
}

/// Writes the scale words: three bits a group, and the block's scale over the top nibbles.
fn write_scales(block: &mut [u8; 56], d: u16, levels: &[u16; 16]) {
    for (i, (word, levels)) in block[48..]
        .chunks_exact_mut(2)
        .zip(levels.as_chunks::<4>().0)
        .enumerate()
    {
        let bits = (0..4).fold(d >> (4 * i) << 12, |bits, k| bits | levels[k] << (3 * k));
        word.copy_from_slice(&bits.to_le_bytes());
    }
}

/// Writes the `i`th entry of eight values: its codebook row and shift.
fn write_entry(block: &mut [u8; 56], i: usize, down: u16, row: u16) {
    block[i] = row as u8;
    block[32 + i / 2] |= ((row >> 8 | down << 3) << (4 * (i % 2))) as u8;
}

/// A better block, starting from ggml's.
#[inline(always)]
fn improve<S: Simd>(simd: S, points: &Points, block: &[u8; 56], batch: &SubBlocks<16>) -> [u8; 56] {
    let levels = from_fn(|g| {
        let word = u16_at(block, 48 + 2 * (g / 4));
        ((word >> (3 * (g % 4))) & 7) as u8
    });
    // Without the factor of ggml's.
    let start = super_scale(block) / 1.1125;
    let search = Improve {
        simd,
        points,
        blocks: batch,
        subs: 16,
        common_shift: false,
    };
    let (choice, bits) = search.run::<2>([start, 0.0], levels);
    let mut candidate = [0; 56];
    for i in 0..32 {
        let (sub, half) = (i / 2, i % 2);
        let row = points.row(choice.codes[half][sub]);
        write_entry(&mut candidate, i, choice.down[half] >> sub & 1, row);
    }
    write_scales(&mut candidate, bits[0], &choice.levels.map(u16::from));
    candidate
}
