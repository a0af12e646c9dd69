//! Weights and activations in the order in which the panel kernels read them: strand by strand,
//! that is, all values whose index is 0 modulo 32, then those whose index is 1, and so on. Rows are
//! padded with zeros to a multiple of 32 values.

use std::sync::Mutex;

use super::super::PANEL_ROWS;
use super::super::activations::Activations;
use super::STRANDS;
use crate::pool::Pool;

/// Tokens of a full tile: with 32 rows they fill the registers of AVX-512.
pub(super) const TILE_TOKENS: usize = 12;

/// One value of each of 32 rows.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub [f32; PANEL_ROWS]);

/// The values of 32 rows: a buffer that panels are packed to in turn.
#[derive(Debug, Default)]
pub(in super::super) struct Panel {
    /// Values of a strand.
    pub(super) steps: usize,
    pub(super) lines: Vec<Line>,
}

impl Panel {
    /// Makes the buffer hold rows of `cols` values.
    pub(super) fn resize(&mut self, cols: usize) {
        self.steps = cols.div_ceil(STRANDS);
        self.lines
            .resize(self.steps * STRANDS, Line([0.0; PANEL_ROWS]));
    }

    /// Values of a strand.
    pub(in super::super) fn steps(&self) -> usize {
        self.steps
    }
}

/// Tokens in tiles of [`TILE_TOKENS`], the last of what is left.
#[derive(Debug)]
pub(in super::super) struct Tiles {
    tiles: Vec<Tile>,
}

/// Some tokens: for each value of the panel's order, that of each token.
#[derive(Debug)]
pub(super) struct Tile {
    pub tokens: usize,
    pub values: Vec<f32>,
}

impl Tiles {
    /// The tokens `token(0..tokens)` of `x`.
    pub(in super::super) fn new(
        x: &Activations,
        tokens: usize,
        token: impl Fn(usize) -> usize + Sync,
        pool: &Pool,
    ) -> Self {
        let tiles: Vec<_> = (0..tokens.div_ceil(TILE_TOKENS))
            .map(|_| Mutex::new(None))
            .collect();
        pool.run(tiles.len(), |i| {
            let end = tokens.min((i + 1) * TILE_TOKENS);
            let list: Vec<_> = (i * TILE_TOKENS..end).map(&token).collect();
            let tile = Tile::new(x, &list);
            if let Ok(mut place) = tiles[i].lock() {
                *place = Some(tile);
            }
        });
        let tiles = tiles
            .into_iter()
            .filter_map(|tile| tile.into_inner().ok().flatten());
        Self {
            tiles: tiles.collect(),
        }
    }

    /// Number of tiles.
    pub(in super::super) fn len(&self) -> usize {
        self.tiles.len()
    }

    /// Number of tokens in a tile.
    pub(in super::super) fn tokens(&self, tile: usize) -> usize {
        self.tiles[tile].tokens
    }

    pub(super) fn tile(&self, tile: usize) -> &Tile {
        &self.tiles[tile]
    }
}

impl Tile {
    fn new(x: &Activations, list: &[usize]) -> Self {
        let n = list.len();
        let steps = x.cols().div_ceil(STRANDS);
        let mut values = vec![0.0; steps * STRANDS * n];
        for (t, &token) in list.iter().enumerate() {
            for (step, chunk) in x.token(token).chunks(STRANDS).enumerate() {
                for (strand, &value) in chunk.iter().enumerate() {
                    values[(strand * steps + step) * n + t] = value;
                }
            }
        }
        Self { tokens: n, values }
    }
}
