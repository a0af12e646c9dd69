//! Q2_K, Q4_K and Q5_K: `x ≈ d·scale·q - dmin·minimum`.

use std::array::from_fn;
use std::marker::PhantomData;

use super::{Batch, N};
use crate::half::{f16_to_f32, f32_to_f16};
use crate::search::{AffineSteps, nearest_int, reference_affine, reference_positive};
use crate::simd::{Float, Kernel, LANES, Simd, dispatch, scatter_levels};
use crate::types::{Effort, Rows};

/// How ggml weighs values where there is no importance.
pub(crate) enum PlainWeight {
    /// `|x|`.
    Magnitude,
    /// `sqrt(mean of the sub-block's x²) + |x|`.
    RootMeanSquarePlusMagnitude,
}

/// A K type with `SUBS` sub-blocks of `SUB` values, each with a scale and a minimum.
pub(crate) trait Affine<const BYTES: usize, const SUBS: usize, const SUB: usize> {
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
    _effort: Effort,
    blocks: &mut [[u8; BYTES]],
) where
    T: Affine<BYTES, SUBS, SUB>,
{
    dispatch(
        rows.isa,
        Reference::<T, BYTES, SUBS, SUB> {
            rows,
            blocks,
            ty: PhantomData,
        },
    );
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
                    from_fn(|j| v[j] * (mean_square + x[j] * x[j]).sqrt()),
                )
            }
            None => (T::PLAIN, plain_weights(simd, &T::PLAIN_WEIGHT, &x)),
        };
        let sum = w.iter().fold(simd.splat(0.0), |sum, &w| sum + w);
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
    match weight {
        PlainWeight::Magnitude => from_fn(|j| x[j].abs()),
        PlainWeight::RootMeanSquarePlusMagnitude => {
            let sum = x.iter().fold(simd.splat(0.0), |sum, &x| sum + x * x);
            let root_mean_square = (sum / simd.splat(SUB as f32)).sqrt();
            from_fn(|j| root_mean_square + x[j].abs())
        }
    }
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
    let x: [S::F; SUBS] = from_fn(|j| simd.load(&scales.values[j]));
    if weighted {
        let w: [S::F; SUBS] = from_fn(|j| simd.load(&sums[j]));
        let mut levels = [simd.splat(0.0); SUBS];
        reference_positive(simd, top, &x, &w, &mut levels).store(&mut scales.scale);
        scales.levels = levels.map(Float::to_u8);
    } else {
        let zero = simd.splat(0.0);
        let max = x.iter().fold(zero, |max, &x| x.max(max));
        let positive = max.gt(zero);
        let inverse = (simd.splat(top as f32) / max).select(positive, zero);
        scales.levels = from_fn(|j| (inverse * x[j]).nearest(0, top).to_u8());
        (max / simd.splat(top as f32))
            .select(positive, zero)
            .store(&mut scales.scale);
    }
}
