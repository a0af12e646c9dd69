//! Why a job cannot be planned or carried out.

use std::path::PathBuf;

use bstr::BString;
use gristmill_gguf::{ReadError, TensorType};

use crate::importance::Misfit;
use crate::plan::PlanError;
use crate::types;

/// Why a job cannot be planned or carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The choice of types failed.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The importance matrix cannot be used.
    #[error(transparent)]
    Importance(#[from] Misfit),
    /// A type is useless without importance and there is none.
    #[error("{tensor}: {ty} needs an importance matrix{}", if *.given { ", and the one given has no entry for this tensor" } else { "" })]
    ImportanceMissing {
        /// The first such tensor.
        tensor: BString,
        /// Its type.
        ty: TensorType,
        /// Whether an importance matrix was given.
        given: bool,
    },
    /// Two outputs of one job under the same name.
    #[error("two outputs would be written to {}", .0.display())]
    SamePath(PathBuf),
    /// A part that the split set does not have.
    #[error("part {} of {count} was asked for, but the output has {found} parts", no + 1)]
    NoSuchPart {
        /// The part, from 0.
        no: u64,
        /// Parts there should be.
        count: u64,
        /// Parts there are.
        found: u64,
    },
    /// The output cannot be laid out or written.
    #[error(transparent)]
    Output(#[from] gristmill_gguf::Error),
    /// Not enough room.
    #[error("{}: {needed} bytes are needed, {available} are free", folder.display())]
    Space {
        /// The folder of the outputs.
        folder: PathBuf,
        /// Bytes still to be written there.
        needed: u64,
        /// Bytes free.
        available: u64,
    },
    /// The source cannot be read.
    #[error("{tensor}: {error}")]
    Source {
        /// The tensor.
        tensor: BString,
        /// Why.
        error: ReadError,
    },
    /// A weight that is not finite.
    #[error("{tensor}: the weight in row {row}, column {column} is {value}")]
    NotFinite {
        /// The tensor.
        tensor: BString,
        /// The row, from 0.
        row: u64,
        /// The column, from 0.
        column: u64,
        /// Not a number, or infinite.
        value: f32,
    },
    /// Blocks of the source that no encoder writes.
    #[error("{tensor}: row {row}: {error}")]
    Invalid {
        /// The tensor.
        tensor: BString,
        /// The row, from 0.
        row: u64,
        /// What is wrong.
        error: types::Error,
    },
    /// Weights too large for the type.
    #[error("{tensor}: row {row}: the weights are too large for {ty}")]
    Overflow {
        /// The tensor.
        tensor: BString,
        /// The row, from 0.
        row: u64,
        /// The type.
        ty: TensorType,
    },
    /// A type cannot be decoded or encoded.
    #[error("{tensor}: {error}")]
    Codec {
        /// The tensor.
        tensor: BString,
        /// Why.
        error: types::Error,
    },
    /// The job was cancelled; what is done is kept for the next run.
    #[error("interrupted")]
    Cancelled,
}

impl JobError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::ImportanceMissing { given: false, .. } => {
                "make one with `grist imatrix MODEL -f TEXT` and give it with --imatrix".into()
            }
            Self::ImportanceMissing {
                given: true,
                tensor,
                ..
            } => format!(
                "measure with a text that reaches it, or give the tensor another type with \
                 --tensor-type '{tensor}=Q4_K'"
            ),
            Self::Importance(Misfit::AllZero { tensor, .. }) => {
                format!("measure again, or leave the entry out with --exclude-weights {tensor}")
            }
            Self::Importance(_) => "measure again with `grist imatrix MODEL -f TEXT`".into(),
            Self::Plan(PlanError::Requantize { .. }) => {
                "quantize from the unquantized model, or pass --allow-requantize".into()
            }
            Self::Plan(PlanError::FallbackRefused { .. }) => {
                "choose another preset, or leave --no-fallback out".into()
            }
            Self::Plan(PlanError::NoFallback { .. }) => {
                "choose another preset, or other types with --tensor-type PATTERN=TYPE".into()
            }
            Self::SamePath(_) => "give the outputs different names".into(),
            Self::Space { .. } => "free some space, or write to another disk".into(),
            Self::NotFinite { .. } | Self::Invalid { .. } => {
                "the source is damaged: get it again, or mend the weights".into()
            }
            Self::Output(error) => return error.help().map(str::to_owned),
            _ => return None,
        })
    }

    /// Whether the environment (disk, permissions) failed rather than the input.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Space { .. } => true,
            Self::Output(error) => error.is_environment(),
            Self::Source { error, .. } => matches!(error, ReadError::Io { .. }),
            Self::Codec { error, .. } => matches!(error, types::Error::Isa(_)),
            _ => false,
        }
    }
}
