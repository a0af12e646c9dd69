//! LFM2's short convolution: `out(c · conv(b · x))`.

use crate::error::Error;
use crate::matmul::Activations;
use crate::parameters::Parameters;
use crate::pass::Pass;
use crate::weights::{Linear, Loader};

use super::{Conv, State, scan};

#[derive(Debug)]
pub(crate) struct ShortConv {
    input: Linear,
    conv: Conv,
    output: Linear,
}

impl ShortConv {
    pub fn load(loader: &Loader<'_>, prefix: &str, parameters: &Parameters) -> Result<Self, Error> {
        let width = parameters.width;
        let name = |part: &str| format!("{prefix}shortconv.{part}");
        Ok(Self {
            input: loader.product(&name("in_proj"), width, 3 * width)?,
            conv: Conv::load(loader, &name("conv"), parameters.recurrence.conv, width)?,
            output: loader.product(&name("out_proj"), width, width)?,
        })
    }

    pub fn state(&self) -> usize {
        self.conv.state()
    }

    pub fn forward(
        &self,
        pass: &mut Pass<'_>,
        input: &Activations,
        states: &mut [State],
    ) -> Vec<f32> {
        let width = self.conv.channels;
        let thirds = pass.multiply(&self.input, input);
        let mut mixed = pass.scratch.take(input.tokens() * width);
        scan(
            pass,
            states,
            (&mut mixed, width),
            0,
            |state, token, row, _| {
                let (b, rest) = thirds[token * 3 * width..][..3 * width].split_at(width);
                let (c, x) = rest.split_at(width);
                for ((row, b), x) in row.iter_mut().zip(b).zip(x) {
                    *row = b * x;
                }
                self.conv.step(&mut state.conv, row);
                for (row, c) in row.iter_mut().zip(c) {
                    *row *= c;
                }
            },
        );
        pass.scratch.give(thirds);
        let mixed = Activations::new(input.tokens(), width, mixed);
        let out = pass.multiply(&self.output, &mixed);
        pass.recycle(mixed);
        out
    }
}
