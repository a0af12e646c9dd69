//! What Q4_0, Q5_0, Q4_1 and Q5_1 share: their encoders.

use std::array::from_fn;
use std::marker::PhantomData;

use super::Rows;
use crate::half::f32_to_f16;
use crate::search::{AffineSteps, reference_affine, reference_symmetric, reference_weights};
use crate::simd::{Float, Kernel, LANES, Mask, Simd, dispatch, gather, load_all, scatter_levels};

/// Values in a block.
const N: usize = 32;

/// A type whose value is `(q - HALF)·d`.
pub(crate) trait Symmetric<const BYTES: usize> {
    /// Half the number of levels.
    const HALF: i32;

    /// A block of scale bits and levels `q`.
    fn pack(d: u16, levels: &[u8; N]) -> [u8; BYTES];
}

/// A type whose value is `q·d + m`.
pub(crate) trait Affine<const BYTES: usize> {
    /// The highest level.
    const TOP: i32;

    /// A block of scale bits, minimum bits and levels `q`.
    fn pack(d: u16, m: u16, levels: &[u8; N]) -> [u8; BYTES];
}

/// Encodes rows of a symmetric type.
pub(crate) fn encode_symmetric<T: Symmetric<BYTES>, const BYTES: usize>(
    rows: &Rows<'_>,
    blocks: &mut [[u8; BYTES]],
) {
    encode(rows, blocks, SymmetricEncoder::<T, BYTES>(PhantomData));
}

/// Encodes rows of an affine type.
pub(crate) fn encode_affine<T: Affine<BYTES>, const BYTES: usize>(
    rows: &Rows<'_>,
    blocks: &mut [[u8; BYTES]],
) {
    encode(rows, blocks, AffineEncoder::<T, BYTES>(PhantomData));
}

/// The two families' own part.
trait Encoder<const BYTES: usize> {
    /// ggml's encoder without importance. Must be `#[inline(always)]`.
    fn plain<S: Simd>(&self, simd: S, x: &[f32; N]) -> [u8; BYTES];

    /// ggml's search with weights: the scale, the minimum, the levels. Must be
    /// `#[inline(always)]`.
    fn search<S: Simd>(
        &self,
        simd: S,
        x: &[S::F; N],
        w: &[S::F; N],
        levels: &mut [S::F; N],
    ) -> (S::F, S::F);

    /// A block of scale, minimum and levels.
    fn pack(&self, d: f32, m: f32, levels: &[u8; N]) -> [u8; BYTES];
}

struct SymmetricEncoder<T, const BYTES: usize>(PhantomData<T>);

impl<T: Symmetric<BYTES>, const BYTES: usize> Encoder<BYTES> for SymmetricEncoder<T, BYTES> {
    #[inline(always)]
    fn plain<S: Simd>(&self, simd: S, x: &[f32; N]) -> [u8; BYTES] {
        let halves = load_all(simd, x.as_chunks().0.first_chunk().expect("two halves"));
        let d = extreme(simd, x, &halves) / -T::HALF as f32;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let middle = T::HALF as f32 + 0.5;
        let levels = levels(simd, &halves, 0.0, inverse, middle, 2 * T::HALF - 1);
        T::pack(f32_to_f16(d), &levels)
    }

    #[inline(always)]
    fn search<S: Simd>(
        &self,
        simd: S,
        x: &[S::F; N],
        w: &[S::F; N],
        levels: &mut [S::F; N],
    ) -> (S::F, S::F) {
        (
            reference_symmetric(simd, T::HALF, x, w, levels),
            simd.splat(0.0),
        )
    }

    #[inline(always)]
    fn pack(&self, d: f32, _: f32, levels: &[u8; N]) -> [u8; BYTES] {
        T::pack(f32_to_f16(d), levels)
    }
}

struct AffineEncoder<T, const BYTES: usize>(PhantomData<T>);

impl<T: Affine<BYTES>, const BYTES: usize> Encoder<BYTES> for AffineEncoder<T, BYTES> {
    #[inline(always)]
    fn plain<S: Simd>(&self, simd: S, x: &[f32; N]) -> [u8; BYTES] {
        let halves = load_all(simd, x.as_chunks().0.first_chunk().expect("two halves"));
        let [low, high] = halves;
        let (mut min, max) = (low.min(high).least(), low.max(high).greatest());
        // A constant block may be zeros of both signs.
        let range = if max == min { 0.0 } else { max - min };
        if min == 0.0 {
            // Among them ggml keeps the first.
            let zeros = equal(simd, &halves, 0.0);
            min = x
                .get(zeros.trailing_zeros() as usize)
                .copied()
                .unwrap_or(min);
        }
        let d = range / T::TOP as f32;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        let levels = levels(simd, &halves, min, inverse, 0.5, T::TOP);
        T::pack(f32_to_f16(d), f32_to_f16(min), &levels)
    }

    #[inline(always)]
    fn search<S: Simd>(
        &self,
        simd: S,
        x: &[S::F; N],
        w: &[S::F; N],
        levels: &mut [S::F; N],
    ) -> (S::F, S::F) {
        reference_affine(simd, T::TOP, AffineSteps::WEIGHTED, x, w, levels)
    }

    #[inline(always)]
    fn pack(&self, d: f32, m: f32, levels: &[u8; N]) -> [u8; BYTES] {
        T::pack(f32_to_f16(d), f32_to_f16(m), levels)
    }
}

fn encode<E: Encoder<BYTES>, const BYTES: usize>(
    rows: &Rows<'_>,
    blocks: &mut [[u8; BYTES]],
    encoder: E,
) {
    match rows.importance {
        None => dispatch(
            rows.isa,
            Plain {
                rows,
                blocks,
                encoder,
            },
        ),
        Some(importance) => dispatch(
            rows.isa,
            Weighted {
                rows,
                importance,
                blocks,
                encoder,
            },
        ),
    }
}

struct Plain<'a, E, const BYTES: usize> {
    rows: &'a Rows<'a>,
    blocks: &'a mut [[u8; BYTES]],
    encoder: E,
}

impl<E: Encoder<BYTES>, const BYTES: usize> Kernel for Plain<'_, E, BYTES> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (block, x) in self.blocks.iter_mut().zip(self.rows.values.as_chunks().0) {
            *block = self.encoder.plain(simd, x);
        }
    }
}

struct Weighted<'a, E, const BYTES: usize> {
    rows: &'a Rows<'a>,
    importance: &'a [f32],
    blocks: &'a mut [[u8; BYTES]],
    encoder: E,
}

impl<E: Encoder<BYTES>, const BYTES: usize> Kernel for Weighted<'_, E, BYTES> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let values: &[[f32; N]] = self.rows.values.as_chunks().0;
        let importance: &[[f32; N]] = self.importance.as_chunks().0;
        let per_row = importance.len();
        let row_len = self.rows.row_len;
        // The mean square of each row, summed in order as ggml does.
        let mean_squares: Vec<f32> = (self.rows.values.chunks_exact(row_len))
            .map(|row| row.iter().fold(0.0, |sum, x| sum + x * x) / row_len as f32)
            .collect();
        let mut levels = [simd.splat(0.0); N];
        for (group, blocks) in self.blocks.chunks_mut(LANES).enumerate() {
            let index = |lane: usize| group * LANES + lane.min(blocks.len() - 1);
            let x = gather(simd, |lane| &values[index(lane)]);
            let v = gather(simd, |lane| &importance[index(lane) % per_row]);
            let mean_square = simd.load(&from_fn(|lane| mean_squares[index(lane) / per_row]));
            let w = reference_weights(&v, &x, mean_square);
            let (d, m) = self.encoder.search(simd, &x, &w, &mut levels);
            let (d, m) = (d.to_array(), m.to_array());
            let levels = scatter_levels(&levels);
            for (lane, block) in blocks.iter_mut().enumerate() {
                *block = self.encoder.pack(d[lane], m[lane], &levels[lane]);
            }
        }
    }
}

/// The value largest by magnitude, the first of such; +0 if all are zeros.
#[inline(always)]
fn extreme<S: Simd>(simd: S, x: &[f32; N], halves: &[S::F; 2]) -> f32 {
    let magnitudes = [halves[0].abs(), halves[1].abs()];
    let largest = magnitudes[0].max(magnitudes[1]).greatest();
    let first = equal(simd, &magnitudes, largest).trailing_zeros();
    match x.get(first as usize) {
        Some(&extreme) if extreme != 0.0 => extreme,
        _ => 0.0,
    }
}

/// Which of the values equal `value`, by bit.
#[inline(always)]
fn equal<S: Simd>(simd: S, halves: &[S::F; 2], value: f32) -> u32 {
    let value = simd.splat(value);
    let (low, high) = (halves[0].eq(value), halves[1].eq(value));
    u32::from(low.bits()) | u32::from(high.bits()) << LANES
}

/// `(x - min)·inverse + offset`, rounded down, from 0 to `top`.
#[inline(always)]
fn levels<S: Simd>(
    simd: S,
    halves: &[S::F; 2],
    min: f32,
    inverse: f32,
    offset: f32,
    top: i32,
) -> [u8; N] {
    let (min, inverse, offset) = (simd.splat(min), simd.splat(inverse), simd.splat(offset));
    let (zero, top) = (simd.splat(0.0), simd.splat(top as f32));
    let mut levels = [0; N];
    for (levels, &x) in levels.as_chunks_mut().0.iter_mut().zip(halves) {
        let level = (x - min) * inverse + offset;
        *levels = level.max(zero).min(top).to_u8();
    }
    levels
}
