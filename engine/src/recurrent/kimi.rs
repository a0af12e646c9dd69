//! Kimi delta attention (arXiv 2510.26692): a gated delta net that forgets every channel of a key
//! by itself.

use crate::error::Error;
use crate::matmul::Activations;
use crate::ops;
use crate::parameters::Parameters;
use crate::pass::Pass;
use crate::weights::{Linear, Loader, NormWeights, missing};

use super::delta::{remember, unit};
use super::{Conv, State, scan};

#[derive(Debug)]
pub(crate) struct Kimi {
    /// Queries, keys and values, each with its convolution.
    inputs: [(Linear, Conv); 3],
    /// The forgetting of each channel, and the gate of the output: one product, or two of the rank of
    /// a head.
    forget: Vec<Linear>,
    gate: Vec<Linear>,
    strength: Linear,
    /// By head: negative, or positive where forgetting has a bound.
    decay: Vec<f32>,
    /// The logarithm of the most that is forgotten at once.
    bound: Option<f32>,
    /// By channel.
    step_bias: Vec<f32>,
    norm: NormWeights,
    output: Linear,
    heads: usize,
    head: usize,
}

impl Kimi {
    pub fn load(
        loader: &Loader<'_>,
        prefix: &str,
        parameters: &Parameters,
        heads: usize,
    ) -> Result<Self, Error> {
        let name = |part: &str| format!("{prefix}{part}");
        let (width, head) = (parameters.width, parameters.recurrence.head);
        let inner = heads * head;
        if inner == 0 {
            return Err(Error::Key {
                key: format!("{}.kda.head_dim", parameters.architecture.name),
                problem: format!("{heads} heads of {head}"),
            });
        }
        let need = |name: String, len| loader.vector(&name, len)?.ok_or_else(|| missing(&name));
        let input = |part: &str| -> Result<(Linear, Conv), Error> {
            let conv = name(&format!("ssm_conv1d_{part}"));
            Ok((
                loader.product(&name(&format!("attn_{part}")), width, inner)?,
                Conv::load(loader, &conv, parameters.recurrence.conv, inner)?,
            ))
        };
        let products = |part: &str| -> Result<Vec<Linear>, Error> {
            let [first, second] = ["a", "b"].map(|end| name(&format!("ssm_{part}_{end}")));
            if !loader.has(&format!("{second}.weight")) {
                return Ok(vec![loader.product(&first, width, inner)?]);
            }
            Ok(vec![
                loader.product(&first, width, head)?,
                loader.product(&second, head, inner)?,
            ])
        };
        Ok(Self {
            inputs: [input("q")?, input("k")?, input("v")?],
            forget: products("f")?,
            gate: products("g")?,
            strength: loader.product(&name("ssm_beta"), width, heads)?,
            decay: need(name("ssm_a"), heads)?,
            bound: parameters.recurrence.bound,
            step_bias: need(name("ssm_dt.bias"), inner)?,
            norm: loader
                .norm(&name("ssm_norm"), head)?
                .ok_or_else(|| missing(&name("ssm_norm.weight")))?,
            output: loader.product(&name("attn_output"), inner, width)?,
            heads,
            head,
        })
    }

    pub fn state(&self) -> (usize, usize) {
        let conv = self.inputs.iter().map(|(_, conv)| conv.state()).sum();
        (conv, self.heads * self.head * self.head)
    }

    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        input: &Activations,
        states: &mut [State],
    ) -> Vec<f32> {
        let (tokens, head) = (input.tokens(), self.head);
        let inner = self.heads * head;
        let linears = self.inputs.iter().map(|(linear, _)| linear);
        let products = pass.multiply_all(linears, input);
        let strengths = pass.multiply(&self.strength, input);
        let [forget, gate] = [&self.forget, &self.gate].map(|products| match &products[..] {
            [first, second] => {
                let low = Activations::new(tokens, head, pass.multiply(first, input));
                let out = pass.multiply(second, &low);
                pass.recycle(low);
                out
            }
            products => products
                .first()
                .map_or_else(Vec::new, |only| pass.multiply(only, input)),
        });
        let mut mixed = pass.scratch.take(tokens * inner);
        let room = 3 * inner + head;
        scan(
            pass,
            states,
            (&mut mixed, inner),
            room,
            |state, token, row, room| {
                let mut past = state.conv.as_mut_slice();
                let (x, change) = room.split_at_mut(3 * inner);
                for (((_, conv), product), x) in self
                    .inputs
                    .iter()
                    .zip(&products)
                    .zip(x.chunks_exact_mut(inner))
                {
                    let (own, rest) = past.split_at_mut(conv.state());
                    past = rest;
                    x.copy_from_slice(&product[token * inner..][..inner]);
                    conv.step(own, x);
                    x.iter_mut().for_each(|x| *x = ops::silu(*x));
                }
                let (q, kv) = x.split_at_mut(inner);
                let (k, v) = kv.split_at_mut(inner);
                for (h, out) in row.chunks_exact_mut(head).enumerate() {
                    let channels = h * head..(h + 1) * head;
                    let (q, k) = (&mut q[channels.clone()], &mut k[channels.clone()]);
                    unit(q, 1.0 / (head as f32).sqrt());
                    unit(k, 1.0);
                    let forget = &forget[token * inner..][channels.clone()];
                    let bias = &self.step_bias[channels.clone()];
                    let decay = |i: usize| {
                        let input = forget[i] + bias[i];
                        let logarithm = match self.bound {
                            None => self.decay[h] * ops::softplus(input),
                            Some(bound) => bound * ops::sigmoid(self.decay[h] * input),
                        };
                        logarithm.exp()
                    };
                    let strength = ops::sigmoid(strengths[token * self.heads + h]);
                    let memory = &mut state.state[h * head * head..][..head * head];
                    let v = &v[channels.clone()];
                    remember(memory, [q, k], v, decay, strength, (out, change));
                    self.norm.apply(out);
                    for (out, &gate) in out.iter_mut().zip(&gate[token * inner..][channels]) {
                        *out *= ops::sigmoid(gate);
                    }
                }
            },
        );
        for used in products.into_iter().chain([strengths, forget, gate]) {
            pass.scratch.give(used);
        }
        let mixed = Activations::new(tokens, inner, mixed);
        let out = pass.multiply(&self.output, &mixed);
        pass.recycle(mixed);
        out
    }
}
