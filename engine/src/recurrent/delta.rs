//! Gated delta nets (arXiv 2412.06464), as in Qwen3-Next.

use crate::error::Error;
use crate::matmul::Activations;
use crate::ops;
use crate::parameters::Parameters;
use crate::pass::Pass;
use crate::weights::{Linear, Loader, NormWeights, missing};

use super::{Conv, State, scan};

#[derive(Debug)]
enum Controls {
    /// For every key head: the write strengths, then the decays of its value heads. Value heads of
    /// a key head lie side by side.
    Grouped(Linear),
    /// Apart, in the order of value heads. Value heads go round the key heads.
    Tiled { strength: Linear, decay: Linear },
}

#[derive(Debug)]
pub(crate) struct Delta {
    qkv: Linear,
    gate: Linear,
    controls: Controls,
    conv: Conv,
    /// By value head, negative.
    decay: Vec<f32>,
    step_bias: Vec<f32>,
    norm: NormWeights,
    output: Linear,
    key_heads: usize,
    value_heads: usize,
    key: usize,
    value: usize,
}

impl Delta {
    pub fn load(loader: &Loader<'_>, prefix: &str, parameters: &Parameters) -> Result<Self, Error> {
        let name = |part: &str| format!("{prefix}{part}");
        let width = parameters.width;
        let r = &parameters.recurrence;
        let (key_heads, value_heads, key) = (r.groups, r.rank, r.state);
        if value_heads == 0
            || !r.inner.is_multiple_of(value_heads)
            || !value_heads.is_multiple_of(key_heads)
        {
            return Err(Error::Key {
                key: format!("{}.ssm.time_step_rank", parameters.architecture.name),
                problem: format!("{value_heads} value heads for {key_heads} key heads"),
            });
        }
        let value = r.inner / value_heads;
        let channels = 2 * key_heads * key + r.inner;
        let need = |name: String, len| loader.vector(&name, len)?.ok_or_else(|| missing(&name));
        let controls = match loader.linear(&name("ssm_ba"), width)? {
            Some(both) => {
                loader.check_rows(&both, 2 * value_heads)?;
                Controls::Grouped(both)
            }
            None => Controls::Tiled {
                strength: loader.product(&name("ssm_beta"), width, value_heads)?,
                decay: loader.product(&name("ssm_alpha"), width, value_heads)?,
            },
        };
        Ok(Self {
            qkv: loader.product(&name("attn_qkv"), width, channels)?,
            gate: loader.product(&name("attn_gate"), width, r.inner)?,
            controls,
            conv: Conv::load(loader, &name("ssm_conv1d"), r.conv, channels)?,
            decay: need(name("ssm_a"), value_heads)?,
            step_bias: need(name("ssm_dt.bias"), value_heads)?,
            norm: loader
                .norm(&name("ssm_norm"), value)?
                .ok_or_else(|| missing(&name("ssm_norm.weight")))?,
            output: loader.product(&name("ssm_out"), r.inner, width)?,
            key_heads,
            value_heads,
            key,
            value,
        })
    }

    pub fn state(&self) -> (usize, usize) {
        (self.conv.state(), self.value_heads * self.key * self.value)
    }

    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        input: &Activations,
        states: &mut [State],
    ) -> Vec<f32> {
        let (tokens, key, value) = (input.tokens(), self.key, self.value);
        let inner = self.value_heads * value;
        let ratio = self.value_heads / self.key_heads;
        let qkv = pass.multiply(&self.qkv, input);
        let gate = pass.multiply(&self.gate, input);
        let (strengths, decays) = match &self.controls {
            Controls::Grouped(both) => (pass.multiply(both, input), None),
            Controls::Tiled { strength, decay } => {
                let strengths = pass.multiply(strength, input);
                (strengths, Some(pass.multiply(decay, input)))
            }
        };
        // Key head, write strength and decay of a value head.
        let control = |token: usize, head: usize| match &decays {
            None => {
                let (k, r) = (head / ratio, head % ratio);
                let at = (token * self.key_heads + k) * 2 * ratio + r;
                (k, strengths[at], strengths[at + ratio])
            }
            Some(decays) => {
                let at = token * self.value_heads + head;
                (head % self.key_heads, strengths[at], decays[at])
            }
        };
        let channels = self.conv.channels;
        let mut mixed = pass.scratch.take(tokens * inner);
        let room = channels + value;
        scan(
            pass,
            states,
            (&mut mixed, inner),
            room,
            |state, token, row, room| {
                let (x, change) = room.split_at_mut(channels);
                x.copy_from_slice(&qkv[token * channels..][..channels]);
                self.conv.step(&mut state.conv, x);
                x.iter_mut().for_each(|x| *x = ops::silu(*x));
                let (q, kv) = x.split_at_mut(self.key_heads * key);
                let (k, v) = kv.split_at_mut(self.key_heads * key);
                for head in q.chunks_exact_mut(key) {
                    unit(head, 1.0 / (key as f32).sqrt());
                }
                for head in k.chunks_exact_mut(key) {
                    unit(head, 1.0);
                }
                for (h, out) in row.chunks_exact_mut(value).enumerate() {
                    let (key_head, strength, decay) = control(token, h);
                    let strength = ops::sigmoid(strength);
                    let decay = (self.decay[h] * ops::softplus(decay + self.step_bias[h])).exp();
                    let memory = &mut state.state[h * key * value..][..key * value];
                    let (q, k) = (&q[key_head * key..][..key], &k[key_head * key..][..key]);
                    let v = &v[h * value..][..value];
                    remember(memory, [q, k], v, |_| decay, strength, (out, change));
                    self.norm.apply(out);
                    let gate = &gate[token * inner + h * value..][..value];
                    for (out, &z) in out.iter_mut().zip(gate) {
                        *out *= ops::silu(z);
                    }
                }
            },
        );
        for used in [qkv, gate, strengths] {
            pass.scratch.give(used);
        }
        let mixed = Activations::new(tokens, inner, mixed);
        let out = pass.multiply(&self.output, &mixed);
        pass.recycle(mixed);
        out
    }
}

/// The delta rule for one head: `memory` (key × value) forgets by `decay` of each channel of the
/// key, what it holds for the key `k` moves to `v` by `strength`, and `out` is what it holds for `q`.
/// `change` has the length of `v`.
pub(super) fn remember(
    memory: &mut [f32],
    [q, k]: [&[f32]; 2],
    v: &[f32],
    decay: impl Fn(usize) -> f32,
    strength: f32,
    (out, change): (&mut [f32], &mut [f32]),
) {
    let value = v.len();
    // What the decayed memory holds for this key.
    change.fill(0.0);
    for (i, (s, &k)) in memory.chunks_exact_mut(value).zip(k).enumerate() {
        let decay = decay(i);
        for (s, c) in s.iter_mut().zip(change.iter_mut()) {
            *s *= decay;
            *c += *s * k;
        }
    }
    for (c, v) in change.iter_mut().zip(v) {
        *c = strength * (v - *c);
    }
    out.fill(0.0);
    for ((s, &k), &q) in memory.chunks_exact_mut(value).zip(k).zip(q) {
        for ((s, c), out) in s.iter_mut().zip(change.iter()).zip(out.iter_mut()) {
            *s += k * c;
            *out += *s * q;
        }
    }
}

/// Scales to length `length`.
pub(super) fn unit(x: &mut [f32], length: f32) {
    let squares = ops::squares(x) as f32;
    ops::multiply(x, length / (squares + 1e-6).sqrt());
}
