//! The KV cache: keys and values of past tokens.
//!
//! A cache belongs to one layer, one sequence and one KV head. Keys lie in tiles of [`TILE`]
//! positions, dimension by dimension (`tile × dimension × position`), so that scores of a tile are
//! sums of whole vectors; values lie position by position.

use std::fmt;
use std::str::FromStr;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::simd::Simd;

/// Positions in a tile of keys.
pub(crate) const TILE: usize = 64;

/// Values that share a scale in a `q8_0` cache.
const BLOCK: usize = 32;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    /// 32-bit floats: exact.
    F32,
    /// 16-bit floats.
    #[default]
    F16,
    /// 8-bit integers with a 32-bit scale for 32 dimensions.
    Q8_0,
}

impl FromStr for KvType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name.to_ascii_lowercase().as_str() {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "q8_0" => Ok(Self::Q8_0),
            _ => Err(format!("`{name}` is not one of f32, f16, q8_0")),
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        })
    }
}

#[derive(Debug, Clone)]
enum Store {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Q8 { quants: Vec<i8>, scales: Vec<f32> },
}

impl Store {
    fn new(ty: KvType, values: usize, blocks: usize) -> Self {
        match ty {
            KvType::F32 => Self::F32(vec![0.0; values]),
            KvType::F16 => Self::F16(vec![f16::ZERO; values]),
            KvType::Q8_0 => Self::Q8 {
                quants: vec![0; values],
                scales: vec![0.0; blocks],
            },
        }
    }
}

/// Keys and values of one head.
#[derive(Debug, Clone)]
pub(crate) struct HeadCache {
    key_length: usize,
    value_length: usize,
    keys: Store,
    values: Store,
}

/// Makes halves wider.
#[inline(always)]
fn widen<S: Simd>(simd: S, halves: &[f16], out: &mut [f32]) {
    let whole = halves.len() / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        simd.store(simd.widen(&halves[at..]), &mut out[at..]);
    }
    for (out, half) in out[whole..].iter_mut().zip(&halves[whole..]) {
        *out = half.to_f32();
    }
}

/// The scale of a block, and its inverse.
fn block_scale(values: &[f32]) -> (f32, f32) {
    let scale = values.iter().fold(0f32, |max, v| max.max(v.abs())) / 127.0;
    (scale, if scale > 0.0 { 1.0 / scale } else { 0.0 })
}

impl HeadCache {
    /// Room for `context` positions.
    pub fn new(ty: KvType, context: usize, key_length: usize, value_length: usize) -> Self {
        let context = context.next_multiple_of(TILE);
        let store = |length: usize| {
            let blocks = context * length.div_ceil(BLOCK);
            Store::new(ty, context * length, blocks)
        };
        Self {
            key_length,
            value_length,
            keys: store(key_length),
            values: store(value_length),
        }
    }

    /// Stores the key of a position.
    pub fn write_key(&mut self, position: usize, key: &[f32]) {
        let (tile, slot) = (position / TILE, position % TILE);
        let first = tile * self.key_length * TILE + slot;
        match &mut self.keys {
            Store::F32(store) => {
                for (i, &k) in key.iter().enumerate() {
                    store[first + i * TILE] = k;
                }
            }
            Store::F16(store) => {
                for (i, &k) in key.iter().enumerate() {
                    store[first + i * TILE] = f16::from_f32(k);
                }
            }
            Store::Q8 { quants, scales } => {
                let blocks = self.key_length.div_ceil(BLOCK);
                for (b, block) in key.chunks(BLOCK).enumerate() {
                    let (scale, inverse) = block_scale(block);
                    scales[(tile * blocks + b) * TILE + slot] = scale;
                    for (i, k) in block.iter().enumerate() {
                        let at = first + (b * BLOCK + i) * TILE;
                        quants[at] = (k * inverse).round_ties_even() as i8;
                    }
                }
            }
        }
    }

    /// Stores the value of a position.
    pub fn write_value(&mut self, position: usize, value: &[f32]) {
        let range = position * self.value_length..(position + 1) * self.value_length;
        match &mut self.values {
            Store::F32(store) => store[range].copy_from_slice(value),
            Store::F16(store) => store[range].convert_from_f32_slice(value),
            Store::Q8 { quants, scales } => {
                let blocks = self.value_length.div_ceil(BLOCK);
                let quants = quants[range].chunks_mut(BLOCK);
                for (b, (block, quants)) in value.chunks(BLOCK).zip(quants).enumerate() {
                    let (scale, inverse) = block_scale(block);
                    scales[position * blocks + b] = scale;
                    for (q, v) in quants.iter_mut().zip(block) {
                        *q = (v * inverse).round_ties_even() as i8;
                    }
                }
            }
        }
    }

    /// A tile of keys as f32, dimension × position; in `buffer` unless stored so.
    #[inline(always)]
    pub fn key_tile<'a>(
        &'a self,
        simd: impl Simd,
        tile: usize,
        buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let len = self.key_length * TILE;
        let range = tile * len..(tile + 1) * len;
        match &self.keys {
            Store::F32(store) => &store[range],
            Store::F16(store) => {
                buffer.resize(len, 0.0);
                widen(simd, &store[range], buffer);
                buffer
            }
            Store::Q8 { quants, scales } => {
                buffer.resize(len, 0.0);
                let blocks = self.key_length.div_ceil(BLOCK);
                let rows = quants[range].chunks_exact(TILE);
                for (i, (row, out)) in rows.zip(buffer.chunks_exact_mut(TILE)).enumerate() {
                    let scales = &scales[(tile * blocks + i / BLOCK) * TILE..][..TILE];
                    for ((out, &q), scale) in out.iter_mut().zip(row).zip(scales) {
                        *out = f32::from(q) * scale;
                    }
                }
                buffer
            }
        }
    }

    /// Values of `count` positions from the first of a tile on as f32, position × dimension.
    #[inline(always)]
    pub fn value_tile<'a>(
        &'a self,
        simd: impl Simd,
        tile: usize,
        count: usize,
        buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let first = tile * TILE;
        let range = first * self.value_length..(first + count) * self.value_length;
        match &self.values {
            Store::F32(store) => &store[range],
            Store::F16(store) => {
                buffer.resize(range.len(), 0.0);
                widen(simd, &store[range], buffer);
                buffer
            }
            Store::Q8 { quants, scales } => {
                buffer.resize(range.len(), 0.0);
                let blocks = self.value_length.div_ceil(BLOCK);
                let rows = quants[range].chunks_exact(self.value_length);
                let outs = buffer.chunks_exact_mut(self.value_length);
                for (i, (row, out)) in rows.zip(outs).enumerate() {
                    let scales = &scales[(first + i) * blocks..];
                    for (j, (out, &q)) in out.iter_mut().zip(row).enumerate() {
                        *out = f32::from(q) * scales[j / BLOCK];
                    }
                }
                buffer
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gristmill_quantize::Isa;

    use super::*;
    use crate::simd::{Loops, dispatch};

    struct Tiles<'a> {
        cache: &'a HeadCache,
        keys: Vec<f32>,
        values: Vec<f32>,
    }

    impl Loops for &mut Tiles<'_> {
        fn run<S: Simd, const WIDE: usize>(self, simd: S) {
            let mut buffer = Vec::new();
            self.keys = self.cache.key_tile(simd, 1, &mut buffer).to_vec();
            self.values = self.cache.value_tile(simd, 1, 36, &mut buffer).to_vec();
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let types = [
            (KvType::F32, 0.0),
            (KvType::F16, 1e-3),
            (KvType::Q8_0, 1e-2),
        ];
        for ((ty, error), isa) in types
            .into_iter()
            .flat_map(|case| Isa::available().into_iter().map(move |isa| (case, isa)))
        {
            let mut cache = HeadCache::new(ty, 100, 48, 40);
            let at = |p: usize, i: usize| ((p * 31 + i * 7) % 19) as f32 / 9.5 - 1.0;
            for p in 0..100 {
                cache.write_key(p, &(0..48).map(|i| at(p, i)).collect::<Vec<_>>());
                cache.write_value(p, &(0..40).map(|i| at(p, i)).collect::<Vec<_>>());
            }
            let mut tiles = Tiles {
                cache: &cache,
                keys: Vec::new(),
                values: Vec::new(),
            };
            dispatch(isa, &mut tiles);
            let Tiles { keys, values, .. } = tiles;
            for p in 64..100 {
                for i in 0..48 {
                    assert!((keys[i * TILE + p - 64] - at(p, i)).abs() <= error, "{ty}");
                }
                for i in 0..40 {
                    assert!(
                        (values[(p - 64) * 40 + i] - at(p, i)).abs() <= error,
                        "{ty}"
                    );
                }
            }
        }
    }
}
