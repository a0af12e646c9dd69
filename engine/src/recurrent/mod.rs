//! Blocks with a state instead of a cache: state space models, gated delta nets, short
//! convolutions.

mod delta;
mod kimi;
mod mamba;
mod short_conv;

use crate::error::Error;
use crate::matmul::Activations;
use crate::parameters::Parameters;
use crate::pass::Pass;
use crate::weights::Loader;

/// What a sequence keeps of its past in one layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    /// The last inputs of the convolution: tap × channel, the oldest first.
    conv: Vec<f32>,
    /// The recurrent state.
    state: Vec<f32>,
}

impl State {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.conv.fill(0.0);
        self.state.fill(0.0);
    }
}

/// A recurrent block.
#[derive(Debug)]
pub(crate) enum Recurrent {
    Mamba1(mamba::Mamba1),
    Mamba2(mamba::Mamba2),
    Delta(delta::Delta),
    Kimi(Box<kimi::Kimi>),
    ShortConv(short_conv::ShortConv),
}

impl Recurrent {
    /// Binds the tensors of whichever block the layer has.
    pub fn load(
        loader: &Loader<'_>,
        prefix: &str,
        parameters: &Parameters,
        heads: usize,
    ) -> Result<Option<Self>, Error> {
        let has = |part: &str| loader.has(&format!("{prefix}{part}.weight"));
        Ok(if has("ssm_x") {
            Some(Self::Mamba1(mamba::Mamba1::load(
                loader, prefix, parameters,
            )?))
        } else if has("ssm_in") {
            Some(Self::Mamba2(mamba::Mamba2::load(
                loader, prefix, parameters,
            )?))
        } else if has("ssm_conv1d") {
            Some(Self::Delta(delta::Delta::load(loader, prefix, parameters)?))
        } else if has("ssm_conv1d_q") {
            let block = kimi::Kimi::load(loader, prefix, parameters, heads)?;
            Some(Self::Kimi(Box::new(block)))
        } else if has("shortconv.conv") {
            let conv = short_conv::ShortConv::load(loader, prefix, parameters)?;
            Some(Self::ShortConv(conv))
        } else {
            None
        })
    }

    /// A sequence's state before its first token.
    pub fn state(&self) -> State {
        let (conv, state) = match self {
            Self::Mamba1(block) => block.state(),
            Self::Mamba2(block) => block.state(),
            Self::Delta(block) => block.state(),
            Self::Kimi(block) => block.state(),
            Self::ShortConv(block) => (block.state(), 0),
        };
        State {
            conv: vec![0.0; conv],
            state: vec![0.0; state],
        }
    }

    /// The block's output for normalised inputs; `states` has one for each sequence.
    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        input: &Activations,
        states: &mut [State],
    ) -> Vec<f32> {
        match self {
            Self::Mamba1(block) => block.forward(pass, input, states),
            Self::Mamba2(block) => block.forward(pass, input, states),
            Self::Delta(block) => block.forward(pass, input, states),
            Self::Kimi(block) => block.forward(pass, input, states),
            Self::ShortConv(block) => block.forward(pass, input, states),
        }
    }
}

/// A causal convolution of every channel by itself.
#[derive(Debug)]
pub(crate) struct Conv {
    /// Channel × tap, the current token last.
    kernel: Vec<f32>,
    bias: Option<Vec<f32>>,
    taps: usize,
    channels: usize,
}

impl Conv {
    fn load(loader: &Loader<'_>, stem: &str, taps: usize, channels: usize) -> Result<Self, Error> {
        let name = format!("{stem}.weight");
        let kernel = loader
            .vector(&name, taps * channels)?
            .filter(|_| taps > 0)
            .ok_or_else(|| crate::weights::missing(&name))?;
        Ok(Self {
            kernel,
            bias: loader.vector(&format!("{stem}.bias"), channels)?,
            taps,
            channels,
        })
    }

    /// Values a sequence keeps.
    fn state(&self) -> usize {
        (self.taps - 1) * self.channels
    }

    /// Convolves one token's channels in place; `past` holds the inputs before it.
    fn step(&self, past: &mut [f32], x: &mut [f32]) {
        let (taps, channels) = (self.taps, self.channels);
        for (c, x) in x.iter_mut().enumerate() {
            let kernel = &self.kernel[c * taps..][..taps];
            let current = *x;
            let mut sum = kernel[taps - 1] * current;
            for tap in 0..taps - 1 {
                sum += kernel[tap] * past[tap * channels + c];
            }
            *x = sum + self.bias.as_ref().map_or(0.0, |b| b[c]);
            for tap in 1..taps - 1 {
                past[(tap - 1) * channels + c] = past[tap * channels + c];
            }
            if taps > 1 {
                past[(taps - 2) * channels + c] = current;
            }
        }
    }
}

/// Runs `step` over every sequence's tokens in order, sequences in parallel: it gets the state, the
/// token's row in the batch, the row of `out`, and `room` values that hold anything.
fn scan(
    pass: &Pass<'_>,
    states: &mut [State],
    (out, width): (&mut [f32], usize),
    room: usize,
    step: impl Fn(&mut State, usize, &mut [f32], &mut [f32]) + Sync,
) {
    let mut rest = out;
    let mut units: Vec<(&mut State, usize, &mut [f32])> = Vec::new();
    let mut states: Vec<Option<&mut State>> = states.iter_mut().map(Some).collect();
    for span in &pass.spans {
        let (part, tail) = rest.split_at_mut(span.count * width);
        rest = tail;
        if let Some(state) = states[span.sequence].take() {
            units.push((state, span.first, part));
        }
    }
    pass.pool().chunks(&mut units, 1, |_, unit| {
        let (state, first, part) = &mut unit[0];
        let mut room = vec![0f32; room];
        for (i, row) in part.chunks_exact_mut(width).enumerate() {
            step(state, *first + i, row, &mut room);
        }
    });
}
