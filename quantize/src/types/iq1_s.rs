//! IQ1_S: 256 values in groups of 32; eight values share an entry of a 2048-entry codebook.

use std::array::from_fn;

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::lattice::{reference_weights, shifted, u16_at};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::codebooks::IQ1S_GRID;
use crate::half::f32_to_f16;
use crate::search::error::keep_better;
use crate::search::lattice::{Found, SubBlocks};
use crate::search::points::{self, Points};
use crate::search::shifted::reference_iq1_s;
use crate::search::shifted_best::Improve;
use crate::search::{nearest_int, relative_weights};
use crate::simd::{Kernel, LANES, Simd, dispatch};

/// Block of 50 bytes: scale `d`; 32 low index bytes; eight u16, one per group: three high index bits
/// of each of four entries (bits 0..12), a three-bit scale `s` and the sign of the group's shift.
/// `value = (d * (2s + 1)) * (entry ± 1/8)`.
pub(crate) struct Iq1S;

impl Format<50, 256> for Iq1S {
    const TYPE: TensorType = TensorType::IQ1_S;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Required;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 50], out: &mut [f32; 256]) {
        let d = f16_at(block, 0);
        for (i, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            let high = u16_at(block, 34 + i / 2 * 2);
            let scale = d * f32::from(2 * ((high >> 12) & 7) + 1);
            let row = |l: usize| {
                let high = usize::from(high >> (6 * (i % 2) + 3 * l) & 7);
                &IQ1S_GRID[usize::from(block[2 + 2 * i + l]) | high << 8]
            };
            shifted(simd, row, scale, [high & 0x8000 != 0; 2], out);
        }
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 50]]) {
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
    blocks: &'a mut [[u8; 50]],
}

impl Kernel for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let points = &*points::IQ1S;
        let inputs: Vec<_> = self.rows.blocks::<256>().collect();
        let mut batch = SubBlocks {
            values: [[0.0; 32]; LANES],
            weights: [[0.0; 32]; LANES],
        };
        for (inputs, blocks) in inputs.chunks(2).zip(self.blocks.chunks_mut(2)) {
            // Group `g` of block `b` is in lane `8b + g`.
            for (b, &(values, importance)) in inputs.iter().enumerate() {
                let weights = reference_weights(values, importance, (2.0, 0.0));
                batch.values[8 * b..][..8].copy_from_slice(values.as_chunks().0);
                batch.weights[8 * b..][..8].copy_from_slice(weights.as_chunks().0);
            }
            let (found, down) = reference_iq1_s(simd, points, &batch);
            for (b, block) in blocks.iter_mut().enumerate() {
                *block = finish(points, &found, &down, 8 * b);
            }
            if self.effort == Effort::Best {
                improve(simd, points, inputs, blocks);
            }
        }
    }
}

/// ggml's rounding of the scales in the eight lanes from `first` on, and the block.
fn finish(points: &Points, found: &Found<4>, down: &[u16; 4], first: usize) -> [u8; 50] {
    let mut block = [0; 50];
    let scales = &found.scales[first..first + 8];
    let largest = scales.iter().fold(0.0, |max: f32, &scale| max.max(scale));
    if largest == 0.0 {
        return block;
    }
    let d = largest / 15.0;
    let inverse = 1.0 / d;
    // The factor makes up for what the codebook loses, by the perplexity of models.
    block[..2].copy_from_slice(&f32_to_f16(d * 1.125).to_le_bytes());
    for (g, &scale) in scales.iter().enumerate() {
        let level = nearest_int(0.5 * (inverse * scale - 1.0)).clamp(0, 7);
        let is_live = found.live >> (first + g) & 1 == 1;
        let rows = if is_live {
            from_fn(|l| points.row(found.codes[l][first + g]))
        } else {
            [0; 4]
        };
        write_group(
            &mut block,
            g,
            level as u16,
            down[0] >> (first + g) & 1,
            rows,
        );
    }
    block
}

/// Writes what belongs to a group of 32: scale level, shift and codebook rows.
fn write_group(block: &mut [u8; 50], g: usize, level: u16, down: u16, rows: [u16; 4]) {
    let mut high = level << 12 | down << 15;
    for (l, row) in rows.into_iter().enumerate() {
        block[2 + 4 * g + l] = row as u8;
        high |= (row >> 8) << (3 * l);
    }
    block[34 + 2 * g..][..2].copy_from_slice(&high.to_le_bytes());
}

/// Replaces one or two blocks by better ones.
#[inline(always)]
fn improve<S: Simd>(
    simd: S,
    points: &Points,
    inputs: &[(&[f32; 256], Option<&[f32; 256]>)],
    blocks: &mut [[u8; 50]],
) {
    let mut lanes = SubBlocks {
        values: [[0.0; 32]; LANES],
        weights: [[0.0; 32]; LANES],
    };
    let mut levels = [0; LANES];
    let mut start = [0.0; 2];
    for (b, (block, &(values, importance))) in blocks.iter().zip(inputs).enumerate() {
        lanes.values[8 * b..][..8].copy_from_slice(values.as_chunks().0);
        lanes.weights[8 * b..][..8].copy_from_slice(relative_weights(importance).as_chunks().0);
        // Without the factor of ggml's.
        start[b] = f16_at(block, 0) / 1.125;
        for g in 0..8 {
            levels[8 * b + g] = ((u16_at(block, 34 + 2 * g) >> 12) & 7) as u8;
        }
    }
    let search = Improve {
        simd,
        points,
        blocks: &lanes,
        subs: 8,
        common_shift: true,
    };
    let (choice, bits) = search.run::<4>(start, levels);
    for (b, (block, &(values, importance))) in blocks.iter_mut().zip(inputs).enumerate() {
        let mut candidate = [0; 50];
        candidate[..2].copy_from_slice(&bits[b].to_le_bytes());
        for g in 0..8 {
            let lane = 8 * b + g;
            let rows = from_fn(|l| points.row(choice.codes[l][lane]));
            let (level, down) = (choice.levels[lane], choice.down[0] >> lane & 1);
            write_group(&mut candidate, g, u16::from(level), down, rows);
        }
        keep_better::<S, Iq1S, 50, 256>(simd, block, &candidate, values, importance);
    }
}
