//! Feed-forward blocks: dense and mixtures of experts.

mod dense;
mod experts;
mod routing;

pub(crate) use dense::Dense;
pub(crate) use experts::Experts;
