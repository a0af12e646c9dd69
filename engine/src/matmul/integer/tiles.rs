//! Activations in the order in which the panel kernels read them.

use std::sync::Mutex;

use super::super::activations::A32;
use crate::pool::Pool;

/// Tokens of a full tile: with 32 rows they fill the registers of AVX-512.
pub(in super::super) const TILE_TOKENS: usize = 6;

/// Tokens in tiles of [`TILE_TOKENS`], the last of what is left. A tile holds its blocks strand by strand, and of each block
/// the tokens side by side.
#[derive(Debug)]
pub(in super::super) struct Tiles {
    supers: usize,
    tiles: Vec<Tile>,
}

/// Some tokens; every vector is indexed by block, then by what is noted, then by token.
#[derive(Debug)]
pub(super) struct Tile {
    /// Number of tokens.
    pub tokens: usize,
    /// Four codes, for each of the 8 groups of a block.
    pub codes: Vec<[i8; 4]>,
    /// -128 times the sum of the codes.
    pub zero: Vec<i32>,
    /// The same for each half of the block.
    pub half_zero: Vec<i32>,
    /// The scale.
    pub scale: Vec<f32>,
    /// The scale times the sum of the codes.
    pub sum: Vec<f32>,
    /// The same for each half of the block.
    pub half_sum: Vec<f32>,
}

impl Tiles {
    /// The tokens `token(0..tokens)` of `x` in tiles.
    pub(in super::super) fn new(
        x: &A32,
        tokens: usize,
        token: impl Fn(usize) -> usize + Sync,
        pool: &Pool,
    ) -> Self {
        let width = TILE_TOKENS;
        let tiles: Vec<_> = (0..tokens.div_ceil(width))
            .map(|_| Mutex::new(None))
            .collect();
        pool.run(tiles.len(), |i| {
            let list: Vec<_> = (i * width..tokens.min((i + 1) * width))
                .map(&token)
                .collect();
            let tile = Tile::new(x, &list);
            if let Ok(mut place) = tiles[i].lock() {
                *place = Some(tile);
            }
        });
        Self {
            supers: x.supers(),
            tiles: tiles
                .into_iter()
                .filter_map(|tile| tile.into_inner().ok().flatten())
                .collect(),
        }
    }

    /// Superblocks in a vector.
    pub(in super::super) fn supers(&self) -> usize {
        self.supers
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
    fn new(x: &A32, list: &[usize]) -> Self {
        let (n, supers) = (list.len(), x.supers());
        let blocks = 8 * supers;
        let mut tile = Self {
            tokens: n,
            codes: vec![[0; 4]; blocks * 8 * n],
            zero: vec![0; blocks * n],
            half_zero: vec![0; blocks * 2 * n],
            scale: vec![0.0; blocks * n],
            sum: vec![0.0; blocks * n],
            half_sum: vec![0.0; blocks * 2 * n],
        };
        for (t, &token) in list.iter().enumerate() {
            for (s, x) in x.token(token).iter().enumerate() {
                let groups = x.codes.as_chunks::<4>().0;
                for b in 0..8 {
                    let block = b * supers + s;
                    let codes = &mut tile.codes[block * 8 * n..][..8 * n];
                    for g in 0..8 {
                        codes[g * n + t] = groups[b * 8 + g];
                    }
                    tile.zero[block * n + t] = x.zero[b] + x.zero[8 + b];
                    tile.scale[block * n + t] = x.scale[b];
                    tile.sum[block * n + t] = x.sum[b];
                    for half in 0..2 {
                        let at = (block * 2 + half) * n + t;
                        tile.half_zero[at] = x.zero[half * 8 + b];
                        tile.half_sum[at] = x.half_sum[half * 8 + b];
                    }
                }
            }
        }
        tile
    }
}
