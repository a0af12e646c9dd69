//! The order in which panels of rows meet tiles of tokens, the same for codes and for floats.

use std::ops::Range;

use super::product::Product;
use super::{PANEL_ROWS, RowSums};

/// Bytes of a panel that are multiplied with all tiles before the next ones, so that they stay in a
/// near cache where rows are long.
const SLICE_BYTES: usize = 64 << 10;

/// Packs rows to panels of 32.
pub(super) fn pack_panels<P: Default>(
    panels: &mut Vec<P>,
    rows: Range<usize>,
    mut pack: impl FnMut(&mut P, Range<usize>),
) -> &[P] {
    let n = rows.len().div_ceil(PANEL_ROWS);
    if panels.len() < n {
        panels.resize_with(n, P::default);
    }
    for (panel, start) in panels.iter_mut().zip(rows.clone().step_by(PANEL_ROWS)) {
        pack(panel, start..(start + PANEL_ROWS).min(rows.end));
    }
    &panels[..n]
}

/// Sizes that [`multiply_panels`] goes by.
pub(super) struct Plan {
    /// Strands of a sum.
    pub(super) strands: usize,
    /// Bytes of a panel that belong to one strand.
    pub(super) strand_bytes: usize,
    /// Tokens of each tile.
    pub(super) tiles: Vec<usize>,
}

/// Multiplies panels, which hold `rows`, with all tiles of tokens. `tile` adds some strands of the
/// products of a panel and a tile to the sums of its tokens.
pub(super) fn multiply_panels<P>(
    product: &Product<'_>,
    rows: Range<usize>,
    plan: &Plan,
    panels: &[P],
    sums: &mut Vec<RowSums>,
    tile: impl Fn(&P, usize, Range<usize>, &mut [RowSums]),
) {
    sums.clear();
    sums.resize(panels.len() * product.tokens.len(), [0.0; PANEL_ROWS]);
    let slice = (SLICE_BYTES / plan.strand_bytes.max(1)).clamp(1, plan.strands);
    for strand in (0..plan.strands).step_by(slice) {
        let strands = strand..(strand + slice).min(plan.strands);
        let mut sums = sums.as_mut_slice();
        for (i, &tokens) in plan.tiles.iter().enumerate() {
            for panel in panels {
                let own;
                (own, sums) = sums.split_at_mut(tokens);
                tile(panel, i, strands.clone(), own);
            }
        }
    }
    let mut sums = sums.iter();
    let mut token = 0;
    for &tokens in &plan.tiles {
        for start in (0..rows.len()).step_by(PANEL_ROWS) {
            let n = PANEL_ROWS.min(rows.len() - start);
            for (t, sums) in sums.by_ref().take(tokens).enumerate() {
                // SAFETY: units of a product have disjoint rows.
                unsafe { product.write_panel(token + t, rows.start + start, sums, n) };
            }
        }
        token += tokens;
    }
}
