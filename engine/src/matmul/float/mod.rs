//! Products of f32 weights and activations; the arithmetic is described in [`super`].

mod portable;

use gristmill_quantize::Isa;

/// The kernels on one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// The product of two vectors of equal length.
    pub dot: fn(&[f32], &[f32]) -> f32,
}

/// The kernels; the CPU must have the instruction set.
pub(super) fn kernels(_isa: Isa) -> Kernels {
    Kernels { dot: portable::dot }
}
