//! Products of stored weights and activations.
//!
//! # What is computed
//! `out[t][r] = Σ_k weight[r][k] * activation[t][k]`, with weights exactly as their type decodes.
//!
//! *Integer products* (quantized weights, the default). Activations are rounded to 8 bits with one
//! f32 scale for every 32 values (A32): 1.3 to 2.7 times less noise than one scale for 256. The sums of a
//! block are exact integers. They are scaled and added in f32 in a fixed order: eight *strands*, the
//! one of a block being its index modulo 8, each summed in order of blocks with one fused
//! multiply-add per block (and one per minimum); the strands are added in order at the end. Every
//! kernel keeps that order, so results are bit-identical for one token or many, any number of
//! threads, and every instruction set.
//!
//! *Float products* (F32, F16, BF16 weights; every type in `exact` mode). Activations stay f32,
//! weights are decoded to f32. 32 strands, the one of a value being its index modulo 32, added in order.
//! Bit-identical for any number of tokens and threads; the portable kernel, which does without
//! fused operations, differs from the others in rounding.

mod activations;
mod codes;
mod compute;
mod float;
mod integer;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod matrix;
mod panels;
mod product;

#[cfg(test)]
mod tests;

pub use activations::Activations;
pub use compute::{Compute, ExpertTokens};
pub use matrix::{Matrix, MatrixError};

use gristmill_gguf::TensorType;

/// Rows of a panel: weights that are multiplied with many tokens together.
const PANEL_ROWS: usize = 32;

/// Sums of a panel's rows for one token.
type RowSums = [f32; PANEL_ROWS];

/// Values of a superblock.
const SUPER: usize = 256;
/// Values of a block: those that share an activation scale.
const BLOCK: usize = 32;

/// Whether matrices of this type can be multiplied.
pub fn is_supported(ty: TensorType) -> bool {
    matches!(ty, TensorType::F32 | TensorType::F16 | TensorType::BF16) || integer::has(ty)
}
