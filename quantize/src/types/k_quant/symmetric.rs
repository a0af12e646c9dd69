//! Q3_K and Q6_K: `x ≈ d·scale·(q - HALF)` with signed scales.

use std::array::from_fn;
use std::marker::PhantomData;

use super::{Batch, N};
use crate::half::{f16_to_f32, f32_to_f16};
use crate::search::error::keep_better;
use crate::search::{SuperBlock, nearest_int, relative_weights};
use crate::simd::{
    Float, Kernel, LANES, Simd, dispatch, gather, load_all, scatter_levels, to_u8_all,
};
use crate::types::{Effort, Format, Rows};

/// Values in a sub-block.
const SUB: usize = 16;
/// Sub-blocks in a super-block.
const SUBS: usize = N / SUB;

/// A K type with sixteen sub-blocks of sixteen values, each with a signed scale.
pub(crate) trait Symmetric<const BYTES: usize>: Format<BYTES, N> {
    /// Half the number of levels.
    const HALF: i32;
    /// Half the number of integer scales.
    const SCALE_HALF: i32;

    /// ggml's search for a sub-block: gives the scale and the sum of the weights, and the levels
    /// plus `HALF` in `levels`. `mean_square` is the super-block's. Must be `#[inline(always)]`.
    fn search<S: Simd>(
        simd: S,
        x: &[S::F; SUB],
        importance: Option<&[S::F; SUB]>,
        mean_square: S::F,
        levels: &mut [S::F; SUB],
    ) -> (S::F, S::F);

    /// Quantizes the scales of sixteen super-blocks: gives `d`, and the integer scales in
    /// `levels`. Must be `#[inline(always)]`.
    fn quantize_scales<S: Simd>(
        simd: S,
        scales: &[S::F; SUBS],
        sums: Option<&[S::F; SUBS]>,
        levels: &mut [S::F; SUBS],
    ) -> S::F;

    /// The block; `d` is f16 bits.
    fn pack(d: u16, scales: &[i8; SUBS], levels: &[u8; N]) -> [u8; BYTES];
}

/// Encodes rows of a symmetric K type.
pub(crate) fn encode_symmetric<T: Symmetric<BYTES>, const BYTES: usize>(
    rows: &Rows<'_>,
    effort: Effort,
    blocks: &mut [[u8; BYTES]],
) {
    let ty = PhantomData::<T>;
    dispatch(rows.isa, Reference { rows, blocks, ty });
    if effort == Effort::Best {
        dispatch(rows.isa, Best { rows, blocks, ty });
    }
}

struct Reference<'a, T, const BYTES: usize> {
    rows: &'a Rows<'a>,
    blocks: &'a mut [[u8; BYTES]],
    ty: PhantomData<T>,
}

impl<T: Symmetric<BYTES>, const BYTES: usize> Kernel for Reference<'_, T, BYTES> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let zero = simd.splat(0.0);
        let mut levels = vec![[0; SUB]; LANES * SUBS];
        for (i, blocks) in self.blocks.chunks_mut(LANES).enumerate() {
            let batch = Batch::<SUB>::new(self.rows, i * LANES, blocks.len());
            let mean_squares = match batch.importance {
                Some(_) => batch.mean_squares(2.0),
                None => [0.0; LANES],
            };
            let mut scales = [[0.0; LANES]; SUBS];
            let mut sums = [[0.0; LANES]; SUBS];
            // A group is a super-block here: both have sixteen sub-blocks.
            for group in 0..batch.groups() {
                let x = batch.values(simd, group);
                let v = batch.importance(simd, group);
                let mean_square = simd.splat(mean_squares[group]);
                let mut found = [zero; SUB];
                let (scale, sum) = T::search(simd, &x, v.as_ref(), mean_square, &mut found);
                let (scale, sum) = (scale.to_array(), sum.to_array());
                for j in 0..SUBS {
                    scales[j][group] = scale[j];
                    sums[j][group] = sum[j];
                }
                levels[group * SUBS..][..SUBS].copy_from_slice(&scatter_levels(&found));
            }
            let sums = load_all(simd, &sums);
            let scales = load_all(simd, &scales);
            let mut quantized = [zero; SUBS];
            let sums = batch.importance.is_some().then_some(&sums);
            let d = T::quantize_scales(simd, &scales, sums, &mut quantized).to_array();
            let quantized = to_u8_all(&quantized);
            for (i, block) in blocks.iter_mut().enumerate() {
                let d = f32_to_f16(d[i]);
                let scales = from_fn(|j| quantized[j][i] as i8);
                let levels = &mut levels[i * SUBS..][..SUBS];
                for ((levels, x), scale) in levels.iter_mut().zip(batch.super_block(i)).zip(scales)
                {
                    let scale = f16_to_f32(d) * f32::from(scale);
                    if scale != 0.0 {
                        for (level, x) in levels.iter_mut().zip(x) {
                            let l = nearest_int(x / scale).clamp(-T::HALF, T::HALF - 1);
                            *level = (l + T::HALF) as u8;
                        }
                    }
                }
                let levels = levels.as_flattened().first_chunk().expect("256 levels");
                *block = T::pack(d, &scales, levels);
            }
        }
    }
}

/// Replaces every block for which a wider search finds one with less error.
struct Best<'a, T, const BYTES: usize> {
    rows: &'a Rows<'a>,
    blocks: &'a mut [[u8; BYTES]],
    ty: PhantomData<T>,
}

impl<T: Symmetric<BYTES>, const BYTES: usize> Kernel for Best<'_, T, BYTES> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (block, (values, importance)) in self.blocks.iter_mut().zip(self.rows.blocks::<N>()) {
            let weights = relative_weights(importance);
            let weights: &[[f32; SUB]] = weights.as_chunks().0;
            let sub_blocks: &[[f32; SUB]] = values.as_chunks().0;
            let search = SuperBlock {
                half: T::HALF,
                scale_half: T::SCALE_HALF,
                x: &gather(simd, |lane| &sub_blocks[lane]),
                w: &gather(simd, |lane| &weights[lane]),
            };
            let (d, scales, levels) = search.search(simd);
            let levels = scatter_levels(&levels);
            let levels = levels.as_flattened().first_chunk().expect("256 levels");
            let scales = scales.to_u8().map(|scale| scale as i8);
            let candidate = T::pack(f32_to_f16(d), &scales, levels);
            keep_better::<S, T, BYTES, N>(simd, block, &candidate, values, importance);
        }
    }
}
