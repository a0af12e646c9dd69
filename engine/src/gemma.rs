//! Gemma 3n and 4: an embedding for every layer; Gemma 3n's alternating updates of four streams
//! (AltUp, arXiv 2301.13310) and low-rank residuals (Laurel, arXiv 2411.07501).

use gristmill_gguf::Metadata;

use crate::architecture::Activation;
use crate::error::Error;
use crate::layer::{Layer, Memory};
use crate::matmul::{Activations, Matrix};
use crate::model::Model;
use crate::ops::{self, XIelu};
use crate::parameters::{Keys, Parameters};
use crate::pass::Pass;
use crate::weights::{Linear, Loader, NormWeights, Stack, missing};

/// What feeds every layer its own embedding of the token.
#[derive(Debug)]
pub(crate) struct PerLayer {
    embedding: Matrix,
    projection: Linear,
    norm: NormWeights,
    layers: Vec<Gate>,
    /// Length of a layer's embedding.
    length: usize,
    altup: Option<AltUp>,
}

/// Adds a layer's embedding to the stream.
#[derive(Debug)]
struct Gate {
    gate: Linear,
    projection: Linear,
    norm: NormWeights,
}

#[derive(Debug)]
struct AltUp {
    streams: usize,
    active: usize,
    spread: Stack,
    gather: Stack,
    layers: Vec<AltUpLayer>,
}

#[derive(Debug)]
struct AltUpLayer {
    router: Linear,
    router_norm: NormWeights,
    predict: Linear,
    correct: Linear,
    correct_scale: Vec<f32>,
    laurel_in: Linear,
    laurel_out: Linear,
    laurel_norm: NormWeights,
}

impl PerLayer {
    /// Binds the tensors, if the file has them.
    pub fn load(
        loader: &Loader<'_>,
        metadata: &Metadata,
        parameters: &Parameters,
    ) -> Result<Option<Self>, Error> {
        let keys = Keys::new(metadata, parameters.architecture.name);
        let length = keys.count("embedding_length_per_layer_input")?.unwrap_or(0);
        if length == 0 || !loader.has("per_layer_token_embd.weight") {
            return Ok(None);
        }
        let width = parameters.width;
        let count = parameters.layers.len();
        let norm = |stem: &str, len| {
            let norm = loader.norm(stem, len)?;
            norm.ok_or_else(|| missing(&format!("{stem}.weight")))
        };
        let gate = |il: usize| -> Result<Gate, Error> {
            Ok(Gate {
                gate: loader.product(&format!("blk.{il}.inp_gate"), width, length)?,
                projection: loader.product(&format!("blk.{il}.proj"), length, width)?,
                norm: norm(&format!("blk.{il}.post_norm"), width)?,
            })
        };
        Ok(Some(Self {
            embedding: loader.table("per_layer_token_embd.weight", length * count)?,
            projection: loader.product("per_layer_model_proj", width, length * count)?,
            norm: norm("per_layer_proj_norm", length)?,
            layers: (0..count).map(gate).collect::<Result<_, _>>()?,
            length,
            altup: AltUp::load(loader, &keys, width, count)?,
        }))
    }

    /// Runs all layers.
    pub fn forward(
        &self,
        model: &Model,
        pass: &mut Pass<'_>,
        tokens: &[u32],
        x: &mut [f32],
        memories: &mut [Memory],
    ) {
        let inputs = self.inputs(pass, tokens, x, model.width());
        match &self.altup {
            Some(altup) => altup.forward(self, model, pass, &inputs, x, memories),
            None => {
                for (index, layer) in model.layers.iter().enumerate() {
                    layer.forward_unscaled(pass, x, model.width(), memories, index);
                    let added = self.gated(pass, index, &inputs, x, model.width());
                    ops::add(x, &added);
                    pass.scratch.give(added);
                    layer.scale_output(x);
                }
            }
        }
        pass.scratch.give(inputs);
    }

    /// Embeddings of all layers: token × layer × length.
    fn inputs(&self, pass: &mut Pass<'_>, tokens: &[u32], x: &[f32], width: usize) -> Vec<f32> {
        let input = pass.normalised(None, x, width);
        let mut projected = pass.multiply(&self.projection, &input);
        pass.recycle(input);
        let mut own = pass.scratch.take(projected.len());
        pass.compute.decode(&self.embedding, tokens, &mut own);
        let embedding_scale = (self.length as f32).sqrt();
        let projection_scale = 1.0 / (width as f32).sqrt();
        pass.each_row(&mut projected, self.length, |at, row| {
            ops::multiply(row, projection_scale);
            self.norm.apply(row);
            ops::add_scaled(
                row,
                &own[at * self.length..][..self.length],
                embedding_scale,
            );
            ops::multiply(row, std::f32::consts::FRAC_1_SQRT_2);
        });
        pass.scratch.give(own);
        projected
    }

    /// What the layer's embedding adds to a stream.
    fn gated(
        &self,
        pass: &mut Pass<'_>,
        layer: usize,
        inputs: &[f32],
        x: &[f32],
        width: usize,
    ) -> Vec<f32> {
        let Gate {
            gate,
            projection,
            norm,
        } = &self.layers[layer];
        let input = pass.normalised(None, x, width);
        let mut gates = pass.multiply(gate, &input);
        pass.recycle(input);
        let (length, count) = (self.length, self.layers.len());
        let isa = pass.compute.isa();
        pass.each_row(&mut gates, length, |token, row| {
            let own = &inputs[(token * count + layer) * length..][..length];
            ops::activate(isa, Activation::GeluTanh, XIelu::default(), row, Some(own));
        });
        let gates = Activations::new(pass.tokens(), length, gates);
        let mut out = pass.multiply(projection, &gates);
        pass.recycle(gates);
        pass.normalise(Some(norm), &mut out, width);
        out
    }
}

impl AltUp {
    fn load(
        loader: &Loader<'_>,
        keys: &Keys<'_>,
        width: usize,
        layers: usize,
    ) -> Result<Option<Self>, Error> {
        let Some(streams) = keys.count("altup.num_inputs")?.filter(|&n| n > 1) else {
            return Ok(None);
        };
        let active = keys.count("altup.active_idx")?.unwrap_or(0);
        if active >= streams || streams > 16 {
            return Err(Error::Usage(format!("AltUp stream {active} of {streams}")));
        }
        let stack = |stem: &str| {
            let stack = loader.stack(stem, width, streams - 1)?;
            stack.ok_or_else(|| missing(&format!("{stem}.weight")))
        };
        let layer = |il: usize| -> Result<AltUpLayer, Error> {
            let name = |part: &str| format!("blk.{il}.{part}");
            let norm = |part: &str| {
                let norm = loader.norm(&name(part), width)?;
                norm.ok_or_else(|| missing(&name(part)))
            };
            let laurel_in = loader
                .linear(&name("laurel_l"), width)?
                .ok_or_else(|| missing(&name("laurel_l.weight")))?;
            let scale = name("altup_correct_scale.weight");
            Ok(AltUpLayer {
                router: loader.product(&name("altup_router"), width, streams)?,
                router_norm: norm("altup_router_norm")?,
                predict: loader.product(&name("altup_predict_coef"), streams, streams * streams)?,
                correct: loader.product(&name("altup_correct_coef"), streams, streams)?,
                correct_scale: loader
                    .vector(&scale, width)?
                    .ok_or_else(|| missing(&scale))?,
                laurel_out: loader.product(&name("laurel_r"), laurel_in.weight.rows(), width)?,
                laurel_norm: norm("laurel_post_norm")?,
                laurel_in,
            })
        };
        Ok(Some(Self {
            streams,
            active,
            spread: stack("altup_proj")?,
            gather: stack("altup_unembd_proj")?,
            layers: (0..layers).map(layer).collect::<Result<_, _>>()?,
        }))
    }

    fn forward(
        &self,
        per_layer: &PerLayer,
        model: &Model,
        pass: &mut Pass<'_>,
        inputs: &[f32],
        x: &mut [f32],
        memories: &mut [Memory],
    ) {
        let width = model.width();
        let mut streams = self.spread_out(pass, x, width);
        for (index, layer) in model.layers.iter().enumerate() {
            self.layer(
                per_layer,
                layer,
                pass,
                inputs,
                &mut streams,
                (index, width),
                memories,
            );
        }
        // The mean of all streams, brought back to the first one's space and size.
        let (first, others) = streams.split_at_mut(1);
        x.copy_from_slice(&first[0]);
        for (i, stream) in others.iter().enumerate() {
            let input = pass.normalised(None, stream, width);
            let mut out = pass.multiply_part(&self.gather, i, &input);
            pass.recycle(input);
            match_size(&mut out, &first[0], width);
            ops::add(x, &out);
            pass.scratch.give(out);
        }
        ops::multiply(x, 1.0 / self.streams as f32);
    }

    /// The streams of the first layer.
    fn spread_out(&self, pass: &mut Pass<'_>, x: &[f32], width: usize) -> Vec<Vec<f32>> {
        let mut streams = vec![x.to_vec()];
        let input = pass.normalised(None, x, width);
        for i in 0..self.streams - 1 {
            let mut stream = pass.multiply_part(&self.spread, i, &input);
            match_size(&mut stream, x, width);
            streams.push(stream);
        }
        pass.recycle(input);
        streams
    }

    /// Router outputs of a stream as the input of coefficient products.
    fn modalities(
        &self,
        own: &AltUpLayer,
        pass: &mut Pass<'_>,
        x: &[f32],
        width: usize,
    ) -> Activations {
        let mut input = pass.scratch.take(x.len());
        pass.each_row(&mut input, width, |token, row| {
            row.copy_from_slice(&x[token * width..][..width]);
            own.router_norm.apply(row);
            ops::multiply(row, 1.0 / width as f32);
        });
        let input = Activations::new(pass.tokens(), width, input);
        let mut routed = pass.multiply(&own.router, &input);
        pass.recycle(input);
        routed.iter_mut().for_each(|x| *x = x.tanh());
        Activations::new(pass.tokens(), self.streams, routed)
    }

    #[allow(clippy::too_many_arguments)]
    fn layer(
        &self,
        per_layer: &PerLayer,
        layer: &Layer,
        pass: &mut Pass<'_>,
        inputs: &[f32],
        streams: &mut [Vec<f32>],
        (index, width): (usize, usize),
        memories: &mut [Memory],
    ) {
        let own = &self.layers[index];
        let n = self.streams;
        let modalities = self.modalities(own, pass, &streams[self.active], width);
        let coefficients = pass.multiply(&own.predict, &modalities);
        pass.recycle(modalities);
        let predictions: Vec<Vec<f32>> = (0..n)
            .map(|j| {
                let mut prediction = streams[j].clone();
                pass.each_row(&mut prediction, width, |token, row| {
                    for (i, stream) in streams.iter().enumerate() {
                        let c = coefficients[token * n * n + j * n + i];
                        ops::add_scaled(row, &stream[token * width..][..width], c);
                    }
                });
                prediction
            })
            .collect();
        pass.scratch.give(coefficients);
        let active = &predictions[self.active];

        let input = pass.normalised(layer.attention_norm.as_ref(), active, width);
        let low = pass.multiply(&own.laurel_in, &input);
        let low = Activations::new(input.tokens(), own.laurel_in.weight.rows(), low);
        let mut laurel = pass.multiply(&own.laurel_out, &low);
        pass.recycle(low);
        pass.normalise(Some(&own.laurel_norm), &mut laurel, width);
        ops::add(&mut laurel, input.values());

        let mut x = layer.mix(pass, &input, memories, index).unwrap_or_default();
        pass.recycle(input);
        pass.normalise(layer.attention_post_norm.as_ref(), &mut x, width);
        ops::add(&mut x, active);
        ops::add(&mut x, &laurel);
        ops::multiply(&mut x, std::f32::consts::FRAC_1_SQRT_2);
        pass.scratch.give(laurel);
        layer.feed_forward(pass, &mut x, width);

        let modalities = self.modalities(own, pass, &x, width);
        let corrections = pass.multiply(&own.correct, &modalities);
        pass.recycle(modalities);
        for ((j, stream), prediction) in streams.iter_mut().enumerate().zip(&predictions) {
            pass.each_row(stream, width, |token, row| {
                let range = token * width..(token + 1) * width;
                let c = corrections[token * n + j] + 1.0;
                for (i, out) in row.iter_mut().enumerate() {
                    let at = range.start + i;
                    *out = prediction[at] + (x[at] - active[at]) * c;
                }
            });
        }
        pass.scratch.give(corrections);
        let mut first = streams[self.active].clone();
        pass.each_row(&mut first, width, |_, row| {
            for (x, s) in row.iter_mut().zip(&own.correct_scale) {
                *x *= s;
            }
        });
        let added = per_layer.gated(pass, index, inputs, &first, width);
        for stream in &mut streams[1..] {
            ops::add(stream, &added);
        }
        pass.scratch.give(added);
    }
}

/// Scales every vector of `x` to the root mean square of its counterpart.
fn match_size(x: &mut [f32], target: &[f32], width: usize) {
    for (x, target) in x.chunks_exact_mut(width).zip(target.chunks_exact(width)) {
        let mean = |v: &[f32]| ops::squares(v) / width as f64;
        let scale = (mean(target) / mean(x).max(1e-5)).sqrt();
        ops::multiply(x, scale as f32);
    }
}
