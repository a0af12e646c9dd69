//! A session: what sequences have seen, and forward passes that extend them.

use std::ops::Range;
use std::sync::Arc;

use gristmill_quantize::Isa;

use crate::attention::IndexCache;
use crate::cache::{HeadCache, KvType};
use crate::error::Error;
use crate::imatrix::Collector;
use crate::layer::Memory;
use crate::matmul::{Activations, Compute};
use crate::model::Model;
use crate::ops;
use crate::pass::{Pass, Scratch, Span};
use crate::pooling::Pooling;
use crate::rope::RopeTable;
use crate::t5::DecoderMemory;

/// How a session computes and how much it holds.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Tokens a sequence may hold.
    pub context: usize,
    /// Independent sequences.
    pub sequences: usize,
    /// Type of the KV cache; f32 in exact mode.
    pub kv_type: KvType,
    /// f32 activations on decoded weights and an f32 KV cache: the weights' effect alone.
    pub exact: bool,
    /// Whether to collect importance.
    pub collect: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            context: 512,
            sequences: 1,
            kv_type: KvType::default(),
            exact: false,
            collect: false,
        }
    }
}

/// Sequences with their past, on one model.
#[derive(Debug)]
pub struct Session<'m> {
    model: &'m Model,
    context: usize,
    compute: Compute,
    memories: Vec<Memory>,
    /// Tokens each sequence holds.
    lengths: Vec<usize>,
    decoder: DecoderMemory,
    kv_type: KvType,
    collector: Option<Collector>,
    scratch: Scratch,
}

impl<'m> Session<'m> {
    pub(crate) fn new(model: &'m Model, isa: Isa, options: &SessionOptions) -> Result<Self, Error> {
        let SessionOptions {
            context,
            sequences,
            kv_type,
            exact,
            collect,
        } = *options;
        if context == 0 || sequences == 0 {
            return Err(Error::Usage(
                "a session needs room for at least one token of one sequence".into(),
            ));
        }
        let kv_type = if exact { KvType::F32 } else { kv_type };
        let layers = model.layers.iter().enumerate();
        let memories = layers.map(|(index, layer)| Memory {
            heads: match layer.cache_shape() {
                // Made one by one: fresh zeros take no memory before they are written.
                Some((heads, key, value)) if layer.cache == index => (0..sequences * heads)
                    .map(|_| HeadCache::new(kv_type, context, key, value))
                    .collect(),
                _ => Vec::new(),
            },
            indexes: match layer.index_length() {
                Some(length) => (0..sequences)
                    .map(|_| IndexCache::new(context, length))
                    .collect(),
                None => Vec::new(),
            },
            states: match &layer.recurrent {
                Some(block) => vec![block.state(); sequences],
                None => Vec::new(),
            },
        });
        Ok(Self {
            model,
            context,
            compute: Compute::new(isa, exact, Arc::clone(&model.pool)),
            memories: memories.collect(),
            lengths: vec![0; sequences],
            decoder: match &model.t5 {
                Some(t5) => t5.memory(kv_type, context, sequences),
                None => DecoderMemory::default(),
            },
            kv_type,
            collector: collect.then(Collector::new),
            scratch: Scratch::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// Tokens that a sequence holds.
    pub fn len(&self, sequence: usize) -> usize {
        self.lengths[sequence]
    }

    /// Whether no sequence holds a token.
    pub fn is_empty(&self) -> bool {
        self.lengths.iter().all(|&n| n == 0)
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens that a sequence may hold.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Forgets what all sequences have seen.
    pub fn reset(&mut self) {
        self.lengths.fill(0);
        self.decoder.clear();
        for memory in &mut self.memories {
            memory
                .states
                .iter_mut()
                .for_each(crate::recurrent::State::clear);
        }
    }

    /// What was collected so far; nothing without [`SessionOptions::collect`].
    pub fn importance(&self) -> Option<&Collector> {
        self.collector.as_ref()
    }

    /// Goes on from what was collected before; without [`SessionOptions::collect`] it is ignored.
    pub fn set_importance(&mut self, collector: Collector) {
        if let Some(current) = &mut self.collector {
            *current = collector;
        }
    }

    /// What was collected so far, which is then forgotten; nothing without
    /// [`SessionOptions::collect`].
    pub fn take_importance(&mut self) -> Option<Collector> {
        self.collector.as_mut().map(std::mem::take)
    }

    /// Extends sequence `i` by the tokens `batch[i]` (none: left as it is) and gives the hidden
    /// states after the final norm: one vector of [`Model::width`] a token, sequence after
    /// sequence.
    ///
    /// # Errors
    /// If there are more sequences than the session has, a sequence would outgrow the context, or a
    /// token is not in the vocabulary. The session is unchanged then.
    pub fn forward(&mut self, batch: &[&[u32]]) -> Result<Vec<f32>, Error> {
        let spans = self.check(batch)?;
        let hidden = self.run(batch, spans, |session, mut pass, tokens| {
            let model = session.model;
            let width = model.width();
            let mut x = embed(model, &mut pass, tokens)?;
            if let Some(t5) = &model.t5 {
                if t5.decodes() {
                    t5.decode(&mut pass, &mut x, width, session.decoder)?;
                } else {
                    t5.encode(&mut pass, &mut x, width, session.sequences);
                }
                return Ok(x);
            }
            if let Some(per_layer) = &model.per_layer {
                per_layer.forward(model, &mut pass, tokens, &mut x, session.memories);
            } else {
                for (index, layer) in model.layers.iter().enumerate() {
                    layer.forward(&mut pass, &mut x, width, session.memories, index);
                }
            }
            pass.normalise(model.output_norm.as_ref(), &mut x, width);
            Ok(x)
        })?;
        for (length, tokens) in self.lengths.iter_mut().zip(batch) {
            *length += tokens.len();
        }
        Ok(hidden)
    }

    /// Encodes the whole input of sequence `i`, `batch[i]`, for the decoder of an encoder-decoder
    /// model, and gives the encoder's states. What sequences held before is forgotten.
    ///
    /// # Errors
    /// If the model has no encoder beside its decoder, and as [`Session::forward`].
    pub fn encode(&mut self, batch: &[&[u32]]) -> Result<Vec<f32>, Error> {
        let model = self.model;
        let Some(t5) = model.t5.as_ref().filter(|t5| t5.decodes()) else {
            let problem = format!("a {} model does not encode an input", model.architecture());
            return Err(Error::Usage(problem));
        };
        self.reset();
        let spans = self.check(batch)?;
        let kv_type = self.kv_type;
        self.run(batch, spans, |session, mut pass, tokens| {
            let (width, sequences) = (model.width(), session.sequences);
            let mut x = embed(model, &mut pass, tokens)?;
            t5.encode(&mut pass, &mut x, width, sequences);
            t5.remember(&mut pass, &x, width, session.decoder, kv_type, sequences);
            Ok(x)
        })
    }

    /// One embedding for each sequence of a batch, from its hidden states ([`Session::forward`]).
    ///
    /// # Errors
    /// If `pooling` is [`Pooling::Rank`] and the model has no classifier.
    pub fn pool(
        &self,
        batch: &[&[u32]],
        hidden: &[f32],
        pooling: Pooling,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let width = self.model.width();
        let mut rest = hidden;
        let mut pooled = Vec::new();
        for tokens in batch.iter().filter(|tokens| !tokens.is_empty()) {
            let (states, tail) = rest.split_at(tokens.len() * width);
            rest = tail;
            pooled.push(pooling.apply(self.model, &self.compute, states)?);
        }
        Ok(pooled)
    }

    fn run(
        &mut self,
        batch: &[&[u32]],
        spans: Vec<Span>,
        steps: impl FnOnce(State<'_, 'm>, Pass<'_>, &[u32]) -> Result<Vec<f32>, Error>,
    ) -> Result<Vec<f32>, Error> {
        let model = self.model;
        let tokens: Vec<u32> = batch.concat();
        if tokens.is_empty() {
            return Ok(Vec::new());
        }
        let positions: Vec<usize> = spans
            .iter()
            .flat_map(|s| s.start..s.start + s.count)
            .collect();
        let parameters = &model.parameters;
        let factors = model
            .factors
            .choose(self.context, parameters.original_context);
        let ropes = [0, 1].map(|kind| {
            let rope = &parameters.ropes[kind];
            RopeTable::new(rope, factors.filter(|_| rope.factors), &positions)
        });
        let pass = Pass {
            compute: &self.compute,
            collector: self.collector.as_mut(),
            scratch: &mut self.scratch,
            spans,
            positions,
            ropes,
            selection: None,
        };
        let state = State {
            model,
            sequences: self.lengths.len(),
            memories: &mut self.memories,
            decoder: &mut self.decoder,
        };
        steps(state, pass, &tokens)
    }

    fn check(&self, batch: &[&[u32]]) -> Result<Vec<Span>, Error> {
        if batch.len() > self.lengths.len() {
            return Err(Error::Usage(format!(
                "{} sequences in a session of {}",
                batch.len(),
                self.lengths.len()
            )));
        }
        let vocabulary = self.model.embedding.rows();
        let mut spans = Vec::new();
        let mut first = 0;
        for (sequence, tokens) in batch.iter().enumerate() {
            let (start, count) = (self.lengths[sequence], tokens.len());
            if start + count > self.context {
                return Err(Error::Context {
                    sequence,
                    needed: start + count,
                    context: self.context,
                });
            }
            if let Some(&token) = tokens.iter().find(|&&t| t as usize >= vocabulary) {
                return Err(Error::Token { token, vocabulary });
            }
            if count > 0 {
                spans.push(Span {
                    sequence,
                    first,
                    count,
                    start,
                });
            }
            first += count;
        }
        Ok(spans)
    }

    /// Prepares the logits of hidden states (one vector of [`Model::width`] each).
    ///
    /// # Panics
    /// If `hidden` is no whole number of vectors.
    pub fn head(&self, hidden: Vec<f32>) -> Head<'_> {
        let width = self.model.width();
        Head {
            model: self.model,
            compute: &self.compute,
            hidden: Activations::new(hidden.len() / width, width, hidden),
        }
    }

    /// All logits of hidden states: token × vocabulary.
    pub fn logits(&self, hidden: Vec<f32>) -> Vec<f32> {
        let head = self.head(hidden);
        let vocabulary = self.model.vocabulary();
        let mut out = vec![0.0; head.tokens() * vocabulary];
        head.logits(0..vocabulary, &mut out);
        out
    }
}

/// The parts of a session that layers change.
struct State<'s, 'm> {
    model: &'m Model,
    sequences: usize,
    memories: &'s mut [Memory],
    decoder: &'s mut DecoderMemory,
}

/// Hidden states whose logits are computed in parts of the vocabulary.
#[derive(Debug)]
pub struct Head<'s> {
    model: &'s Model,
    compute: &'s Compute,
    hidden: Activations,
}

impl Head<'_> {
    /// Number of hidden states.
    pub fn tokens(&self) -> usize {
        self.hidden.tokens()
    }

    /// Number of logits of each.
    pub fn vocabulary(&self) -> usize {
        self.model.vocabulary()
    }

    /// Logits of a part of the vocabulary: token × part.
    ///
    /// # Panics
    /// If the vocabulary has no such part or `out` has another size.
    pub fn logits(&self, part: Range<usize>, out: &mut [f32]) {
        let parameters = &self.model.parameters;
        let (head, first) = (self.model.head(), part.start);
        let count = part.len();
        self.compute.mul_rows(head, part, &self.hidden, out);
        let linear = self.model.output.as_ref();
        let bias = linear.and_then(|l| l.bias.as_ref());
        let scale = parameters.logit_scale * linear.and_then(|l| l.scale).unwrap_or(1.0);
        if count == 0 || (bias.is_none() && scale == 1.0 && parameters.logit_softcap == 0.0) {
            return;
        }
        self.compute.pool().chunks(out, count, |_, row| {
            ops::multiply(row, scale);
            if let Some(bias) = bias {
                ops::add(row, &bias[first..first + count]);
            }
            ops::softcap(row, parameters.logit_softcap);
        });
    }
}

/// Token embeddings with everything that is added and multiplied before the first layer.
fn embed(model: &Model, pass: &mut Pass<'_>, tokens: &[u32]) -> Result<Vec<f32>, Error> {
    let width = model.width();
    let mut x = pass.scratch.take(tokens.len() * width);
    pass.compute.decode(&model.embedding, tokens, &mut x);
    ops::multiply(&mut x, model.parameters.embedding_scale);
    if let Some(positions) = &model.positions {
        let ids: Vec<u32> = pass.positions.iter().map(|&p| p as u32).collect();
        if let Some(&position) = ids.iter().find(|&&p| p as usize >= positions.rows()) {
            return Err(Error::Usage(format!(
                "position {position} is beyond the model's {} learned positions",
                positions.rows()
            )));
        }
        let mut learned = pass.scratch.take(x.len());
        pass.compute.decode(positions, &ids, &mut learned);
        ops::add(&mut x, &learned);
        pass.scratch.give(learned);
    }
    for row in x.chunks_exact_mut(width) {
        if let Some(token_type) = &model.token_type {
            ops::add(row, token_type);
        }
        if let Some(norm) = &model.embedding_norm {
            norm.apply(row);
        }
    }
    Ok(x)
}
