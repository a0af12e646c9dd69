//! The architectures, a file for each family.

mod llama;

use super::Architecture;
use super::names::Part;

/// Every architecture.
pub(super) const ALL: &[&[Architecture]] = &[llama::ALL];

/// Kinds of tensors that nearly every decoder has.
const CORE: &[Part] = &[
    Part::TokenEmbd,
    Part::OutputNorm,
    Part::Output,
    Part::AttnNorm,
    Part::AttnOut,
];
/// Separate query, key and value projections.
const QKV: &[Part] = &[Part::AttnQ, Part::AttnK, Part::AttnV];
/// A gated feed-forward network.
const FFN: &[Part] = &[Part::FfnGate, Part::FfnDown, Part::FfnUp];
/// Routed experts.
const MOE: &[Part] = &[
    Part::FfnGateInp,
    Part::FfnGateExp,
    Part::FfnDownExp,
    Part::FfnUpExp,
];
