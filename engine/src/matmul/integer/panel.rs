//! Weights of 32 rows, interleaved for the panel kernels.

use super::super::codes::{Minima, Scales, Shape};
use bytemuck::{Pod, Zeroable};

/// A cache line of codes: four of each of 16 rows.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct CodeLine(pub [u8; 64]);

/// A cache line of scales, of 16 rows.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct FloatLine(pub [f32; 16]);

/// The codes and scales of 32 rows, strand by strand: a buffer that panels are packed to in turn.
#[derive(Debug, Default)]
pub(in super::super) struct Panel {
    pub(super) supers: usize,
    /// For each block 8 groups of four values; of each the lower and the upper 16 rows.
    pub(super) codes: Vec<[CodeLine; 16]>,
    /// For each block one scale ([`Scales::Halves`]: two); of each the lower and the upper 16 rows.
    pub(super) scales: Vec<[FloatLine; 2]>,
    /// For each block no minimum, one, or two.
    pub(super) minima: Vec<[FloatLine; 2]>,
}

/// Scales of a panel's block.
pub(super) const fn scales<S: Shape>() -> usize {
    match S::SCALES {
        Scales::Blocks | Scales::Folded => 1,
        Scales::Halves => 2,
    }
}

/// Minima of a panel's block.
pub(super) const fn minima<S: Shape>() -> usize {
    match S::MINIMA {
        Minima::None => 0,
        Minima::Blocks => 1,
        Minima::Halves => 2,
    }
}

impl Panel {
    /// Makes the buffer hold rows of `supers` superblocks with scales of shape `S`.
    pub(super) fn resize<S: Shape>(&mut self, supers: usize) {
        let line = FloatLine([0.0; 16]);
        let blocks = supers * 8;
        self.supers = supers;
        self.codes.resize(blocks, [CodeLine([0; 64]); 16]);
        self.scales.resize(blocks * scales::<S>(), [line; 2]);
        self.minima.resize(blocks * minima::<S>(), [line; 2]);
    }
}
