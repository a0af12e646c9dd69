//! A layer: mixing of tokens, feed-forward, and where the norms stand.

use std::sync::Arc;

use gristmill_gguf::Metadata;

use crate::attention::{Attention, Bias, IndexCache, LatentAttention};
use crate::cache::HeadCache;
use crate::error::Error;
use crate::feed_forward::{Dense, Experts};
use crate::matmul::Activations;
use crate::ops::{self, XIelu};
use crate::parameters::{Parameters, floats, latent_attention_scale};
use crate::pass::Pass;
use crate::recurrent::{Recurrent, State};
use crate::weights::{Loader, NormWeights};

/// What a layer keeps of the past: sequence × KV head, and one state for each sequence.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub heads: Vec<HeadCache>,
    /// Index keys of sparse attention, for each sequence.
    pub indexes: Vec<IndexCache>,
    pub states: Vec<State>,
}

/// One layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub attention_norm: Option<NormWeights>,
    pub attention: Option<Attention>,
    latent: Option<LatentAttention>,
    pub recurrent: Option<Recurrent>,
    pub attention_post_norm: Option<NormWeights>,
    pub ffn_norm: Option<NormWeights>,
    pub dense: Option<Dense>,
    experts: Option<Experts>,
    /// Gemma 4: experts beside the dense block, with norms of their own.
    beside: Option<Beside>,
    pub ffn_post_norm: Option<NormWeights>,
    /// BERT: norms after the residual additions.
    after_attention: Option<NormWeights>,
    after_ffn: Option<NormWeights>,
    parallel: bool,
    residual_scale: f32,
    output_scale: f32,
    /// The layer whose cache is read.
    pub cache: usize,
    cache_shape: Option<(usize, usize, usize)>,
}

#[derive(Debug)]
struct Beside {
    dense_post: NormWeights,
    experts_pre: NormWeights,
    experts_post: NormWeights,
}

impl Layer {
    /// Binds a layer's tensors.
    pub fn load(
        loader: &Loader<'_>,
        metadata: &Metadata,
        parameters: &Parameters,
        index: usize,
        bias: Option<&Arc<Bias>>,
    ) -> Result<Self, Error> {
        let prefix = format!("blk.{index}.");
        let layer = &parameters.layers[index];
        let architecture = parameters.architecture;
        let width = parameters.width;
        let norm = |stem: &str| loader.norm(&format!("{prefix}{stem}"), width);
        let recurrent = Recurrent::load(loader, &prefix, parameters, layer.heads)?;
        let scale = latent_attention_scale(metadata, parameters)?;
        let latent = LatentAttention::load(loader, &prefix, parameters, layer, scale)?;
        let delta = matches!(recurrent, Some(Recurrent::Delta(_)));
        let attention = match latent.is_some() || delta {
            true => None,
            false => Attention::load(loader, &prefix, parameters, layer, bias)?,
        };
        let mut dense = Dense::load(loader, &prefix, "", parameters)?;
        if let Some(block) = dense {
            let xielu = xielu(metadata, index);
            let sparsity = Parameters::sparsity(metadata, architecture.name, index);
            dense = Some(block.with_xielu(xielu).with_sparsity(sparsity));
        }
        let experts = Experts::load(loader, &prefix, parameters)?;
        let parallel = parameters.parallel;
        let mut attention_norm = norm("attn_norm")?;
        let mut ffn_norm = norm(architecture.ffn_norm)?;
        if let Some(second) = norm("attn_norm_2")? {
            // Falcon 40B: the second norm is the attention's.
            ffn_norm = attention_norm.replace(second);
        }
        let post = "post_attention_norm";
        let attention_post_norm = match architecture.ffn_norm == post {
            true => None,
            false => norm(post)?,
        };
        let ffn_post_norm = norm("post_ffw_norm")?;
        let after_ffn = norm("layer_output_norm")?;
        let after_attention = match after_ffn.is_some() {
            true => norm("attn_output_norm")?,
            false => None,
        };
        let plain = parameters.norm == crate::architecture::Norm::Layer
            && !loader.has("output_norm.weight")
            && after_ffn.is_none();
        if plain {
            // OLMo: norms without weights.
            attention_norm = Some(loader.plain_norm());
            ffn_norm = Some(loader.plain_norm());
        }
        if attention.is_none() && latent.is_none() && recurrent.is_none() {
            // Layers of one block only (Nemotron-H) have one norm.
            attention_norm = None;
        }
        let beside = match (
            norm("post_ffw_norm_1")?,
            norm("pre_ffw_norm_2")?,
            norm("post_ffw_norm_2")?,
        ) {
            (Some(dense_post), Some(experts_pre), Some(experts_post)) => Some(Beside {
                dense_post,
                experts_pre,
                experts_post,
            }),
            _ => None,
        };
        let cache_shape = match (&attention, &latent) {
            (Some(_), _) => Some((layer.kv_heads, layer.key_length, layer.value_length)),
            (_, Some(latent)) => Some(latent.cache_shape()),
            _ => None,
        };
        Ok(Self {
            attention_norm,
            attention,
            latent,
            recurrent,
            attention_post_norm,
            ffn_norm,
            dense,
            experts,
            beside,
            ffn_post_norm,
            after_attention,
            after_ffn,
            parallel,
            residual_scale: parameters.residual_scale,
            output_scale: loader
                .scalar(&format!("{prefix}layer_output_scale.weight"))?
                .unwrap_or(1.0),
            cache: layer.cache,
            cache_shape,
        })
    }

    /// KV heads, key length and value length of the layer's own cache.
    pub fn cache_shape(&self) -> Option<(usize, usize, usize)> {
        self.cache_shape
    }

    /// Length of an index key, where the layer chooses keys.
    pub fn index_length(&self) -> Option<usize> {
        match (&self.attention, &self.latent) {
            (Some(block), _) => block.index_length(),
            (None, Some(block)) => block.index_length(),
            (None, None) => None,
        }
    }

    /// Mixes tokens: attention, recurrence, or both added.
    pub fn mix(
        &self,
        pass: &mut Pass<'_>,
        input: &Activations,
        memories: &mut [Memory],
        index: usize,
    ) -> Option<Vec<f32>> {
        let Memory { heads, indexes, .. } = &mut memories[self.cache];
        let mut out = match (&self.attention, &self.latent) {
            (Some(block), _) => Some(block.forward(pass, input, heads, indexes)),
            (None, Some(block)) => Some(block.forward(pass, input, heads, indexes)),
            (None, None) => None,
        };
        if let Some(block) = &self.recurrent {
            let more = block.forward(pass, input, &mut memories[index].states);
            match &mut out {
                None => out = Some(more),
                Some(out) => {
                    ops::add(out, &more);
                    pass.scratch.give(more);
                }
            }
        }
        out
    }

    /// The feed-forward part for normalised inputs; `residual` is what was normalised.
    fn feed(&self, pass: &mut Pass<'_>, input: &Activations, residual: &[f32]) -> Option<Vec<f32>> {
        let width = input.cols();
        match (&self.dense, &self.experts, &self.beside) {
            (Some(dense), Some(experts), Some(beside)) => {
                let mut out = dense.forward(pass, input);
                pass.normalise(Some(&beside.dense_post), &mut out, width);
                let mut routed = pass.scratch.take(residual.len());
                pass.each_row(&mut routed, width, |token, row| {
                    row.copy_from_slice(&residual[token * width..][..width]);
                    NormWeights {
                        weight: None,
                        ..beside.dense_post.clone()
                    }
                    .apply(row);
                    experts.scale_router_input(row);
                });
                let routed = Activations::new(input.tokens(), width, routed);
                let input = pass.normalised(Some(&beside.experts_pre), residual, width);
                let mut more = experts.forward(pass, &routed, &input);
                pass.recycle(routed);
                pass.recycle(input);
                pass.normalise(Some(&beside.experts_post), &mut more, width);
                ops::add(&mut out, &more);
                pass.scratch.give(more);
                Some(out)
            }
            (_, Some(experts), _) => Some(experts.forward(pass, input, input)),
            (Some(dense), None, _) => Some(dense.forward(pass, input)),
            (None, None, _) => None,
        }
    }

    /// Whether the layer's output is normalised already.
    pub fn ends_normalised(&self) -> bool {
        self.after_ffn.is_some()
    }

    /// Runs the layer on the residual stream.
    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        x: &mut [f32],
        width: usize,
        memories: &mut [Memory],
        index: usize,
    ) {
        self.forward_unscaled(pass, x, width, memories, index);
        self.scale_output(x);
    }

    /// The layer's scale of the whole stream (Gemma 4).
    pub fn scale_output(&self, x: &mut [f32]) {
        ops::multiply(x, self.output_scale);
    }

    /// The layer without its output scale.
    pub fn forward_unscaled(
        &self,
        pass: &mut Pass<'_>,
        x: &mut [f32],
        width: usize,
        memories: &mut [Memory],
        index: usize,
    ) {
        let input = pass.normalised(self.attention_norm.as_ref(), x, width);
        let mixed = self.mix(pass, &input, memories, index);
        if self.parallel {
            let fed = match &self.ffn_norm {
                None => self.feed(pass, &input, x),
                Some(norm) => {
                    let input = pass.normalised(Some(norm), x, width);
                    let fed = self.feed(pass, &input, x);
                    pass.recycle(input);
                    fed
                }
            };
            pass.recycle(input);
            for out in [mixed, fed].into_iter().flatten() {
                self.accumulate(pass, x, out, width);
            }
        } else {
            pass.recycle(input);
            if let Some(mut mixed) = mixed {
                pass.normalise(self.attention_post_norm.as_ref(), &mut mixed, width);
                self.accumulate(pass, x, mixed, width);
                pass.normalise(self.after_attention.as_ref(), x, width);
            }
            self.feed_forward(pass, x, width);
        }
    }

    /// The feed-forward half.
    pub fn feed_forward(&self, pass: &mut Pass<'_>, x: &mut [f32], width: usize) {
        if self.dense.is_none() && self.experts.is_none() {
            return;
        }
        let input = pass.normalised(self.ffn_norm.as_ref(), x, width);
        if let Some(mut fed) = self.feed(pass, &input, x) {
            pass.normalise(self.ffn_post_norm.as_ref(), &mut fed, width);
            self.accumulate(pass, x, fed, width);
        }
        pass.recycle(input);
        pass.normalise(self.after_ffn.as_ref(), x, width);
    }

    fn accumulate(&self, pass: &mut Pass<'_>, x: &mut [f32], out: Vec<f32>, width: usize) {
        pass.each_row(x, width, |token, row| {
            ops::add_scaled(row, &out[token * width..][..width], self.residual_scale);
        });
        pass.scratch.give(out);
    }
}

fn xielu(metadata: &Metadata, layer: usize) -> XIelu {
    let at = |key: &str| {
        let values = floats(metadata, key);
        values.and_then(|v| v.get(layer).copied()).unwrap_or(0.0)
    };
    XIelu {
        alpha_n: at("xielu.alpha_n"),
        alpha_p: at("xielu.alpha_p"),
        beta: at("xielu.beta"),
        epsilon: at("xielu.eps"),
    }
}
