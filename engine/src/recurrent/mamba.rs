//! Mamba (arXiv 2312.00752) and Mamba 2 (arXiv 2405.21060).

use crate::error::Error;
use crate::matmul::Activations;
use crate::ops;
use crate::parameters::Parameters;
use crate::pass::Pass;
use crate::weights::{Linear, Loader, NormWeights, missing};

use super::{Conv, State, scan};

fn need(loader: &Loader<'_>, name: &str, len: usize) -> Result<Vec<f32>, Error> {
    loader.vector(name, len)?.ok_or_else(|| missing(name))
}

/// The first Mamba: a decay for every channel and state.
#[derive(Debug)]
pub(crate) struct Mamba1 {
    input: Linear,
    conv: Conv,
    /// Gives the step's low-rank form, B and C.
    select: Linear,
    step: Linear,
    norms: [Option<NormWeights>; 3],
    /// Channel × state, negative.
    decay: Vec<f32>,
    skip: Vec<f32>,
    output: Linear,
    inner: usize,
    states: usize,
    rank: usize,
}

impl Mamba1 {
    pub fn load(loader: &Loader<'_>, prefix: &str, parameters: &Parameters) -> Result<Self, Error> {
        let name = |part: &str| format!("{prefix}ssm_{part}");
        let width = parameters.width;
        let r = &parameters.recurrence;
        let (inner, states, rank) = (r.inner, r.state, r.rank);
        let plain = r.dt_b_c_rms.then(|| loader.plain_norm());
        let norm = |part: &str, len| -> Result<Option<NormWeights>, Error> {
            Ok(loader.norm(&name(part), len)?.or_else(|| plain.clone()))
        };
        Ok(Self {
            input: loader.product(&name("in"), width, 2 * inner)?,
            conv: Conv::load(loader, &name("conv1d"), r.conv, inner)?,
            select: loader.product(&name("x"), inner, rank + 2 * states)?,
            step: loader.product(&name("dt"), rank, inner)?,
            norms: [
                norm("dt_norm", rank)?,
                norm("b_norm", states)?,
                norm("c_norm", states)?,
            ],
            decay: need(loader, &name("a"), inner * states)?,
            skip: need(loader, &name("d"), inner)?,
            output: loader.product(&name("out"), inner, width)?,
            inner,
            states,
            rank,
        })
    }

    pub fn state(&self) -> (usize, usize) {
        (self.conv.state(), self.inner * self.states)
    }

    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        input: &Activations,
        states: &mut [State],
    ) -> Vec<f32> {
        let (tokens, inner, n, rank) = (input.tokens(), self.inner, self.states, self.rank);
        let both = pass.multiply(&self.input, input);
        let mut x = pass.scratch.take(tokens * inner);
        scan(pass, states, (&mut x, inner), 0, |state, token, row, _| {
            row.copy_from_slice(&both[token * 2 * inner..][..inner]);
            self.conv.step(&mut state.conv, row);
            row.iter_mut().for_each(|x| *x = ops::silu(*x));
        });
        let x = Activations::new(tokens, inner, x);
        let mut selected = pass.multiply(&self.select, &x);
        let width = rank + 2 * n;
        pass.each_row(&mut selected, width, |_, row| {
            let (dt, bc) = row.split_at_mut(rank);
            let (b, c) = bc.split_at_mut(n);
            for (norm, part) in self.norms.iter().zip([dt, b, c]) {
                if let Some(norm) = norm {
                    norm.apply(part);
                }
            }
        });
        let mut low = pass.scratch.take(tokens * rank);
        for (low, row) in low.chunks_exact_mut(rank).zip(selected.chunks_exact(width)) {
            low.copy_from_slice(&row[..rank]);
        }
        let low = Activations::new(tokens, rank, low);
        let steps = pass.multiply(&self.step, &low);
        pass.recycle(low);
        let mut y = pass.scratch.take(tokens * inner);
        scan(pass, states, (&mut y, inner), 0, |state, token, row, _| {
            let bc = &selected[token * width + rank..][..2 * n];
            let (b, c) = bc.split_at(n);
            let z = &both[token * 2 * inner + inner..][..inner];
            for (channel, y) in row.iter_mut().enumerate() {
                let input = x.token(token)[channel];
                let dt = ops::softplus(steps[token * inner + channel]);
                let decay = &self.decay[channel * n..][..n];
                let state = &mut state.state[channel * n..][..n];
                let mut sum = 0f32;
                for (((s, &a), &b), &c) in state.iter_mut().zip(decay).zip(b).zip(c) {
                    *s = ops::exp(dt * a) * *s + dt * input * b;
                    sum += *s * c;
                }
                *y = (sum + self.skip[channel] * input) * ops::silu(z[channel]);
            }
        });
        for used in [both, selected, steps] {
            pass.scratch.give(used);
        }
        pass.recycle(x);
        let y = Activations::new(tokens, inner, y);
        let out = pass.multiply(&self.output, &y);
        pass.recycle(y);
        out
    }
}

/// Mamba 2: a decay for every head.
#[derive(Debug)]
pub(crate) struct Mamba2 {
    /// Gives the gate, the convolution's channels (x, B, C) and the steps.
    input: Linear,
    conv: Conv,
    step_bias: Vec<f32>,
    least_step: f32,
    decay: Vec<f32>,
    skip: Vec<f32>,
    /// Over each group after gating.
    norm: Option<NormWeights>,
    output: Linear,
    inner: usize,
    states: usize,
    groups: usize,
    heads: usize,
}

impl Mamba2 {
    pub fn load(loader: &Loader<'_>, prefix: &str, parameters: &Parameters) -> Result<Self, Error> {
        let name = |part: &str| format!("{prefix}ssm_{part}");
        let width = parameters.width;
        let r = &parameters.recurrence;
        let (inner, states, groups, heads) = (r.inner, r.state, r.groups, r.rank);
        let whole = heads > 0
            && inner.is_multiple_of(heads)
            && heads.is_multiple_of(groups)
            && inner.is_multiple_of(groups);
        if !whole {
            return Err(Error::Key {
                key: format!("{}.ssm.time_step_rank", parameters.architecture.name),
                problem: format!("{heads} heads in {groups} groups of {inner} channels"),
            });
        }
        let channels = inner + 2 * groups * states;
        Ok(Self {
            input: loader.product(&name("in"), width, inner + channels + heads)?,
            conv: Conv::load(loader, &name("conv1d"), r.conv, channels)?,
            step_bias: need(loader, &name("dt.bias"), heads)?,
            least_step: parameters.architecture.least_step,
            decay: need(loader, &name("a"), heads)?,
            skip: need(loader, &name("d"), heads)?,
            norm: loader.norm(&name("norm"), inner)?,
            output: loader.product(&name("out"), inner, width)?,
            inner,
            states,
            groups,
            heads,
        })
    }

    pub fn state(&self) -> (usize, usize) {
        (self.conv.state(), self.inner * self.states)
    }

    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        input: &Activations,
        states: &mut [State],
    ) -> Vec<f32> {
        let (tokens, inner, n) = (input.tokens(), self.inner, self.states);
        let (channels, head) = (self.conv.channels, inner / self.heads);
        let width = inner + channels + self.heads;
        let all = pass.multiply(&self.input, input);
        let mut y = pass.scratch.take(tokens * inner);
        scan(
            pass,
            states,
            (&mut y, inner),
            channels,
            |state, token, row, mixed| {
                let (z, rest) = all[token * width..][..width].split_at(inner);
                let (own, steps) = rest.split_at(channels);
                mixed.copy_from_slice(own);
                self.conv.step(&mut state.conv, mixed);
                mixed.iter_mut().for_each(|x| *x = ops::silu(*x));
                let (x, bc) = mixed.split_at(inner);
                let (b, c) = bc.split_at(self.groups * n);
                for h in 0..self.heads {
                    let group = h / (self.heads / self.groups) * n;
                    let (b, c) = (&b[group..][..n], &c[group..][..n]);
                    let dt = ops::softplus(steps[h] + self.step_bias[h]).max(self.least_step);
                    let decay = (dt * self.decay[h]).exp();
                    for i in h * head..(h + 1) * head {
                        let state = &mut state.state[i * n..][..n];
                        let scaled = dt * x[i];
                        let mut sum = 0f32;
                        for ((s, &b), &c) in state.iter_mut().zip(b).zip(c) {
                            *s = decay * *s + scaled * b;
                            sum += *s * c;
                        }
                        row[i] = (sum + self.skip[h] * x[i]) * ops::silu(z[i]);
                    }
                }
                if let Some(norm) = &self.norm {
                    let group = inner / self.groups;
                    for (g, part) in row.chunks_exact_mut(group).enumerate() {
                        norm.apply_at(part, g * group);
                    }
                }
            },
        );
        pass.scratch.give(all);
        let y = Activations::new(tokens, inner, y);
        let out = pass.multiply(&self.output, &y);
        pass.recycle(y);
        out
    }
}
