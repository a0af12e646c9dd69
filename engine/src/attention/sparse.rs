//! Sparse attention: a small branch beside the attention chooses the keys that each query sees.
//!
//! DeepSeek's indexer weighs the products of several heads and takes the best keys for all heads of
//! the attention; MiniMax's takes, for each group of heads, the blocks that hold the best keys.

use crate::architecture::{Norm, Rope};
use crate::cache::TILE;
use crate::error::Error;
use crate::matmul::Activations;
use crate::parameters::{Parameters, SparseParameters};
use crate::pass::Pass;
use crate::weights::{Linear, Loader, NormWeights, missing};

/// What DeepSeek's norm of index keys divides by at least; files do not carry it.
const KEY_EPSILON: f32 = 1e-6;

// A word holds the bits of a tile.
const _: () = assert!(TILE == u64::BITS as usize);

/// Keys that queries see: a bit each, token × group of heads × tile of keys.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    groups: usize,
    words: usize,
    bits: Vec<u64>,
}

impl Selection {
    /// The keys that a head of a token sees, a word for each tile.
    pub fn row(&self, token: usize, head: usize, heads: usize) -> &[u64] {
        let group = head * self.groups / heads;
        &self.bits[(token * self.groups + group) * self.words..][..self.words]
    }
}

/// Index keys of a sequence's past: position × length.
#[derive(Debug, Clone)]
pub(crate) struct IndexCache(Vec<f32>);

impl IndexCache {
    /// Room for `context` keys of this length.
    pub fn new(context: usize, length: usize) -> Self {
        Self(vec![0.0; context * length])
    }
}

/// How scores become a choice.
#[derive(Debug)]
enum Choice {
    /// The keys with the highest sums over heads, each weighed by a product of the input.
    Keys { top: usize, weights: Linear },
    /// For each head the blocks with the highest scores; the last ones before the query are among
    /// them.
    Blocks {
        size: usize,
        top: usize,
        local: usize,
    },
}

/// The branch that chooses.
#[derive(Debug)]
pub(crate) struct Indexer {
    queries: Linear,
    query_norm: Option<NormWeights>,
    keys: Linear,
    key_norm: NormWeights,
    heads: usize,
    length: usize,
    choice: Choice,
    kind: Rope,
}

impl Indexer {
    /// Binds `{prefix}indexer.*`, if the layer has them. Queries are made of vectors of
    /// `query_width`.
    pub fn load(
        loader: &Loader<'_>,
        prefix: &str,
        parameters: &Parameters,
        query_width: usize,
    ) -> Result<Option<Self>, Error> {
        let name = |part: &str| format!("{prefix}indexer.{part}");
        let Some(SparseParameters {
            heads,
            length,
            top,
            block,
            local,
        }) = parameters.sparse
        else {
            return Ok(None);
        };
        let width = parameters.width;
        let norm_name = name("k_norm");
        let key_norm = || {
            let norm = loader.norm(&norm_name, length)?;
            norm.ok_or_else(|| missing(&format!("{norm_name}.weight")))
        };
        let rotated = parameters.ropes[0].dims;
        let check = |ok: bool| match ok {
            true => Ok(()),
            false => Err(Error::Key {
                key: format!(
                    "{}.attention.indexer.key_length",
                    parameters.architecture.name
                ),
                problem: format!("{rotated} rotated dimensions in {heads} heads of {length}"),
            }),
        };
        if loader.has(&format!("{}.weight", name("attn_k"))) {
            check(rotated <= length && heads > 0)?;
            return Ok(Some(Self {
                queries: loader.product(&name("attn_q_b"), query_width, heads * length)?,
                query_norm: None,
                keys: loader.product(&name("attn_k"), width, length)?,
                key_norm: NormWeights {
                    kind: Norm::Layer,
                    epsilon: KEY_EPSILON,
                    ..key_norm()?
                },
                heads,
                length,
                choice: Choice::Keys {
                    top,
                    weights: loader.product(&name("proj"), width, heads)?,
                },
                kind: parameters.architecture.indexer_rope,
            }));
        }
        if loader.has(&format!("{}.weight", name("k_proj"))) {
            check(rotated <= length && heads > 0 && block > 0)?;
            return Ok(Some(Self {
                queries: loader.product(&name("q_proj"), query_width, heads * length)?,
                query_norm: loader.norm(&name("q_norm"), length)?,
                keys: loader.product(&name("k_proj"), width, length)?,
                key_norm: key_norm()?,
                heads,
                length,
                choice: Choice::Blocks {
                    size: block,
                    top,
                    local,
                },
                kind: parameters.architecture.rope,
            }));
        }
        Ok(None)
    }

    /// Length of an index key.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Heads, each of which chooses for a group of the attention's heads, or one for all.
    pub fn groups(&self) -> usize {
        match self.choice {
            Choice::Keys { .. } => 1,
            Choice::Blocks { .. } => self.heads,
        }
    }

    /// Stores the batch's index keys and chooses what its queries see; `None`: everything.
    /// `source` is what queries are made of, `input` what keys are made of.
    pub fn choose(
        &self,
        pass: &mut Pass<'_>,
        source: &Activations,
        input: &Activations,
        caches: &mut [IndexCache],
    ) -> Option<Selection> {
        self.store(pass, input, caches);
        let keys = pass
            .spans
            .iter()
            .map(|span| span.start + span.count)
            .max()?;
        let all = match self.choice {
            Choice::Keys { top, .. } => keys <= top,
            Choice::Blocks { size, top, .. } => keys.div_ceil(size) <= top,
        };
        if all {
            return None;
        }
        let (heads, length) = (self.heads, self.length);
        let mut queries = pass.multiply(&self.queries, source);
        pass.each_row(&mut queries, heads * length, |token, row| {
            for query in row.chunks_exact_mut(length) {
                if let Some(norm) = &self.query_norm {
                    norm.apply(query);
                }
                pass.ropes[0].apply_as(self.kind, token, query);
            }
        });
        let weights = match &self.choice {
            Choice::Keys { weights, .. } => pass.multiply(weights, input),
            Choice::Blocks { .. } => Vec::new(),
        };
        let (groups, words) = (self.groups(), keys.div_ceil(TILE));
        let mut bits = vec![0u64; input.tokens() * groups * words];
        let mut places = vec![(0, 0); input.tokens()];
        for span in &pass.spans {
            for i in 0..span.count {
                places[span.first + i] = (span.sequence, span.start + i);
            }
        }
        pass.pool()
            .chunks(&mut bits, groups * words, |token, bits| {
                let (sequence, position) = places[token];
                let keys = &caches[sequence].0[..(position + 1) * length];
                let queries = &queries[token * heads * length..][..heads * length];
                match self.choice {
                    Choice::Keys { top, .. } => {
                        let weights = &weights[token * heads..][..heads];
                        for key in best(&self.sums(queries, weights, keys), top) {
                            bits[key / TILE] |= 1 << (key % TILE);
                        }
                    }
                    Choice::Blocks { size, top, local } => {
                        let queries = queries.chunks_exact(length);
                        for (query, bits) in queries.zip(bits.chunks_exact_mut(words)) {
                            for block in best(&block_scores(query, keys, size, local), top) {
                                for key in block * size..((block + 1) * size).min(position + 1) {
                                    bits[key / TILE] |= 1 << (key % TILE);
                                }
                            }
                        }
                    }
                }
            });
        pass.scratch.give(queries);
        Some(Selection {
            groups,
            words,
            bits,
        })
    }

    fn store(&self, pass: &mut Pass<'_>, input: &Activations, caches: &mut [IndexCache]) {
        let length = self.length;
        let mut keys = pass.multiply(&self.keys, input);
        pass.each_row(&mut keys, length, |token, key| {
            self.key_norm.apply(key);
            pass.ropes[0].apply_as(self.kind, token, key);
        });
        for span in &pass.spans {
            let stored = &mut caches[span.sequence].0;
            stored[span.start * length..][..span.count * length]
                .copy_from_slice(&keys[span.first * length..][..span.count * length]);
        }
        pass.scratch.give(keys);
    }

    /// Scores of keys: products above zero, weighed and added over heads.
    fn sums(&self, queries: &[f32], weights: &[f32], keys: &[f32]) -> Vec<f32> {
        let scale = 1.0 / (self.length as f32).sqrt();
        let each = 1.0 / (self.heads as f32).sqrt();
        let score = |key: &[f32]| {
            let heads = queries.chunks_exact(self.length).zip(weights);
            heads
                .map(|(query, weight)| weight * each * (product(query, key) * scale).max(0.0))
                .sum()
        };
        keys.chunks_exact(self.length).map(score).collect()
    }
}

/// Scores of blocks: that of the best key; above all others for the `local` blocks that end with the
/// query's own.
fn block_scores(query: &[f32], keys: &[f32], size: usize, local: usize) -> Vec<f32> {
    let blocks = keys.chunks(size * query.len());
    let count = blocks.len();
    blocks
        .enumerate()
        .map(|(block, keys)| match block + local >= count {
            true => f32::INFINITY,
            false => keys
                .chunks_exact(query.len())
                .map(|key| product(query, key))
                .fold(f32::NEG_INFINITY, f32::max),
        })
        .collect()
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Indices of the `count` highest scores; of equal ones the first.
fn best(scores: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    if count < order.len() {
        order.select_nth_unstable_by(count, |&a, &b| {
            scores[b].total_cmp(&scores[a]).then(a.cmp(&b))
        });
        order.truncate(count);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_keys() {
        let mut found = best(&[0.5, 2.0, -1.0, 2.0, 1.0], 3);
        found.sort_unstable();
        assert_eq!(found, [1, 3, 4]);
        assert_eq!(best(&[1.0, 1.0], 1), [0]);
        assert_eq!(best(&[1.0], 4), [0]);
    }

    #[test]
    fn local_blocks_come_first() {
        // Two keys a block; the third block is the query's own.
        let keys = [3.0, -1.0, 9.0, 0.0, 1.0];
        assert_eq!(block_scores(&[1.0], &keys, 2, 1), [3.0, 9.0, f32::INFINITY]);
        assert_eq!(block_scores(&[1.0], &keys, 2, 3), [f32::INFINITY; 3]);
    }
}
