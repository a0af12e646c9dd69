//! One embedding from the hidden states of a text.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::matmul::{Activations, Compute};
use crate::model::Model;
use crate::ops;
use crate::weights::{Linear, Loader, NormWeights};

/// How hidden states make one embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pooling {
    /// They stay as they are.
    #[default]
    None,
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
    /// What the classifier says: one number for each label.
    Rank,
}

impl FromStr for Pooling {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "none" => Ok(Self::None),
            "mean" => Ok(Self::Mean),
            "cls" => Ok(Self::Cls),
            "last" => Ok(Self::Last),
            "rank" => Ok(Self::Rank),
            _ => Err(format!(
                "`{name}` is not one of none, mean, cls, last, rank"
            )),
        }
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Last => "last",
            Self::Rank => "rank",
        })
    }
}

/// The classifier of an encoder that ranks.
#[derive(Debug)]
pub(crate) struct Classifier {
    dense: Option<Linear>,
    norm: Option<NormWeights>,
    output: Option<Linear>,
}

impl Classifier {
    /// Binds `cls*`, if the file has them.
    pub fn load(loader: &Loader<'_>, width: usize) -> Result<Option<Self>, Error> {
        let classifier = Self {
            dense: loader.linear("cls", width)?,
            norm: loader.norm("cls.norm", width)?,
            output: loader.linear("cls.output", width)?,
        };
        let present = classifier.dense.is_some() || classifier.output.is_some();
        Ok(present.then_some(classifier))
    }

    fn apply(&self, compute: &Compute, mut x: Vec<f32>) -> Vec<f32> {
        let multiply = |linear: &Linear, x: Vec<f32>| {
            let mut out = vec![0.0; linear.weight.rows()];
            compute.mul(&linear.weight, &Activations::new(1, x.len(), x), &mut out);
            if let Some(bias) = &linear.bias {
                ops::add(&mut out, bias);
            }
            out
        };
        if let Some(dense) = &self.dense {
            x = multiply(dense, x);
            x.iter_mut().for_each(|x| *x = x.tanh());
        }
        if let Some(norm) = &self.norm {
            norm.apply(&mut x);
        }
        match &self.output {
            Some(output) => multiply(output, x),
            None => x,
        }
    }
}

impl Pooling {
    /// The embedding of one text's states.
    pub(crate) fn apply(
        self,
        model: &Model,
        compute: &Compute,
        states: &[f32],
    ) -> Result<Vec<f32>, Error> {
        let width = model.width();
        let first = || states[..width].to_vec();
        let last = || states[states.len() - width..].to_vec();
        Ok(match self {
            Self::None => states.to_vec(),
            Self::Cls => first(),
            Self::Last => last(),
            Self::Mean => {
                let mut sum = vec![0f64; width];
                for state in states.chunks_exact(width) {
                    for (sum, &x) in sum.iter_mut().zip(state) {
                        *sum += f64::from(x);
                    }
                }
                let count = (states.len() / width) as f64;
                sum.iter().map(|s| (s / count) as f32).collect()
            }
            Self::Rank => {
                let classifier = model.classifier.as_ref().ok_or_else(|| {
                    Error::Usage("pooling `rank` needs a classifier, the model has none".into())
                })?;
                // Encoders classify by their first token, decoders by their last.
                let causal = model.parameters.layers.iter().all(|l| l.mask.is_causal());
                let mut labels = classifier.apply(compute, if causal { last() } else { first() });
                if causal {
                    ops::softmax(&mut labels);
                }
                labels
            }
        })
    }
}
