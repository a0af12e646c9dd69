//! Latent attention (MLA): keys and values come from one low-rank vector a token.
//!
//! Files hold the second projection either split by heads (`attn_k_b`, `attn_v_b`), and then
//! queries are taken into the latent space and the latent vector itself is the cache, or whole
//! (`attn_kv_b`), and then keys and values of every head are expanded.

use crate::cache::HeadCache;
use crate::error::Error;
use crate::matmul::Activations;
use crate::ops;
use crate::parameters::{LayerParameters, Parameters};
use crate::pass::Pass;
use crate::weights::{Linear, Loader, NormWeights, Stack, missing};

use super::sparse::Indexer;
use super::{Geometry, IndexCache};

#[derive(Debug)]
enum Queries {
    Direct(Linear),
    LowRank {
        a: Linear,
        norm: NormWeights,
        b: Linear,
    },
}

#[derive(Debug)]
enum Expansion {
    /// By head: to the latent space, and from it to values.
    Absorbed { k: Stack, v: Stack },
    /// Keys and values of all heads.
    Whole(Linear),
}

/// A latent attention block.
#[derive(Debug)]
pub(crate) struct LatentAttention {
    queries: Queries,
    latent: Linear,
    latent_norm: NormWeights,
    expansion: Expansion,
    output: Linear,
    geometry: Geometry,
    rank: usize,
    /// Dimensions of a head without and with rotation.
    plain: usize,
    rotated: usize,
    value: usize,
    rotates: bool,
    indexer: Option<Indexer>,
    /// Gives a gate for each head.
    gate: Option<Linear>,
}

impl LatentAttention {
    /// Binds the tensors, if the layer has them. `scale` multiplies the scores besides
    /// `1 / sqrt(head size)`.
    pub fn load(
        loader: &Loader<'_>,
        prefix: &str,
        parameters: &Parameters,
        layer: &LayerParameters,
        scale: f32,
    ) -> Result<Option<Self>, Error> {
        let name = |part: &str| format!("{prefix}{part}");
        let width = parameters.width;
        let Some(latent) = loader.linear(&name("attn_kv_a_mqa"), width)? else {
            return Ok(None);
        };
        let heads = layer.heads;
        let rotated = parameters.ropes[0].dims;
        let Some(rank) = latent.weight.rows().checked_sub(rotated).filter(|&r| r > 0) else {
            return Err(Error::Shape {
                name: latent.name.to_string(),
                expected: format!("more than {rotated} rows"),
                found: loader.shape(&latent.name)?.to_vec(),
            });
        };
        let queries = match loader.linear(&name("attn_q_a"), width)? {
            Some(a) => {
                let rank = a.weight.rows();
                let stem = name("attn_q_a_norm");
                Queries::LowRank {
                    a,
                    norm: loader.norm(&stem, rank)?.ok_or_else(|| missing(&stem))?,
                    b: loader
                        .linear(&name("attn_q_b"), rank)?
                        .ok_or_else(|| missing(&name("attn_q_b.weight")))?,
                }
            }
            None => Queries::Direct(
                loader
                    .linear(&name("attn_q"), width)?
                    .ok_or_else(|| missing(&name("attn_q.weight")))?,
            ),
        };
        let last = match &queries {
            Queries::Direct(linear) | Queries::LowRank { b: linear, .. } => linear,
        };
        let head = last.weight.rows() / heads.max(1);
        if head <= rotated || heads * head != last.weight.rows() {
            return Err(Error::Shape {
                name: last.name.to_string(),
                expected: format!("{heads} heads of more than {rotated} rows"),
                found: loader.shape(&last.name)?.to_vec(),
            });
        }
        let plain = head - rotated;
        let expansion = match loader.linear(&name("attn_kv_b"), rank)? {
            Some(whole) => Expansion::Whole(whole),
            None => {
                let stack = |part: &str, cols| {
                    let stem = name(part);
                    let found = loader.stack(&stem, cols, heads)?;
                    found.ok_or_else(|| missing(&format!("{stem}.weight")))
                };
                Expansion::Absorbed {
                    k: stack("attn_k_b", plain)?,
                    v: stack("attn_v_b", rank)?,
                }
            }
        };
        let value = match &expansion {
            Expansion::Whole(whole) => (whole.weight.rows() / heads).saturating_sub(plain),
            Expansion::Absorbed { k, v } => {
                if k.rows != rank {
                    return Err(Error::Shape {
                        name: k.name.to_string(),
                        expected: format!("matrices of {rank} rows"),
                        found: loader.shape(&k.name)?.to_vec(),
                    });
                }
                v.rows
            }
        };
        let gate = loader.linear(&name("attn_gate"), width)?;
        if let Some(gate) = &gate {
            loader.check_rows(gate, heads)?;
        }
        let query_width = match &queries {
            Queries::Direct(_) => width,
            Queries::LowRank { b, .. } => b.weight.cols(),
        };
        let indexer = Indexer::load(loader, prefix, parameters, query_width)?;
        let (kv_heads, key_length, value_length) = match &expansion {
            Expansion::Whole(_) => (heads, head, value),
            Expansion::Absorbed { .. } => (1, rank + rotated, rank),
        };
        let stem = name("attn_kv_a_norm");
        Ok(Some(Self {
            queries,
            latent,
            latent_norm: loader.norm(&stem, rank)?.ok_or_else(|| missing(&stem))?,
            expansion,
            output: loader.product(&name("attn_output"), heads * value, width)?,
            geometry: Geometry {
                heads,
                kv_heads,
                key_length,
                value_length,
                mask: layer.mask,
                scale: scale / (head as f32).sqrt(),
                softcap: parameters.attention_softcap,
                sinks: None,
                bias: None,
            },
            rank,
            plain,
            rotated,
            value,
            rotates: layer.rotates,
            indexer,
            gate,
        }))
    }

    /// KV heads, key length and value length of the cache.
    pub fn cache_shape(&self) -> (usize, usize, usize) {
        let g = &self.geometry;
        (g.kv_heads, g.key_length, g.value_length)
    }

    /// Length of an index key, where the layer chooses keys itself.
    pub fn index_length(&self) -> Option<usize> {
        self.indexer.as_ref().map(Indexer::length)
    }

    /// The block's output for normalised inputs. A layer without an indexer sees what the last layer
    /// that has one has chosen.
    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        input: &Activations,
        caches: &mut [HeadCache],
        indexes: &mut [IndexCache],
    ) -> Vec<f32> {
        let (tokens, heads) = (input.tokens(), self.geometry.heads);
        let mut q = match &self.queries {
            Queries::Direct(linear) => {
                if let Some(indexer) = &self.indexer {
                    pass.selection = indexer.choose(pass, input, input, indexes);
                }
                pass.multiply(linear, input)
            }
            Queries::LowRank { a, norm, b } => {
                let mut low = pass.multiply(a, input);
                let rank = a.weight.rows();
                pass.normalise(Some(norm), &mut low, rank);
                let low = Activations::new(tokens, rank, low);
                let q = pass.multiply(b, &low);
                if let Some(indexer) = &self.indexer {
                    pass.selection = indexer.choose(pass, &low, input, indexes);
                }
                pass.recycle(low);
                q
            }
        };
        let head = self.plain + self.rotated;
        let mut latent = pass.multiply(&self.latent, input);
        let width = self.rank + self.rotated;
        pass.each_row(&mut latent, width, |token, row| {
            self.latent_norm.apply(&mut row[..self.rank]);
            if self.rotates {
                pass.ropes[0].apply(token, &mut row[self.rank..]);
            }
        });
        if self.rotates {
            pass.each_row(&mut q, heads * head, |token, row| {
                for q in row.chunks_exact_mut(head) {
                    pass.ropes[0].apply(token, &mut q[self.plain..]);
                }
            });
        }
        let mut mixed = match &self.expansion {
            Expansion::Whole(whole) => self.expanded(pass, whole, &q, &latent, caches),
            Expansion::Absorbed { k, v } => self.absorbed(pass, k, v, &q, &latent, caches),
        };
        pass.scratch.give(q);
        pass.scratch.give(latent);
        if let Some(gate) = &self.gate {
            let gates = pass.multiply(gate, input);
            pass.each_row(&mut mixed, heads * self.value, |token, row| {
                let gates = &gates[token * heads..][..heads];
                for (part, &gate) in row.chunks_exact_mut(self.value).zip(gates) {
                    ops::multiply(part, ops::sigmoid(gate));
                }
            });
            pass.scratch.give(gates);
        }
        let mixed = Activations::new(tokens, heads * self.value, mixed);
        let out = pass.multiply(&self.output, &mixed);
        pass.recycle(mixed);
        out
    }

    fn attend(&self, pass: &mut Pass<'_>, caches: &[HeadCache], queries: &[f32]) -> Vec<f32> {
        let selection = pass.selection.take();
        let mixed = self
            .geometry
            .attend(pass, caches, queries, selection.as_ref());
        pass.selection = selection;
        mixed
    }

    fn expanded(
        &self,
        pass: &mut Pass<'_>,
        whole: &Linear,
        q: &[f32],
        latent: &[f32],
        caches: &mut [HeadCache],
    ) -> Vec<f32> {
        let (rank, plain, value) = (self.rank, self.plain, self.value);
        let width = rank + self.rotated;
        let mut ranks = pass.scratch.take(pass.tokens() * rank);
        pass.each_row(&mut ranks, rank, |token, row| {
            row.copy_from_slice(&latent[token * width..][..rank]);
        });
        let ranks = Activations::new(pass.tokens(), rank, ranks);
        let kv = pass.multiply(whole, &ranks);
        pass.recycle(ranks);
        let stride = whole.weight.rows();
        self.geometry
            .store(pass, caches, |token, head, position, cache| {
                let kv = &kv[token * stride + head * (plain + value)..];
                let mut key = kv[..plain].to_vec();
                key.extend_from_slice(&latent[token * width + rank..][..self.rotated]);
                cache.write_key(position, &key);
                cache.write_value(position, &kv[plain..plain + value]);
            });
        pass.scratch.give(kv);
        self.attend(pass, caches, q)
    }

    fn absorbed(
        &self,
        pass: &mut Pass<'_>,
        k: &Stack,
        v: &Stack,
        q: &[f32],
        latent: &[f32],
        caches: &mut [HeadCache],
    ) -> Vec<f32> {
        let (tokens, heads, rank) = (pass.tokens(), self.geometry.heads, self.rank);
        let (head_len, width) = (self.plain + self.rotated, rank + self.rotated);
        let mut queries = pass.scratch.take(tokens * heads * width);
        for head in 0..heads {
            let mut plain = pass.scratch.take(tokens * self.plain);
            for (token, row) in plain.chunks_exact_mut(self.plain).enumerate() {
                row.copy_from_slice(&q[(token * heads + head) * head_len..][..self.plain]);
            }
            let plain = Activations::new(tokens, self.plain, plain);
            let taken = pass.multiply_part(k, head, &plain);
            pass.recycle(plain);
            for token in 0..tokens {
                let query = &mut queries[(token * heads + head) * width..][..width];
                query[..rank].copy_from_slice(&taken[token * rank..][..rank]);
                let from = (token * heads + head) * head_len + self.plain;
                query[rank..].copy_from_slice(&q[from..][..self.rotated]);
            }
            pass.scratch.give(taken);
        }
        self.geometry
            .store(pass, caches, |token, _, position, cache| {
                let latent = &latent[token * width..][..width];
                cache.write_key(position, latent);
                cache.write_value(position, &latent[..rank]);
            });
        let mixed = self.attend(pass, caches, &queries);
        pass.scratch.give(queries);
        let mut out = pass.scratch.take(tokens * heads * self.value);
        for head in 0..heads {
            let mut part = pass.scratch.take(tokens * rank);
            for (token, row) in part.chunks_exact_mut(rank).enumerate() {
                row.copy_from_slice(&mixed[(token * heads + head) * rank..][..rank]);
            }
            let part = Activations::new(tokens, rank, part);
            let values = pass.multiply_part(v, head, &part);
            pass.recycle(part);
            for token in 0..tokens {
                out[(token * heads + head) * self.value..][..self.value]
                    .copy_from_slice(&values[token * self.value..][..self.value]);
            }
            pass.scratch.give(values);
        }
        pass.scratch.give(mixed);
        out
    }
}
