//! What the types with lattice codebooks share.

use std::array::from_fn;
use std::marker::PhantomData;

use super::{Effort, Format, Rows};
use crate::half::f32_to_f16;
use crate::search::lattice::{Found, Lattice, SubBlocks, reference_lattice};
use crate::search::nearest_int;
use crate::search::points::Points;
use crate::simd::{Kernel, LANES, Simd, dispatch};

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

/// Two rows of four as one of eight.
#[inline(always)]
pub(super) fn join4(a: &[i8; 4], b: &[i8; 4]) -> [i8; 8] {
    [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]
}

/// `scale * row`, negated where `signs` has a bit.
#[inline(always)]
pub(super) fn signed8(row: &[i8; 8], scale: f32, signs: u8, out: &mut [f32]) {
    for (j, (value, &entry)) in out.iter_mut().zip(row).enumerate() {
        let magnitude = scale * f32::from(entry);
        let sign = (u32::from(signs) << (31 - j)) & 0x8000_0000;
        *value = f32::from_bits(magnitude.to_bits() ^ sign);
    }
}

/// `scale * (row ± 1/8)`.
#[inline(always)]
pub(super) fn shifted8(row: &[i8; 8], scale: f32, minus: bool, out: &mut [f32]) {
    let shift = if minus { -0.125 } else { 0.125 };
    for (value, &entry) in out.iter_mut().zip(row) {
        *value = scale * (f32::from(entry) + shift);
    }
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
            for (b, block) in blocks.iter_mut().enumerate() {
                *block = finish::<T, BYTES, N, G, D, BITS>(points, &found, b * subs, &signs[b]);
            }
        }
    }
}

/// Turns what the search found in the lanes from `first` on into a block.
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
) -> [u8; BYTES] {
    let mut coded = Coded {
        scales: [0; SUBS],
        rows: [0; ENTRIES],
        signs: [0; SIGNS],
        empty: 0,
    };
    let subs = 256 / N;
    let scales = &found.scales[first..first + subs];
    let largest = scales
        .iter()
        .fold(0.0, |max: f32, scale| max.max(scale.abs()));
    if largest == 0.0 && T::EVEN {
        coded.empty = u16::MAX;
        return T::pack(0, &coded);
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
    T::pack(f32_to_f16(d * T::CORRECTION), &coded)
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
