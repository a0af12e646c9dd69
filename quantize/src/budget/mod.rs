//! Recipes for a size: the type of each tensor chosen by what it costs and what it damages.
//!
//! The damage that a type does to a tensor is predicted as its importance-weighted squared error
//! times the tensor's sensitivity. The error is measured on sampled rows ([`ErrorTable`]); the
//! sensitivity is the KL divergence of the model with that tensor (or its group) alone quantized to
//! a probing type, over the error of that type ([`Sensitivities`]). For small errors divergence is
//! quadratic in the change of a weight and nearly additive over tensors, so that the choice is a
//! knapsack ([`solve`]).

mod errors;
mod sensitivity;
mod solve;

use bstr::BString;
use gristmill_gguf::{Metadata, TensorInfo, TensorType};

pub use errors::ErrorTable;
pub use sensitivity::{CacheError, Group, Sensitivities, groups};
pub use solve::{Choice, Solution, room, solve};

use crate::importance::Importance;
use crate::plan::{Options, PlanError, plan};
use crate::preset::Preset;
use crate::recipe::Recipe;
use crate::types::Effort;

/// The types that are considered. Legacy types with a better one of the same size are left out, as
/// are those for models trained in them.
pub const CANDIDATES: &[TensorType] = &[
    TensorType::IQ1_S,
    TensorType::IQ1_M,
    TensorType::IQ2_XXS,
    TensorType::IQ2_XS,
    TensorType::IQ2_S,
    TensorType::Q2_K,
    TensorType::IQ3_XXS,
    TensorType::IQ3_S,
    TensorType::Q3_K,
    TensorType::IQ4_XS,
    TensorType::IQ4_NL,
    TensorType::Q4_K,
    TensorType::Q5_0,
    TensorType::Q5_K,
    TensorType::Q5_1,
    TensorType::Q6_K,
    TensorType::Q8_0,
];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Bits of tensor data a weight, norms and biases included.
    BitsPerWeight(f64),
    /// Bytes of the whole file.
    Bytes(u64),
}

/// Why no recipe meets a target.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    /// No choice of types is that small or that large.
    #[error(
        "no recipe reaches {asked:.3} bits per weight: from {least:.3} to {most:.3} can be reached"
    )]
    Unreachable {
        /// What was asked for, in bits of tensor data a weight.
        asked: f64,
        /// The least that can be reached.
        least: f64,
        /// The most that can be reached.
        most: f64,
    },
    /// Nothing in the model can be quantized.
    #[error("the model has no tensor that can be quantized")]
    NothingToChoose,
    /// The model cannot be planned at all.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// The tensors that may be quantized: those to which presets give types, by index in the source.
///
/// # Errors
/// If the model cannot be planned.
pub fn quantizable(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<Vec<usize>, PlanError> {
    // The one preset that touches everything it may, in every shape.
    let options = Options {
        pure: true,
        allow_requantize: true,
        ..Options::default()
    };
    let mut found: Vec<usize> = plan(metadata, tensors, Preset::Q8_0, &options, false)?
        .tensors
        .into_iter()
        .filter(|tensor| tensor.info.ty == TensorType::Q8_0)
        .map(|tensor| tensor.source)
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The types that a tensor can be given: its rows fit, and there is importance where it is needed.
fn candidates(info: &TensorInfo, importance: Option<&Importance>) -> Vec<TensorType> {
    use TensorType as T;
    let weighted = importance.is_some_and(|matrix| matrix.fitting(info).is_some());
    CANDIDATES
        .iter()
        .copied()
        .filter(|ty| ty.row_bytes(info.row_len()).is_some())
        .filter(|ty| {
            let low = matches!(
                ty,
                T::IQ1_S | T::IQ1_M | T::IQ2_XXS | T::IQ2_XS | T::IQ2_S | T::IQ3_XXS
            );
            weighted || !low
        })
        .collect()
}

/// A recipe that gives the chosen types; the file carries the number of the preset that is named
/// after the type with the most bytes.
pub fn recipe(
    tensors: &[TensorInfo],
    solution: &Solution,
    effort: Effort,
    options: &Options,
) -> Recipe {
    let bytes = |ty: TensorType| -> u64 {
        let chosen = solution.types.iter().filter(|choice| choice.ty == ty);
        chosen.map(|choice| choice.bytes).sum()
    };
    let most = CANDIDATES.iter().copied().max_by_key(|&ty| bytes(ty));
    let preset = Preset::all()
        .filter(|preset| preset.default_type() == most && most.is_some())
        .max_by_key(|preset| preset.name().ends_with("_M"))
        .unwrap_or(Preset::Q8_0);
    let exact = solution.types.iter();
    let exact = exact.map(|choice| (tensors[choice.tensor].name.clone(), choice.ty));
    Recipe {
        preset,
        options: Options {
            exact: exact.collect::<Vec<(BString, TensorType)>>(),
            ..options.clone()
        },
        effort,
    }
}
