//! Q2_K, Q4_K and Q5_K: `x ≈ d·scale·q - dmin·minimum`.

use std::array::from_fn;
use std::marker::PhantomData;

use super::{Batch, N};
use crate::half::{f16_to_f32, f32_to_f16};
use crate::search::error::keep_better;
use crate::search::{
    AffineGroup, AffineSteps, AffineSuperBlocks, nearest_int, reference_affine, reference_positive,
    reference_weights, relative_weights,
};
use crate::simd::{
    Float, Kernel, LANES, Simd, dispatch, gather, load_all, scatter_levels, to_u8_all,
};
use crate::types::{Effort, Format, Rows};

/// How ggml weighs values where there is no importance.
pub(crate) enum PlainWeight {
    /// `|x|`.
    Magnitude,
    /// `sqrt(mean of the sub-block's x²) + |x|`.
    RootMeanSquarePlusMagnitude,
}

/// A K type with `SUBS` sub-blocks of `SUB` values, each with a scale and a minimum.
pub(crate) trait Affine<const BYTES: usize, const SUBS: usize, const SUB: usize>:
    Format<BYTES, N>
{
    /// The highest level.
    const TOP: i32;
    /// The highest integer scale and minimum.
    const SCALE_TOP: i32;
    /// ggml's search without importance.
    const PLAIN: AffineSteps;
    /// ggml's weights without importance.
    const PLAIN_WEIGHT: PlainWeight;
    /// With importance, weights are `importance·sqrt(factor·mean square + x²)`.
    const MEAN_SQUARE_FACTOR: f32;

    /// The block; `d` and `dmin` are f16 bits.
    fn pack(
        d: u16,
        dmin: u16,
        scales: &[u8; SUBS],
        minima: &[u8; SUBS],
        levels: &[u8; N],
    ) -> [u8; BYTES];
}

/// Encodes rows of an affine K type.
pub(crate) fn encode_affine<T, const BYTES: usize, const SUBS: usize, const SUB: usize>(
    rows: &Rows<'_>,
    effort: Effort,
    blocks: &mut [[u8; BYTES]],
) where
    T: Affine<BYTES, SUBS, SUB>,
{
    let ty = PhantomData::<T>;
    dispatch(rows.isa, Reference { rows, blocks, ty });
    if effort == Effort::Best {
        dispatch(rows.isa, Best { rows, blocks, ty });
    }
}

struct Reference<'a, T, const BYTES: usize, const SUBS: usize, const SUB: usize> {
    rows: &'a Rows<'a>,
    blocks: &'a mut [[u8; BYTES]],
    ty: PhantomData<T>,
}

impl<T, const BYTES: usize, const SUBS: usize, const SUB: usize> Kernel
    for Reference<'_, T, BYTES, SUBS, SUB>
where
    T: Affine<BYTES, SUBS, SUB>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut parts = Parts::<SUBS, SUB>::new();
        for (i, blocks) in self.blocks.chunks_mut(LANES).enumerate() {
            let batch = Batch::<SUB>::new(self.rows, i * LANES, blocks.len());
            search_sub_blocks::<T, S, BYTES, SUBS, SUB>(simd, &batch, &mut parts);
            let weighted = batch.importance.is_some();
            quantize_scales(simd, weighted, T::SCALE_TOP, &mut parts.scales, &parts.sums);
            quantize_scales(simd, weighted, T::SCALE_TOP, &mut parts.minima, &parts.sums);
            for (i, block) in blocks.iter_mut().enumerate() {
                let d = f32_to_f16(parts.scales.scale[i]);
                let dmin = f32_to_f16(parts.minima.scale[i]);
                let scales = from_fn(|j| parts.scales.levels[j][i]);
                let minima = from_fn(|j| parts.minima.levels[j][i]);
                let levels = &mut parts.levels[i * SUBS..][..SUBS];
                for (j, (levels, x)) in levels.iter_mut().zip(batch.super_block(i)).enumerate() {
                    let scale = f16_to_f32(d) * f32::from(scales[j]);
                    let min = f16_to_f32(dmin) * f32::from(minima[j]);
                    if scale != 0.0 {
                        for (level, x) in levels.iter_mut().zip(x) {
                            *level = nearest_int((x + min) / scale).clamp(0, T::TOP) as u8;
                        }
                    }
                }
                let levels = levels.as_flattened().first_chunk().expect("256 levels");
                *block = T::pack(d, dmin, &scales, &minima, levels);
            }
        }
    }
}

/// What the searches find for a batch.
struct Parts<const SUBS: usize, const SUB: usize> {
    scales: Scales<SUBS>,
    minima: Scales<SUBS>,
    /// Sums of the weights: sub-block, super-block.
    sums: [[f32; LANES]; SUBS],
    /// Levels of all sub-blocks.
    levels: Vec<[u8; SUB]>,
}

/// The scales (or minima) of a batch, before and after they are quantized.
struct Scales<const SUBS: usize> {
    /// Sub-block, super-block.
    values: [[f32; LANES]; SUBS],
    /// Sub-block, super-block.
    levels: [[u8; LANES]; SUBS],
    /// Scale of the levels, by super-block.
    scale: [f32; LANES],
}

impl<const SUBS: usize, const SUB: usize> Parts<SUBS, SUB> {
    fn new() -> Self {
        let scales = || Scales {
            values: [[0.0; LANES]; SUBS],
            levels: [[0; LANES]; SUBS],
            scale: [0.0; LANES],
        };
        Self {
            scales: scales(),
            minima: scales(),
            sums: [[0.0; LANES]; SUBS],
            levels: vec![[0; SUB]; LANES * SUBS],
        }
    }
}

/// Finds scale, minimum and levels of every sub-block.
#[inline(always)]
fn search_sub_blocks<T, S: Simd, const BYTES: usize, const SUBS: usize, const SUB: usize>(
    simd: S,
    batch: &Batch<'_, SUB>,
    parts: &mut Parts<SUBS, SUB>,
) where
    T: Affine<BYTES, SUBS, SUB>,
{
    let mut levels = [simd.splat(0.0); SUB];
    let mean_squares = match batch.importance {
        Some(_) => batch.mean_squares(T::MEAN_SQUARE_FACTOR),
        None => [0.0; LANES],
    };
    for group in 0..batch.groups() {
        let x = batch.values(simd, group);
        let (steps, w) = match batch.importance(simd, group) {
            Some(v) => {
                let mean_square = batch.by_super_block(simd, group, &mean_squares);
                (
                    AffineSteps::WEIGHTED,
                    reference_weights(&v, &x, mean_square),
                )
            }
            None => (T::PLAIN, plain_weights(simd, &T::PLAIN_WEIGHT, &x)),
        };
        let mut sum = simd.splat(0.0);
        for &w in &w {
            sum = sum + w;
        }
        let (scale, min) = reference_affine(simd, T::TOP, steps, &x, &w, &mut levels);
        let (sum, scale, min) = (sum.to_array(), scale.to_array(), min.to_array());
        for lane in 0..LANES {
            let (block, j) = Batch::<SUB>::place(group, lane);
            parts.scales.values[j][block] = scale[lane];
            parts.minima.values[j][block] = -min[lane];
            parts.sums[j][block] = sum[lane];
        }
        parts.levels[group * LANES..][..LANES].copy_from_slice(&scatter_levels(&levels));
    }
}

#[inline(always)]
fn plain_weights<S: Simd, const SUB: usize>(
    simd: S,
    weight: &PlainWeight,
    x: &[S::F; SUB],
) -> [S::F; SUB] {
    let mut base = simd.splat(0.0);
    if let PlainWeight::RootMeanSquarePlusMagnitude = weight {
        for &x in x {
            base = base + x * x;
        }
        base = (base / simd.splat(SUB as f32)).sqrt();
    }
    // A magnitude plus zero is the magnitude.
    let mut w = *x;
    for w in &mut w {
        *w = base + w.abs();
    }
    w
}

/// Quantizes the scales of sixteen super-blocks: with importance by a search, else by rounding
/// against the largest.
#[inline(always)]
fn quantize_scales<S: Simd, const SUBS: usize>(
    simd: S,
    weighted: bool,
    top: i32,
    scales: &mut Scales<SUBS>,
    sums: &[[f32; LANES]; SUBS],
) {
    let x = load_all(simd, &scales.values);
    if weighted {
        let w = load_all(simd, sums);
        let mut levels = [simd.splat(0.0); SUBS];
        reference_positive(simd, top, &x, &w, &mut levels).store(&mut scales.scale);
        scales.levels = to_u8_all(&levels);
    } else {
        let zero = simd.splat(0.0);
        let mut max = zero;
        for &x in &x {
            max = x.max(max);
        }
        let positive = max.gt(zero);
        let inverse = (simd.splat(top as f32) / max).select(positive, zero);
        for (levels, &x) in scales.levels.iter_mut().zip(&x) {
            *levels = (inverse * x).nearest(0, top).to_u8();
        }
        (max / simd.splat(top as f32))
            .select(positive, zero)
            .store(&mut scales.scale);
    }
}

/// Replaces every block for which a wider search finds one with less error.
struct Best<'a, T, const BYTES: usize, const SUBS: usize, const SUB: usize> {
    rows: &'a Rows<'a>,
    blocks: &'a mut [[u8; BYTES]],
    ty: PhantomData<T>,
}

impl<T, const BYTES: usize, const SUBS: usize, const SUB: usize> Kernel
    for Best<'_, T, BYTES, SUBS, SUB>
where
    T: Affine<BYTES, SUBS, SUB>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        // Two super-blocks of eight sub-blocks fill the lanes.
        let together = LANES / SUBS;
        let mut inputs = self.rows.blocks::<N>();
        for blocks in self.blocks.chunks_mut(together) {
            let mut values = [&[0.0; N]; 2];
            let mut importance = [None; 2];
            let mut weights = [[0.0; N]; 2];
            for i in 0..together {
                // Where the last lanes stay empty, zeros stand in.
                let Some((x, v)) = inputs.next() else { break };
                (values[i], importance[i], weights[i]) = (x, v, relative_weights(v));
            }
            let part = |of: usize| (of / SUBS, of % SUBS * SUB);
            let sub_block = |lane: usize| {
                let (i, at) = part(lane);
                values[i][at..].first_chunk().expect("a sub-block")
            };
            let sub_weights = |lane: usize| {
                let (i, at) = part(lane);
                weights[i][at..].first_chunk().expect("a sub-block")
            };
            let group = AffineGroup {
                top: T::TOP,
                x: &gather(simd, sub_block),
                w: &gather(simd, sub_weights),
            };
            let scale_top = T::SCALE_TOP;
            let fit = AffineSuperBlocks::<_, SUB, SUBS> { group, scale_top }.search(simd);
            let min = simd.splat(0.0) - fit.dmin * fit.minima;
            let levels = scatter_levels(&group.levels(simd, fit.d * fit.scales, min));
            let (d, dmin) = (fit.d.to_array(), fit.dmin.to_array());
            let (scales, minima) = (fit.scales.to_u8(), fit.minima.to_u8());
            for (i, block) in blocks.iter_mut().enumerate() {
                let first = i * SUBS;
                let candidate = T::pack(
                    f32_to_f16(d[first]),
                    f32_to_f16(dmin[first]),
                    scales[first..].first_chunk().expect("scales"),
                    minima[first..].first_chunk().expect("minima"),
                    levels[first..]
                        .as_flattened()
                        .first_chunk()
                        .expect("256 levels"),
                );
                keep_better::<S, T, BYTES, N>(simd, block, &candidate, values[i], importance[i]);
            }
        }
    }
}
