//! Effort `best` for types whose blocks are searched by themselves, sixteen side by side.

use std::array::from_fn;
use std::marker::PhantomData;

use super::{Format, Rows};
use crate::search::error::keep_better;
use crate::search::relative_weights;
use crate::simd::{Float, Kernel, LANES, Simd, dispatch, gather, scatter_levels};

/// A type with one scale and one minimum (or none) for all values of a block.
pub(crate) trait Improve<const BYTES: usize, const N: usize>: Format<BYTES, N> {
    /// Searches scale, minimum and levels that leave little `Σ w·(x - y)²`. Scale and minimum are
    /// values that f16 can hold. Must be `#[inline(always)]`.
    fn improve<S: Simd>(
        simd: S,
        x: &[S::F; N],
        w: &[S::F; N],
        levels: &mut [S::F; N],
    ) -> (S::F, S::F);

    /// A block of scale, minimum and levels.
    fn assemble(d: f32, m: f32, levels: &[u8; N]) -> [u8; BYTES];
}

/// Replaces every block for which the search finds one with less error.
pub(crate) fn improve<T, const BYTES: usize, const N: usize>(
    rows: &Rows<'_>,
    blocks: &mut [[u8; BYTES]],
) where
    T: Improve<BYTES, N>,
{
    let ty = PhantomData::<T>;
    dispatch(rows.isa, Pass { rows, blocks, ty });
}

struct Pass<'a, T, const BYTES: usize, const N: usize> {
    rows: &'a Rows<'a>,
    blocks: &'a mut [[u8; BYTES]],
    ty: PhantomData<T>,
}

impl<T: Improve<BYTES, N>, const BYTES: usize, const N: usize> Kernel for Pass<'_, T, BYTES, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let values: &[[f32; N]] = self.rows.values.as_chunks().0;
        let importance: Option<&[[f32; N]]> = self.rows.importance.map(|v| v.as_chunks().0);
        let mut levels = [simd.splat(0.0); N];
        for (group, blocks) in self.blocks.chunks_mut(LANES).enumerate() {
            let last = blocks.len() - 1;
            let index: [usize; LANES] = from_fn(|lane| group * LANES + lane.min(last));
            let x = gather(simd, |lane| &values[index[lane]]);
            let mut weights = [[0.0; N]; LANES];
            for (weights, index) in weights.iter_mut().zip(index) {
                *weights = relative_weights(importance.map(|all| &all[index % all.len()]));
            }
            let w = gather(simd, |lane| &weights[lane]);
            let (d, m) = T::improve(simd, &x, &w, &mut levels);
            let (d, m) = (d.to_array(), m.to_array());
            let levels = scatter_levels(&levels);
            for (lane, block) in blocks.iter_mut().enumerate() {
                let candidate = T::assemble(d[lane], m[lane], &levels[lane]);
                let index = index[lane];
                let importance = importance.map(|all| &all[index % all.len()]);
                keep_better::<S, T, BYTES, N>(simd, block, &candidate, &values[index], importance);
            }
        }
    }
}
