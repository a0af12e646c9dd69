//! Encoder-decoder models (T5, arXiv 1910.10683).
//!
//! The encoder sees the whole input at once; the decoder's layers attend to themselves and to what
//! the encoder made of the input, whose keys and values are kept once for all steps.

use std::sync::Arc;

use gristmill_gguf::Metadata;

use crate::architecture::Activation;
use crate::attention::{Attention, Bias};
use crate::cache::{HeadCache, KvType};
use crate::error::Error;
use crate::feed_forward::Dense;
use crate::matmul::Activations;
use crate::ops;
use crate::parameters::{Keys, LayerParameters, Mask, Parameters};
use crate::pass::Pass;
use crate::weights::{Loader, NormWeights, missing};

/// Encoder and decoder.
#[derive(Debug)]
pub(crate) struct T5 {
    encoder: Vec<Block>,
    encoder_norm: NormWeights,
    decoder: Vec<Block>,
    decoder_norm: Option<NormWeights>,
    layer: LayerParameters,
    /// Without a head of their own, decoder states are scaled before the embedding is used as one.
    tied_scale: f32,
}

#[derive(Debug)]
struct Block {
    attention_norm: NormWeights,
    attention: Attention,
    cross: Option<(NormWeights, Attention)>,
    ffn_norm: NormWeights,
    dense: Dense,
}

/// What a session keeps for the decoder: by layer, sequence × head.
#[derive(Debug, Default)]
pub(crate) struct DecoderMemory {
    own: Vec<Vec<HeadCache>>,
    cross: Vec<Vec<HeadCache>>,
    /// Input tokens of each sequence.
    inputs: Vec<usize>,
}

impl DecoderMemory {
    /// Forgets the input.
    pub fn clear(&mut self) {
        self.cross.clear();
        self.inputs.clear();
    }
}

impl Block {
    fn load(
        loader: &Loader<'_>,
        prefix: &str,
        parameters: &Parameters,
        layer: &LayerParameters,
        bias: &Arc<Bias>,
    ) -> Result<Self, Error> {
        let norm = |part: &str| {
            let stem = format!("{prefix}{part}");
            let norm = loader.norm(&stem, parameters.width)?;
            norm.ok_or_else(|| missing(&format!("{stem}.weight")))
        };
        let attention = |part: &str, layer: &LayerParameters, bias| {
            let prefix = format!("{prefix}{part}");
            let found = Attention::load(loader, &prefix, parameters, layer, bias)?;
            found.ok_or_else(|| missing(&format!("{prefix}attn_q.weight")))
        };
        let cross = match loader.has(&format!("{prefix}cross_attn_q.weight")) {
            true => {
                let layer = LayerParameters {
                    mask: Mask::Full,
                    ..layer.clone()
                };
                Some((norm("cross_attn_norm")?, attention("cross_", &layer, None)?))
            }
            false => None,
        };
        let dense = Dense::load(loader, prefix, "", parameters)?
            .ok_or_else(|| missing(&format!("{prefix}ffn_up.weight")))?;
        Ok(Self {
            attention_norm: norm("attn_norm")?,
            attention: attention("", layer, Some(bias))?,
            cross,
            ffn_norm: norm("ffn_norm")?,
            // Without a gate it is the first T5, which had ReLU.
            dense: match dense.is_gated() {
                true => dense,
                false => dense.with_activation(Activation::Relu),
            },
        })
    }

    fn forward(
        &self,
        pass: &mut Pass<'_>,
        x: &mut [f32],
        width: usize,
        own: &mut [HeadCache],
        cross: Option<(&mut [HeadCache], &[usize])>,
    ) {
        let input = pass.normalised(Some(&self.attention_norm), x, width);
        let out = self.attention.forward(pass, &input, own, &mut []);
        pass.recycle(input);
        ops::add(x, &out);
        pass.scratch.give(out);
        if let (Some((norm, attention)), Some((caches, inputs))) = (&self.cross, cross) {
            let input = pass.normalised(Some(norm), x, width);
            let out = attention.forward_cross(pass, &input, caches, inputs);
            pass.recycle(input);
            ops::add(x, &out);
            pass.scratch.give(out);
        }
        let input = pass.normalised(Some(&self.ffn_norm), x, width);
        let out = self.dense.forward(pass, &input);
        pass.recycle(input);
        ops::add(x, &out);
        pass.scratch.give(out);
    }
}

impl T5 {
    /// Binds the tensors, if the file is of this kind.
    pub fn load(
        loader: &Loader<'_>,
        metadata: &Metadata,
        parameters: &Parameters,
    ) -> Result<Option<Self>, Error> {
        if !loader.has("enc.output_norm.weight") {
            return Ok(None);
        }
        let keys = Keys::new(metadata, parameters.architecture.name);
        let count = keys
            .count("attention.relative_buckets_count")?
            .unwrap_or(32);
        if count < 4 {
            let problem = format!("{count} buckets of relative positions are too few");
            return Err(Error::Usage(problem));
        }
        let Some(layer) = parameters.layers.first() else {
            return Ok(None);
        };
        let stack = |side: &str, blocks: usize, bidirectional: bool| {
            let table = |block: usize| -> Result<Option<Arc<Bias>>, Error> {
                let name = format!("{side}.blk.{block}.attn_rel_b.weight");
                let Some(values) = loader.vector(&name, layer.heads * count)? else {
                    return Ok(None);
                };
                // Stored bucket by bucket.
                let by_head = (0..layer.heads)
                    .flat_map(|head| (0..count).map(move |bucket| bucket * layer.heads + head))
                    .map(|at| values[at])
                    .collect();
                Ok(Some(Arc::new(Bias::Buckets {
                    values: by_head,
                    count,
                    bidirectional,
                })))
            };
            let first =
                table(0)?.ok_or_else(|| missing(&format!("{side}.blk.0.attn_rel_b.weight")))?;
            let mask = if bidirectional {
                Mask::Full
            } else {
                Mask::Causal
            };
            let layer = LayerParameters {
                mask,
                ..layer.clone()
            };
            (0..blocks)
                .map(|i| {
                    let prefix = format!("{side}.blk.{i}.");
                    // UMT5 has a table in every block, T5 one for all.
                    let own = table(i)?;
                    let bias = own.as_ref().unwrap_or(&first);
                    Block::load(loader, &prefix, parameters, &layer, bias)
                })
                .collect::<Result<Vec<_>, _>>()
        };
        let blocks = parameters.layers.len();
        let decoder = match loader.has("dec.blk.0.attn_q.weight") {
            true => {
                let blocks = keys.count("decoder_block_count")?.unwrap_or(blocks);
                stack("dec", blocks, false)?
            }
            false => Vec::new(),
        };
        let width = parameters.width;
        Ok(Some(Self {
            encoder: stack("enc", blocks, true)?,
            encoder_norm: loader
                .norm("enc.output_norm", width)?
                .ok_or_else(|| missing("enc.output_norm.weight"))?,
            decoder,
            decoder_norm: loader.norm("dec.output_norm", width)?,
            layer: layer.clone(),
            tied_scale: match loader.has("output.weight") {
                true => 1.0,
                false => 1.0 / (width as f32).sqrt(),
            },
        }))
    }

    /// Whether there is a decoder.
    pub fn decodes(&self) -> bool {
        !self.decoder.is_empty()
    }

    fn caches(&self, ty: KvType, context: usize, sequences: usize) -> Vec<HeadCache> {
        let LayerParameters {
            kv_heads,
            key_length,
            value_length,
            ..
        } = self.layer;
        (0..sequences * kv_heads)
            .map(|_| HeadCache::new(ty, context, key_length, value_length))
            .collect()
    }

    /// The decoder's empty memory.
    pub fn memory(&self, ty: KvType, context: usize, sequences: usize) -> DecoderMemory {
        DecoderMemory {
            own: (0..self.decoder.len())
                .map(|_| self.caches(ty, context, sequences))
                .collect(),
            ..DecoderMemory::default()
        }
    }

    /// Runs the encoder on whole inputs; the result is normalised.
    pub fn encode(&self, pass: &mut Pass<'_>, x: &mut [f32], width: usize, sequences: usize) {
        let longest = pass.spans.iter().map(|s| s.count).max().unwrap_or(0);
        let mut own = self.caches(KvType::F32, longest, sequences);
        for block in &self.encoder {
            block.forward(pass, x, width, &mut own, None);
        }
        pass.normalise(Some(&self.encoder_norm), x, width);
    }

    /// Keeps keys and values of encoded inputs for the decoder.
    pub fn remember(
        &self,
        pass: &mut Pass<'_>,
        encoded: &[f32],
        width: usize,
        memory: &mut DecoderMemory,
        ty: KvType,
        sequences: usize,
    ) {
        memory.inputs = vec![0; sequences];
        for span in &pass.spans {
            memory.inputs[span.sequence] = span.count;
        }
        let longest = memory.inputs.iter().copied().max().unwrap_or(0);
        memory.cross.clear();
        let input = pass.normalised(None, encoded, width);
        for block in &self.decoder {
            let mut caches = self.caches(ty, longest, sequences);
            if let Some((_, attention)) = &block.cross {
                attention.remember(pass, &input, &mut caches);
            }
            memory.cross.push(caches);
        }
        pass.recycle(input);
    }

    /// Runs the decoder; the result is normalised.
    ///
    /// # Errors
    /// If no input was encoded.
    pub fn decode(
        &self,
        pass: &mut Pass<'_>,
        x: &mut [f32],
        width: usize,
        memory: &mut DecoderMemory,
    ) -> Result<(), Error> {
        if memory.cross.is_empty() {
            return Err(Error::Usage(
                "an encoder-decoder model needs an encoded input before it decodes".into(),
            ));
        }
        let DecoderMemory { own, cross, inputs } = memory;
        for ((block, own), cross) in self.decoder.iter().zip(own).zip(cross) {
            block.forward(
                pass,
                x,
                width,
                own,
                Some((cross.as_mut_slice(), inputs.as_slice())),
            );
        }
        pass.normalise(self.decoder_norm.as_ref(), x, width);
        ops::multiply(x, self.tied_scale);
        Ok(())
    }
}

impl Attention {
    /// Stores keys and values of another model half's states.
    fn remember(&self, pass: &mut Pass<'_>, input: &Activations, caches: &mut [HeadCache]) {
        let Some((k, v)) = self.key_value() else {
            return;
        };
        let mut outs = pass.multiply_all([k, v], input).into_iter();
        let (keys, values) = (
            outs.next().unwrap_or_default(),
            outs.next().unwrap_or_default(),
        );
        let (k_rows, v_rows) = (k.weight.rows(), v.weight.rows());
        let (heads, key, value) = self.cache_shape();
        debug_assert_eq!(k_rows, heads * key);
        self.geometry()
            .store(pass, caches, |token, head, position, cache| {
                cache.write_key(position, &keys[token * k_rows + head * key..][..key]);
                cache.write_value(position, &values[token * v_rows + head * value..][..value]);
            });
        pass.scratch.give(keys);
        pass.scratch.give(values);
    }
}
