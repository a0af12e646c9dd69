//! Attention with separate or fused projections, grouped heads and a KV cache.

mod geometry;
pub(crate) mod kernel;
mod latent;
mod sparse;

use std::sync::Arc;

use crate::architecture::GateActivation;
use crate::cache::HeadCache;
use crate::error::Error;
use crate::matmul::Activations;
use crate::ops;
use crate::parameters::{LayerParameters, Parameters};
use crate::pass::Pass;
use crate::weights::{Linear, Loader, NormWeights, missing};

use geometry::Geometry;
pub(crate) use kernel::Bias;
pub(crate) use latent::LatentAttention;
use sparse::Indexer;
pub(crate) use sparse::{IndexCache, Selection};

/// A norm of queries or keys.
#[derive(Debug)]
enum HeadNorm {
    /// The same for every head.
    Shared(NormWeights),
    /// Weights of its own for every head.
    Each(NormWeights),
    /// Over all heads together.
    Whole(NormWeights),
}

impl HeadNorm {
    fn load(
        loader: &Loader<'_>,
        stem: &str,
        heads: usize,
        length: usize,
    ) -> Result<Option<Self>, Error> {
        let name = format!("{stem}.weight");
        if !loader.has(&name) {
            return Ok(None);
        }
        let shape = loader.shape(&name)?;
        let values: u64 = shape.iter().product();
        if values == length as u64 {
            return Ok(loader.norm(stem, length)?.map(Self::Shared));
        }
        let norm = loader.norm(stem, heads * length)?;
        Ok(norm.map(|norm| match shape.len() {
            1 => Self::Whole(norm),
            _ => Self::Each(norm),
        }))
    }

    fn apply(&self, head: usize, x: &mut [f32]) {
        match self {
            Self::Shared(norm) => norm.apply(x),
            Self::Each(norm) => norm.apply_at(x, head * x.len()),
            Self::Whole(_) => {}
        }
    }
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one a layer")]
enum Projections {
    /// Queries, then keys, then values, in one product.
    Fused(Linear),
    /// Without keys the layer reads another one's cache; without values they equal the keys.
    Separate {
        q: Linear,
        k: Option<Linear>,
        v: Option<Linear>,
    },
}

/// An attention block.
#[derive(Debug)]
pub(crate) struct Attention {
    projections: Projections,
    q_norm: Option<HeadNorm>,
    k_norm: Option<HeadNorm>,
    v_norm: Option<NormWeights>,
    /// Norm of rotated queries and keys without weights.
    plain_norm: Option<NormWeights>,
    norm_after_rope: bool,
    /// Gives a gate for each value or for each head.
    gate: Option<Linear>,
    gate_activation: GateActivation,
    /// The query product gives a gate after each head's query.
    query_gate: bool,
    sub_norm: Option<NormWeights>,
    output: Linear,
    geometry: Geometry,
    /// The rotation's index, if the layer rotates.
    rope: Option<usize>,
    clamp: f32,
    temperature: Option<(f32, f32)>,
    value_scale: f32,
    indexer: Option<Indexer>,
}

/// Rows of a product at an offset inside longer rows.
#[derive(Clone, Copy)]
struct Columns<'a> {
    values: &'a [f32],
    stride: usize,
    offset: usize,
}

impl<'a> Columns<'a> {
    fn get(&self, token: usize, at: usize, len: usize) -> &'a [f32] {
        &self.values[token * self.stride + self.offset + at..][..len]
    }
}

impl Attention {
    /// Binds the tensors `{prefix}attn_*`, if the layer has them.
    pub fn load(
        loader: &Loader<'_>,
        prefix: &str,
        parameters: &Parameters,
        layer: &LayerParameters,
        bias: Option<&Arc<Bias>>,
    ) -> Result<Option<Self>, Error> {
        let name = |part: &str| format!("{prefix}{part}");
        let LayerParameters {
            heads,
            kv_heads,
            key_length,
            value_length,
            ..
        } = *layer;
        if heads == 0 || kv_heads == 0 {
            return Ok(None);
        }
        let width = parameters.width;
        let check = |ok: bool, key: &str, problem: &str| match ok {
            true => Ok(()),
            false => Err(Error::Key {
                key: format!("{}.attention.{key}", parameters.architecture.name),
                problem: problem.to_owned(),
            }),
        };
        check(
            heads.is_multiple_of(kv_heads),
            "head_count_kv",
            &format!("{kv_heads} does not divide {heads} heads"),
        )?;
        check(key_length > 0 && value_length > 0, "key_length", "is zero")?;
        let rope = layer.rotates.then_some(usize::from(layer.windowed));
        if let Some(at) = rope {
            let dims = parameters.ropes[at].dims;
            check(
                dims <= key_length && dims.is_multiple_of(2),
                "key_length",
                &format!("{dims} rotated dimensions in heads of {key_length}"),
            )?;
        }
        let (q_rows, k_rows, v_rows) = (
            heads * key_length,
            kv_heads * key_length,
            kv_heads * value_length,
        );
        let mut query_gate = false;
        let projections = if let Some(qkv) = loader.linear(&name("attn_qkv"), width)? {
            loader.check_rows(&qkv, q_rows + k_rows + v_rows)?;
            Projections::Fused(qkv)
        } else {
            let Some(q) = loader.linear(&name("attn_q"), width)? else {
                return Ok(None);
            };
            query_gate = q.weight.rows() == 2 * q_rows;
            if !query_gate {
                loader.check_rows(&q, q_rows)?;
            }
            let k = loader.linear(&name("attn_k"), width)?;
            let v = loader.linear(&name("attn_v"), width)?;
            for (linear, rows) in [(&k, k_rows), (&v, v_rows)] {
                if let Some(linear) = linear {
                    loader.check_rows(linear, rows)?;
                }
            }
            Projections::Separate { q, k, v }
        };
        let architecture = parameters.architecture;
        let plain = architecture.qk_norm_plain && rope.is_some() && parameters.scout();
        let output = match loader.linear(&name("attn_output"), heads * value_length)? {
            Some(output) => output,
            None => loader
                .linear(&name("attn_o"), heads * value_length)?
                .ok_or_else(|| missing(&name("attn_output.weight")))?,
        };
        loader.check_rows(&output, width)?;
        let gate = match loader.has(&name("attn_gate.weight")) {
            true => loader.linear(&name("attn_gate"), width)?,
            false => None,
        };
        if let Some(gate) = gate.as_ref().filter(|gate| gate.weight.rows() != heads) {
            loader.check_rows(gate, heads * value_length)?;
        }
        let indexer = Indexer::load(loader, prefix, parameters, width)?;
        if let Some(indexer) = &indexer {
            check(
                heads.is_multiple_of(indexer.groups()),
                "indexer.head_count",
                &format!("{} does not divide {heads} heads", indexer.groups()),
            )?;
        }
        let scale = parameters
            .attention_scale
            .unwrap_or_else(|| 1.0 / (key_length as f32).sqrt());
        Ok(Some(Self {
            projections,
            q_norm: HeadNorm::load(loader, &name("attn_q_norm"), heads, key_length)?,
            k_norm: HeadNorm::load(loader, &name("attn_k_norm"), kv_heads, key_length)?,
            v_norm: architecture.value_norm.then(|| loader.plain_norm()),
            plain_norm: plain.then(|| loader.plain_norm()),
            norm_after_rope: architecture.qk_norm_after_rope,
            gate,
            gate_activation: architecture.attention_gate,
            query_gate,
            sub_norm: loader.norm(&name("attn_sub_norm"), heads * value_length)?,
            output,
            geometry: Geometry {
                heads,
                kv_heads,
                key_length,
                value_length,
                mask: layer.mask,
                scale,
                softcap: parameters.attention_softcap,
                sinks: loader.vector(&name("attn_sinks.weight"), heads)?,
                bias: bias.cloned(),
            },
            rope,
            clamp: parameters.clamp,
            temperature: match architecture.temperature {
                Some(_) if rope.is_some() => None,
                _ => parameters.temperature,
            },
            value_scale: parameters.value_scale,
            indexer,
        }))
    }

    /// The block's output for normalised inputs.
    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        input: &Activations,
        caches: &mut [HeadCache],
        indexes: &mut [IndexCache],
    ) -> Vec<f32> {
        let (heads, kv_heads) = (self.geometry.heads, self.geometry.kv_heads);
        let (key_length, value_length) = (self.geometry.key_length, self.geometry.value_length);
        let (q_rows, k_rows, v_rows) = (
            heads * key_length,
            kv_heads * key_length,
            kv_heads * value_length,
        );
        let columns = |values, stride, offset| Columns {
            values,
            stride,
            offset,
        };
        let (mut products, mut keys, mut values) = match &self.projections {
            Projections::Fused(qkv) => (pass.multiply(qkv, input), None, None),
            Projections::Separate { q, k, v } => {
                let linears = [Some(q), k.as_ref(), v.as_ref()];
                let mut outs = pass
                    .multiply_all(linears.into_iter().flatten(), input)
                    .into_iter();
                let products = outs.next().unwrap_or_default();
                let keys = k.as_ref().and_then(|_| outs.next());
                (products, keys, v.as_ref().and_then(|_| outs.next()))
            }
        };
        let fused = matches!(self.projections, Projections::Fused(_));
        let stride = products.len() / input.tokens();
        let all = [Some(&mut products), keys.as_mut(), values.as_mut()];
        for product in all.into_iter().flatten().filter(|_| self.clamp > 0.0) {
            let limit = self.clamp;
            let width = product.len() / input.tokens();
            pass.each_row(product, width, |_, row| {
                row.iter_mut().for_each(|x| *x = x.clamp(-limit, limit));
            });
        }
        let q = columns(&products, stride, 0);
        let k = match (&keys, fused) {
            (_, true) => Some(columns(&products, stride, q_rows)),
            (Some(keys), _) => Some(columns(keys, k_rows, 0)),
            (None, _) => None,
        };
        let v = match (&values, fused) {
            (_, true) => Some(columns(&products, stride, q_rows + k_rows)),
            (Some(values), _) => Some(columns(values, v_rows, 0)),
            (None, _) => k,
        };
        let queries = self.queries(pass, q);
        if let (Some(k), Some(v)) = (k, v) {
            self.geometry
                .store(pass, caches, |token, head, position, cache| {
                    let mut key = k.get(token, head * key_length, key_length).to_vec();
                    if let Some(HeadNorm::Whole(norm)) = &self.k_norm {
                        let mut all = k.get(token, 0, k_rows).to_vec();
                        norm.apply(&mut all);
                        key.copy_from_slice(&all[head * key_length..][..key_length]);
                    }
                    self.finish_head(pass, self.k_norm.as_ref(), token, head, &mut key);
                    cache.write_key(position, &key);
                    let value = v.get(token, head * value_length, value_length);
                    match &self.v_norm {
                        None => cache.write_value(position, value),
                        Some(norm) => {
                            let mut value = value.to_vec();
                            norm.apply(&mut value);
                            cache.write_value(position, &value);
                        }
                    }
                });
        }
        let selection = match &self.indexer {
            Some(indexer) => indexer.choose(pass, input, input, indexes),
            None => None,
        };
        let mut mixed = self
            .geometry
            .attend(pass, caches, &queries, selection.as_ref());
        pass.scratch.give(queries);
        // Weights add up to one, so that what scales values scales their mixture.
        ops::multiply(&mut mixed, self.value_scale);
        if self.query_gate {
            pass.each_row(&mut mixed, heads * value_length, |token, row| {
                for (head, out) in row.chunks_exact_mut(value_length).enumerate() {
                    let gate = q.get(token, (2 * head + 1) * key_length, value_length);
                    for (out, &gate) in out.iter_mut().zip(gate) {
                        *out *= ops::sigmoid(gate);
                    }
                }
            });
        }
        pass.scratch.give(products);
        for product in [keys, values].into_iter().flatten() {
            pass.scratch.give(product);
        }
        if let Some(gate) = &self.gate {
            let mut gates = pass.multiply(gate, input);
            let count = gate.weight.rows();
            pass.each_row(&mut gates, count, |_, row| match self.gate_activation {
                GateActivation::Sigmoid => row.iter_mut().for_each(|g| *g = ops::sigmoid(*g)),
                GateActivation::Softplus => row.iter_mut().for_each(|g| *g = ops::softplus(*g)),
            });
            pass.each_row(&mut mixed, heads * value_length, |token, row| {
                let gates = &gates[token * count..][..count];
                let parts = row.chunks_exact_mut(heads * value_length / count);
                for (part, &gate) in parts.zip(gates) {
                    ops::multiply(part, gate);
                }
            });
            pass.scratch.give(gates);
        }
        pass.normalise(self.sub_norm.as_ref(), &mut mixed, heads * value_length);
        let mixed = Activations::new(input.tokens(), heads * value_length, mixed);
        let out = pass.multiply(&self.output, &mixed);
        pass.recycle(mixed);
        out
    }

    /// The block's output where keys and values are already in the caches: `keys[sequence]` of
    /// them.
    pub fn forward_cross(
        &self,
        pass: &mut Pass<'_>,
        input: &Activations,
        caches: &[HeadCache],
        keys: &[usize],
    ) -> Vec<f32> {
        let (Projections::Fused(q) | Projections::Separate { q, .. }) = &self.projections;
        let products = pass.multiply(q, input);
        let columns = Columns {
            values: &products,
            stride: products.len() / input.tokens(),
            offset: 0,
        };
        let queries = self.queries(pass, columns);
        pass.scratch.give(products);
        let mixed = self
            .geometry
            .attend_to(pass, caches, &queries, Some(keys), None);
        pass.scratch.give(queries);
        let width = self.geometry.heads * self.geometry.value_length;
        let mixed = Activations::new(input.tokens(), width, mixed);
        let out = pass.multiply(&self.output, &mixed);
        pass.recycle(mixed);
        out
    }

    /// The projections to keys and values, where they are separate.
    pub fn key_value(&self) -> Option<(&Linear, &Linear)> {
        match &self.projections {
            Projections::Separate { k, v, .. } => k.as_ref().zip(v.as_ref()),
            Projections::Fused(_) => None,
        }
    }

    /// Length of an index key, where keys are chosen.
    pub fn index_length(&self) -> Option<usize> {
        self.indexer.as_ref().map(Indexer::length)
    }

    /// What happens to scores, and its sizes.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// KV heads, key length and value length.
    pub fn cache_shape(&self) -> (usize, usize, usize) {
        let g = &self.geometry;
        (g.kv_heads, g.key_length, g.value_length)
    }

    /// Normalised, rotated and scaled queries: token × head × key length.
    fn queries(&self, pass: &mut Pass<'_>, q: Columns<'_>) -> Vec<f32> {
        let (heads, length) = (self.geometry.heads, self.geometry.key_length);
        let step = if self.query_gate { 2 * length } else { length };
        let mut queries = pass.scratch.take(pass.tokens() * heads * length);
        pass.each_row(&mut queries, heads * length, |token, row| {
            for (head, out) in row.chunks_exact_mut(length).enumerate() {
                out.copy_from_slice(q.get(token, head * step, length));
            }
            if let Some(HeadNorm::Whole(norm)) = &self.q_norm {
                norm.apply(row);
            }
            for (head, out) in row.chunks_exact_mut(length).enumerate() {
                self.finish_head(pass, self.q_norm.as_ref(), token, head, out);
            }
            if let Some((floor, factor)) = self.temperature {
                // Llama 4 counts positions from one, Mistral from zero.
                let offset = usize::from(self.rope.is_none());
                let steps = ((pass.positions[token] + offset) as f32 / floor).floor();
                ops::multiply(row, steps.ln_1p() * factor + 1.0);
            }
        });
        queries
    }

    fn finish_head(
        &self,
        pass: &Pass<'_>,
        norm: Option<&HeadNorm>,
        token: usize,
        head: usize,
        x: &mut [f32],
    ) {
        if let (Some(norm), false) = (norm, self.norm_after_rope) {
            norm.apply(head, x);
        }
        if let Some(rope) = self.rope {
            pass.ropes[rope].apply(token, x);
        }
        if let (Some(norm), true) = (norm, self.norm_after_rope) {
            norm.apply(head, x);
        }
        if let Some(norm) = &self.plain_norm {
            norm.apply(x);
        }
    }
}
