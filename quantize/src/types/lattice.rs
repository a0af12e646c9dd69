//! What the types with lattice codebooks share.

use std::array::from_fn;
use std::marker::PhantomData;

use super::{Effort, Format, Rows};
use crate::half::{f16_to_f32, f32_to_f16};
use crate::search::error::keep_better;
use crate::search::lattice::{Found, Lattice, SubBlocks, reference_lattice};
use crate::search::lattice_best::{Decoded, H, Improve};
use crate::search::points::Points;
use crate::search::{nearest_int, relative_weights};
use crate::simd::{Float, Kernel, LANES, Simd, dispatch};

/// Nibble `i` of packed bytes, low nibble first.
#[inline(always)]
pub(super) fn nibble(bytes: &[u8], i: usize) -> u8 {
    (bytes[i / 2] >> (4 * (i % 2))) & 15
}

/// Packs values below 16 into nibbles, low nibble first.
#[inline(always)]
pub(super) fn pack_nibbles(levels: &[u8], bytes: &mut [u8]) {
    for (byte, pair) in bytes.iter_mut().zip(levels.as_chunks::<2>().0) {
        *byte = pair[0] | pair[1] << 4;
    }
}

/// Sixteen values of a codebook as `scale * value`, negated where `signs` has a bit. `row` gives the rows
/// they are made of.
#[inline(always)]
pub(super) fn signed<'a, S: Simd, const D: usize>(
    simd: S,
    row: impl Fn(usize) -> &'a [i8; D],
    scale: f32,
    signs: [u8; 2],
    out: &mut [f32; 16],
) {
    let one = simd.splat(1.0);
    let sign = (simd.splat(0.0) - one).select(simd.mask(u16::from_le_bytes(signs)), one);
    (simd.splat(scale) * joined(simd, row) * sign).store(out);
}

/// Sixteen values of a codebook as `scale * (value ± 1/8)`, minus for the eights in `down`.
#[inline(always)]
pub(super) fn shifted<'a, S: Simd>(
    simd: S,
    row: impl Fn(usize) -> &'a [i8; 8],
    scale: f32,
    down: [bool; 2],
    out: &mut [f32; 16],
) {
    let down = down.map(|down| if down { 0xFF } else { 0 });
    let shift = simd
        .splat(-0.125)
        .select(simd.mask(u16::from_le_bytes(down)), simd.splat(0.125));
    (simd.splat(scale) * (joined(simd, row) + shift)).store(out);
}

/// Rows of a codebook side by side.
#[inline(always)]
fn joined<'a, S: Simd, const D: usize>(simd: S, row: impl Fn(usize) -> &'a [i8; D]) -> S::F {
    let mut values = [0; 16];
    for (i, values) in values.as_chunks_mut().0.iter_mut().enumerate() {
        *values = row(i).map(|value| value as u8);
    }
    simd.widen_signed(simd.bytes(&values))
}

/// The u16 at byte `at`.
#[inline(always)]
pub(super) fn u16_at<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// The u32 at byte `at`.
#[inline(always)]
pub(super) fn u32_at<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Most sub-blocks, codebook entries and sign bytes that a type has in a block.
const SUBS: usize = 16;
const ENTRIES: usize = 64;
const SIGNS: usize = 32;

/// A block before packing.
#[derive(Clone, Copy)]
pub(super) struct Coded {
    /// Scale levels of the sub-blocks.
    pub(super) scales: [u8; SUBS],
    /// Codebook rows.
    pub(super) rows: [u16; ENTRIES],
    /// Signs, eight values a byte.
    pub(super) signs: [u8; SIGNS],
    /// Which sub-blocks ggml takes for zero, by bit.
    pub(super) empty: u16,
}

impl Coded {
    /// Nothing but zeros.
    const EMPTY: Self = Self {
        scales: [0; SUBS],
        rows: [0; ENTRIES],
        signs: [0; SIGNS],
        empty: 0,
    };
}

/// A type of sub-blocks of `N` values, each `G` codebook entries of `D` values with a digit of
/// `BITS` bits, and signs apart.
pub(super) trait Signed<
    const BYTES: usize,
    const N: usize,
    const G: usize,
    const D: usize,
    const BITS: usize,
>: Format<BYTES, 256>
{
    /// ggml's search.
    const LATTICE: Lattice;
    /// Whether only an even number of negative signs can be written in a group of eight.
    const EVEN: bool;
    /// The mean square counts so many times in the weights: with importance, and without.
    const MEAN_SQUARE: (f32, f32);
    /// ggml multiplies the block's scale by this to make up for the levels it searches with.
    const CORRECTION: f32;

    /// The values of the digits as decoded.
    const DECODED: Decoded;

    /// The codebook.
    fn points() -> &'static Points;

    /// A block of scale bits and the rest.
    fn pack(d: u16, coded: &Coded) -> [u8; BYTES];
}

/// Encodes rows of a lattice type.
pub(super) fn encode<
    T: Signed<BYTES, N, G, D, BITS>,
    const BYTES: usize,
    const N: usize,
    const G: usize,
    const D: usize,
    const BITS: usize,
>(
    rows: &Rows<'_>,
    effort: Effort,
    blocks: &mut [[u8; BYTES]],
) {
    dispatch(
        rows.isa,
        Encode::<T, BYTES, N, G, D, BITS> {
            rows,
            effort,
            blocks,
            ty: PhantomData,
        },
    );
}

struct Encode<
    'a,
    T,
    const BYTES: usize,
    const N: usize,
    const G: usize,
    const D: usize,
    const BITS: usize,
> {
    rows: &'a Rows<'a>,
    effort: Effort,
    blocks: &'a mut [[u8; BYTES]],
    ty: PhantomData<T>,
}

impl<
    T: Signed<BYTES, N, G, D, BITS>,
    const BYTES: usize,
    const N: usize,
    const G: usize,
    const D: usize,
    const BITS: usize,
> Kernel for Encode<'_, T, BYTES, N, G, D, BITS>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let points = T::points();
        let subs = 256 / N;
        let inputs: Vec<_> = self.rows.blocks::<256>().collect();
        let batch = LANES / subs;
        let mut batch_blocks = SubBlocks {
            values: [[0.0; N]; LANES],
            weights: [[0.0; N]; LANES],
        };
        for (inputs, blocks) in inputs.chunks(batch).zip(self.blocks.chunks_mut(batch)) {
            let mut signs = [[0; SIGNS]; LANES];
            for (b, &(values, importance)) in inputs.iter().enumerate() {
                let weights = reference_weights(values, importance, T::MEAN_SQUARE);
                let mut magnitudes = *values;
                signs[b] = take_signs(&mut magnitudes, &weights, T::EVEN);
                for sub in 0..subs {
                    let lane = b * subs + sub;
                    batch_blocks.values[lane] = magnitudes.as_chunks().0[sub];
                    batch_blocks.weights[lane] = weights.as_chunks().0[sub];
                }
            }
            let found =
                reference_lattice::<S, N, G, D, BITS>(simd, points, &T::LATTICE, &batch_blocks);
            let mut coded = [Coded::EMPTY; 2];
            let mut bits = [0; 2];
            for (b, block) in blocks.iter_mut().enumerate() {
                (bits[b], coded[b]) =
                    finish::<T, BYTES, N, G, D, BITS>(points, &found, b * subs, &signs[b]);
                *block = T::pack(bits[b], &coded[b]);
            }
            if self.effort == Effort::Best {
                improve::<S, T, BYTES, N, G, D, BITS>(simd, inputs, &coded, bits, blocks);
            }
        }
    }
}

/// Replaces blocks by better ones, starting from ggml's.
#[inline(always)]
fn improve<
    S: Simd,
    T: Signed<BYTES, N, G, D, BITS>,
    const BYTES: usize,
    const N: usize,
    const G: usize,
    const D: usize,
    const BITS: usize,
>(
    simd: S,
    inputs: &[(&[f32; 256], Option<&[f32; 256]>)],
    coded: &[Coded; 2],
    bits: [u16; 2],
    blocks: &mut [[u8; BYTES]],
) {
    let subs = 256 / N;
    let mut lanes = SubBlocks {
        values: [[0.0; N]; LANES],
        weights: [[0.0; N]; LANES],
    };
    let mut signs = [[0; SIGNS]; 2];
    let mut levels = [0; LANES];
    let mut odd = [0u16; H];
    for (b, &(values, importance)) in inputs.iter().enumerate() {
        let weights = relative_weights(importance);
        let magnitudes = values.map(f32::abs);
        for (signs, values) in signs[b].iter_mut().zip(values.as_chunks::<8>().0) {
            for (j, &value) in values.iter().enumerate() {
                *signs |= u8::from(value < 0.0) << j;
            }
        }
        for sub in 0..subs {
            let lane = b * subs + sub;
            lanes.values[lane] = magnitudes.as_chunks().0[sub];
            lanes.weights[lane] = weights.as_chunks().0[sub];
            levels[lane] = coded[b].scales[sub];
            for group in 0..N / 8 {
                let is_odd = T::EVEN && signs[b][sub * (N / 8) + group].count_ones() % 2 == 1;
                odd[group] |= u16::from(is_odd) << lane;
            }
        }
    }
    let search = Improve {
        simd,
        points: T::points(),
        decoded: &T::DECODED,
        blocks: &lanes,
        odd,
        subs,
    };
    let (choice, bits) = search.run::<G, D, BITS>(bits.map(f16_to_f32), levels);
    for (b, (block, &(values, importance))) in blocks.iter_mut().zip(inputs).enumerate() {
        let mut coded = Coded::EMPTY;
        for sub in 0..subs {
            let lane = b * subs + sub;
            coded.scales[sub] = choice.levels[lane];
            for group in 0..G {
                coded.rows[sub * G + group] = T::points().row(choice.codes[group][lane]);
            }
            for group in 0..N / 8 {
                let at = sub * (N / 8) + group;
                // Shifted out where no sign is wrong.
                let wrong = 1u16 << choice.wrong[group][lane].min(8);
                coded.signs[at] = signs[b][at] ^ wrong as u8;
            }
        }
        let candidate = T::pack(bits[b], &coded);
        keep_better::<S, T, BYTES, 256>(simd, block, &candidate, values, importance);
    }
}

/// Scale bits and the rest of a block, from what the search found in the lanes from `first` on.
#[inline(always)]
fn finish<
    T: Signed<BYTES, N, G, D, BITS>,
    const BYTES: usize,
    const N: usize,
    const G: usize,
    const D: usize,
    const BITS: usize,
>(
    points: &Points,
    found: &Found<G>,
    first: usize,
    signs: &[u8; SIGNS],
) -> (u16, Coded) {
    let mut coded = Coded::EMPTY;
    let subs = 256 / N;
    let scales = &found.scales[first..first + subs];
    let largest = scales
        .iter()
        .fold(0.0, |max: f32, scale| max.max(scale.abs()));
    if largest == 0.0 && T::EVEN {
        coded.empty = u16::MAX;
        return (0, coded);
    }
    let d = largest / 31.0;
    let inverse = 1.0 / d;
    for (sub, &scale) in scales.iter().enumerate() {
        if found.live >> (first + sub) & 1 == 0 {
            coded.empty |= 1 << sub;
            continue;
        }
        for group in 0..G {
            coded.rows[sub * G + group] = points.row(found.codes[group][first + sub]);
        }
        let bytes = sub * (N / 8)..(sub + 1) * (N / 8);
        for (into, from) in coded.signs[bytes.clone()].iter_mut().zip(&signs[bytes]) {
            *into = if scale < 0.0 { !from } else { *from };
        }
        if largest > 0.0 {
            let level = nearest_int(0.5 * (inverse * scale.abs() - 1.0));
            coded.scales[sub] = level.clamp(0, 15) as u8;
        }
    }
    (f32_to_f16(d * T::CORRECTION), coded)
}

/// ggml's weights of a block.
#[inline(always)]
pub(super) fn reference_weights(
    values: &[f32; 256],
    importance: Option<&[f32; 256]>,
    mean_square: (f32, f32),
) -> [f32; 256] {
    let sum = values.iter().fold(0.0, |sum, x| sum + x * x);
    match importance {
        Some(importance) => {
            let mean = mean_square.0 * sum / 256.0;
            from_fn(|i| importance[i] * (mean + values[i] * values[i]).sqrt())
        }
        None => {
            let mean = mean_square.1 * sum / 256.0;
            from_fn(|i| mean + values[i] * values[i])
        }
    }
}

/// Replaces values by their magnitudes and gives the signs. Where only an even number of negative
/// ones can be written, the value of a group of eight that matters least keeps the wrong sign.
#[inline(always)]
fn take_signs(values: &mut [f32; 256], weights: &[f32; 256], even: bool) -> [u8; SIGNS] {
    let mut signs = [0; SIGNS];
    for ((values, weights), signs) in values
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .zip(weights.as_chunks::<8>().0)
        .zip(&mut signs)
    {
        for (j, value) in values.iter_mut().enumerate() {
            *signs |= u8::from(*value < 0.0) << j;
            *value = if *value >= 0.0 { *value } else { -*value };
        }
        if even && signs.count_ones() % 2 == 1 {
            let cost: [f32; 8] = from_fn(|j| weights[j] * values[j] * values[j]);
            let mut least = 0;
            for j in 1..8 {
                if cost[j] < cost[least] {
                    least = j;
                }
            }
            *signs ^= 1 << least;
            values[least] = -values[least];
        }
    }
    signs
}
