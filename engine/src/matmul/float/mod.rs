//! Products of f32 weights and activations; the arithmetic is described in [`super`].
//!
//! One or a few tokens: stored rows are multiplied with each token ([`Kernels::dot`]). More: 32 rows
//! of f32 are interleaved to a [`Panel`] and multiplied with [`Tiles`] of tokens.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod panel;
mod portable;
#[cfg(target_arch = "x86_64")]
mod vector;

pub(super) use panel::{Panel, Tiles};

use std::ops::Range;

use gristmill_quantize::Isa;

use super::RowSums;

/// Sums of values whose indices are equal modulo this are formed apart, then added in order.
pub(super) const STRANDS: usize = 32;

/// How weights of a float product are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    F32,
    F16,
    Bf16,
}

/// The kernels on one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// The product of a stored row and a token of as many values.
    pub dot: fn(Stored, &[u8], &[f32]) -> f32,
    /// The kernels for many tokens, where the instruction set has them.
    pub blocked: Option<Blocked>,
}

/// Kernels for many tokens.
#[derive(Clone, Copy)]
pub(super) struct Blocked {
    /// Interleaves at most 32 rows of the given length.
    pub pack: fn(&[f32], usize, &mut Panel),
    /// Adds some strands of the products of a panel and a tile of tokens to the sums of its tokens.
    pub tile: fn(&Panel, &Tiles, usize, Range<usize>, &mut [RowSums]),
}

/// The kernels; the CPU must have the instruction set.
pub(super) fn kernels(isa: Isa) -> Kernels {
    assert!(isa.is_available());
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::KERNELS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::KERNELS,
        _ => Kernels {
            dot: portable::dot,
            blocked: None,
        },
    }
}
