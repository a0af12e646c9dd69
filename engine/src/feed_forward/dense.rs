//! One gate, one way up, one way down.

use crate::architecture::Activation;
use crate::error::Error;
use crate::matmul::Activations;
use crate::ops::{self, XIelu};
use crate::parameters::Parameters;
use crate::pass::Pass;
use crate::weights::{Linear, Loader, NormWeights, missing};

/// Gate and up projections, the activation, the down projection.
#[derive(Debug)]
pub(crate) struct Dense {
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
    sub_norm: Option<NormWeights>,
    activation: Activation,
    xielu: XIelu,
    /// Gemma 3n: only gates above mean + this many deviations pass.
    sparsity: Option<f32>,
}

impl Dense {
    /// Binds `{prefix}ffn_gate`, `ffn_up`, `ffn_down` (with `suffix`), if the layer has them.
    pub fn load(
        loader: &Loader<'_>,
        prefix: &str,
        suffix: &str,
        parameters: &Parameters,
    ) -> Result<Option<Self>, Error> {
        let name = |part: &str| format!("{prefix}ffn_{part}{suffix}");
        let width = parameters.width;
        let Some(up) = loader.linear(&name("up"), width)? else {
            return Ok(None);
        };
        let gate = loader.linear(&name("gate"), width)?;
        let down_name = format!("{}.weight", name("down"));
        let inner = *loader
            .shape(&down_name)?
            .first()
            .ok_or_else(|| missing(&down_name))? as usize;
        match &gate {
            Some(gate) => {
                loader.check_rows(gate, inner)?;
                loader.check_rows(&up, inner)?;
            }
            // Twice as many rows: the gate comes first.
            None if up.weight.rows() == 2 * inner => {}
            None => loader.check_rows(&up, inner)?,
        }
        Ok(Some(Self {
            down: loader.product(&name("down"), inner, width)?,
            gate,
            up,
            sub_norm: loader.norm(&format!("{prefix}ffn_sub_norm"), inner)?,
            activation: parameters.architecture.activation,
            xielu: XIelu::default(),
            sparsity: None,
        }))
    }

    /// Whether the activation gates another projection.
    pub fn is_gated(&self) -> bool {
        self.gate.is_some()
    }

    /// With another activation than the architecture's.
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// With xIELU's parameters of the layer.
    pub fn with_xielu(mut self, xielu: XIelu) -> Self {
        self.xielu = xielu;
        self
    }

    /// With Gemma 3n's sparsity.
    pub fn with_sparsity(mut self, deviations: f32) -> Self {
        self.sparsity = deviations.is_finite().then_some(deviations);
        self
    }

    /// The block's output.
    pub fn forward(&self, pass: &mut Pass<'_>, input: &Activations) -> Vec<f32> {
        let inner = self.down.weight.cols();
        let fused = self.gate.is_none() && self.up.weight.rows() == 2 * inner;
        let linears = std::iter::once(&self.up).chain(&self.gate);
        let mut outs = pass.multiply_all(linears, input).into_iter();
        let up = outs.next().unwrap_or_default();
        let gate = outs.next();
        let mut hidden = gate.unwrap_or_else(|| pass.scratch.take(input.tokens() * inner));
        pass.each_row(&mut hidden, inner, |token, row| {
            let (activation, xielu) = (self.activation, self.xielu);
            let isa = pass.compute.isa();
            if fused {
                let both = &up[token * 2 * inner..][..2 * inner];
                row.copy_from_slice(&both[..inner]);
                ops::activate(isa, activation, xielu, row, Some(&both[inner..]));
                return;
            }
            let up = &up[token * inner..][..inner];
            if self.gate.is_none() {
                row.copy_from_slice(up);
                ops::activate(isa, activation, xielu, row, None);
                return;
            }
            if let Some(deviations) = self.sparsity {
                sparsify(row, deviations);
            }
            ops::activate(isa, activation, xielu, row, Some(up));
        });
        pass.scratch.give(up);
        pass.normalise(self.sub_norm.as_ref(), &mut hidden, inner);
        let hidden = Activations::new(input.tokens(), inner, hidden);
        let out = pass.multiply(&self.down, &hidden);
        pass.recycle(hidden);
        out
    }
}

/// Keeps what lies above mean + `deviations` standard deviations, as the distance to there.
fn sparsify(x: &mut [f32], deviations: f32) {
    let n = x.len().max(1) as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = x
        .iter()
        .map(|&x| (f64::from(x) - mean).powi(2))
        .sum::<f64>()
        / n;
    let cutoff = (mean + variance.sqrt() * f64::from(deviations)) as f32;
    x.iter_mut().for_each(|x| *x = (*x - cutoff).max(0.0));
}
