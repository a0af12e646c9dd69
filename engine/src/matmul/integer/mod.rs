//! Products of 8-bit codes; the arithmetic is described in [`super`].
//!
//! One or a few tokens: the superblocks of a row are unpacked one by one and multiplied with each
//! token ([`Kernels::row`]). More: 32 rows are unpacked and interleaved to a [`Panel`], and multiplied with
//! [`Tiles`] of tokens ([`Kernels::tile`]); lanes are rows there, so nothing is summed across lanes.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod panel;
mod portable;
mod tiles;

pub(super) use panel::Panel;
pub(super) use tiles::Tiles;

use std::ops::Range;

use gristmill_gguf::TensorType;
use gristmill_quantize::Isa;

use super::RowSums;
use super::activations::A32Token;
use super::codes::{self, Codes};

/// Sums of blocks whose indices are equal modulo this are formed apart, then added in order.
pub(super) const STRANDS: usize = 8;

/// Tokens that a row is multiplied with at a time.
pub(super) const ROW_TOKENS: usize = 4;

/// The kernels of one type on one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// The products of a stored row and at most [`ROW_TOKENS`] tokens.
    pub row: fn(&[u8], &[A32Token<'_>], &mut [f32]),
    /// The kernels for many tokens, where the instruction set has them.
    pub blocked: Option<Blocked>,
}

/// Kernels for many tokens.
#[derive(Clone, Copy)]
pub(super) struct Blocked {
    /// Unpacks at most 32 stored rows of the given length in bytes.
    pub pack: fn(&[u8], usize, &mut Panel),
    /// Adds some strands of the products of a panel and a tile of tokens to the sums of its tokens.
    pub tile: fn(&Panel, &Tiles, usize, Range<usize>, &mut [RowSums]),
}

fn of<T: Codes>(isa: Isa) -> Kernels {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::kernels::<T>(),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::kernels::<T>(),
        _ => Kernels {
            row: portable::row::<T>,
            blocked: None,
        },
    }
}

/// The kernels of a type; `None` if its products are not made of integers. The CPU must have the
/// instruction set.
pub(super) fn kernels(ty: TensorType, isa: Isa) -> Option<Kernels> {
    assert!(isa.is_available());
    Some(match ty {
        TensorType::Q4_0 => of::<codes::Q4_0>(isa),
        TensorType::Q4_1 => of::<codes::Q4_1>(isa),
        TensorType::Q5_0 => of::<codes::Q5_0>(isa),
        TensorType::Q5_1 => of::<codes::Q5_1>(isa),
        TensorType::Q8_0 => of::<codes::Q8_0>(isa),
        TensorType::Q2_K => of::<codes::Q2_K>(isa),
        TensorType::Q3_K => of::<codes::Q3_K>(isa),
        TensorType::Q4_K => of::<codes::Q4_K>(isa),
        TensorType::Q5_K => of::<codes::Q5_K>(isa),
        TensorType::Q6_K => of::<codes::Q6_K>(isa),
        TensorType::IQ1_S => of::<codes::IQ1_S>(isa),
        TensorType::IQ1_M => of::<codes::IQ1_M>(isa),
        TensorType::IQ2_XXS => of::<codes::IQ2_XXS>(isa),
        TensorType::IQ2_XS => of::<codes::IQ2_XS>(isa),
        TensorType::IQ2_S => of::<codes::IQ2_S>(isa),
        TensorType::IQ3_XXS => of::<codes::IQ3_XXS>(isa),
        TensorType::IQ3_S => of::<codes::IQ3_S>(isa),
        TensorType::IQ4_NL => of::<codes::IQ4_NL>(isa),
        TensorType::IQ4_XS => of::<codes::IQ4_XS>(isa),
        TensorType::MXFP4 => of::<codes::MXFP4>(isa),
        TensorType::NVFP4 => of::<codes::NVFP4>(isa),
        TensorType::TQ1_0 => of::<codes::TQ1_0>(isa),
        TensorType::TQ2_0 => of::<codes::TQ2_0>(isa),
        TensorType::Q1_0 => of::<codes::Q1_0>(isa),
        TensorType::Q2_0 => of::<codes::Q2_0>(isa),
        _ => return None,
    })
}

/// Whether a type's products are made of integers.
pub(super) fn has(ty: TensorType) -> bool {
    kernels(ty, Isa::Portable).is_some()
}
