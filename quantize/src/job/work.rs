//! What is done with the rows of one tensor.

use std::borrow::Cow;
use std::sync::OnceLock;

use gristmill_gguf::{Source, TensorInfo, TensorType};

use super::JobError;
use super::chunks::TensorDigest;
use crate::importance::{Entry, Pooled, estimate, matrices};
use crate::types::{self, Effort, ImportanceUse};

/// How rows are encoded: outputs that agree share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As they are stored.
    Copy,
    Encode {
        ty: TensorType,
        effort: Effort,
        /// With importance, if there is any.
        weighted: bool,
        /// Whether values that the type cannot hold become infinite rather than an error.
        overflow: bool,
    },
}

/// One coding of a tensor and the outputs' tensors that get it.
pub(super) struct Lane {
    pub(super) coding: Coding,
    pub(super) sinks: Vec<Sink>,
}

/// A tensor of an output.
#[derive(Clone, Copy)]
pub(super) struct Sink {
    pub(super) output: usize,
    pub(super) tensor: usize,
}

/// A tensor of the source that has still to be written somewhere.
pub(super) struct Work<'a> {
    pub(super) tensor: usize,
    pub(super) info: &'a TensorInfo,
    pub(super) digest: &'a TensorDigest,
    pub(super) lanes: Vec<Lane>,
    /// The importance measured.
    pub(super) entry: Option<(&'a Entry, Pooled)>,
    /// Where `info` comes from.
    pub(super) source: &'a dyn Source,
    /// The importance estimated, once it is asked for.
    pub(super) estimate: OnceLock<Option<Vec<f32>>>,
}

/// Buffers of a thread.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) values: Vec<f32>,
    pub(super) bytes: Vec<u8>,
}

impl Work<'_> {
    fn codec(&self, error: types::Error) -> JobError {
        JobError::Codec {
            tensor: self.info.name.clone(),
            error,
        }
    }

    /// The row, within the chunk, of the block that an error is about.
    pub(super) fn row_of(&self, error: &types::Error, ty: TensorType) -> u64 {
        match error {
            types::Error::Invalid { block, .. } => {
                *block as u64 * ty.layout().values as u64 / self.info.row_len().max(1)
            }
            _ => 0,
        }
    }

    pub(super) fn decode(
        &self,
        bytes: &[u8],
        first: u64,
        values: &mut Vec<f32>,
    ) -> Result<(), JobError> {
        let layout = self.info.ty.layout();
        values.resize(bytes.len() / layout.bytes * layout.values, 0.0);
        types::decode(self.info.ty, bytes, values).map_err(|error| self.codec(error))?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let row = self.info.row_len();
                Err(JobError::NotFinite {
                    tensor: self.info.name.clone(),
                    row: first + at as u64 / row,
                    column: at as u64 % row,
                    value: values[at],
                })
            }
        }
    }

    /// Checks stored rows that are written as they are; integers are taken as they come.
    pub(super) fn validate_copy(&self, bytes: &[u8], first: u64) -> Result<(), JobError> {
        match types::validate(self.info.ty, bytes) {
            Ok(()) | Err(types::Error::NoCodec(_)) => Ok(()),
            Err(error) => {
                if !self.info.ty.is_quantized() {
                    self.decode(bytes, first, &mut Vec::new())?;
                }
                Err(JobError::Invalid {
                    tensor: self.info.name.clone(),
                    row: first + self.row_of(&error, self.info.ty),
                    error,
                })
            }
        }
    }

    /// Encodes the decoded rows, which begin with row `first`; matrix by matrix, since each may have
    /// importance of its own.
    pub(super) fn encode(
        &self,
        ty: TensorType,
        effort: Effort,
        weighted: bool,
        first: u64,
        buffers: &mut Buffers,
    ) -> Result<(), JobError> {
        let Buffers { values, bytes } = buffers;
        let row = self.info.row_len() as usize;
        let layout = ty.layout();
        bytes.resize(values.len() / layout.values * layout.bytes, 0);
        let matrices = matrices(self.info) as usize;
        let rows_per_matrix = (self.info.rows() as usize / matrices.max(1)).max(1);
        let mut at = 0;
        while at < values.len() {
            let absolute = first as usize + at / row;
            let matrix = absolute / rows_per_matrix;
            let left_in_matrix = rows_per_matrix - absolute % rows_per_matrix;
            let end = values.len().min(at + left_in_matrix * row);
            let weights = match weighted {
                true => self.weights(matrix, matrices, effort)?,
                false => None,
            };
            // Types that cannot do without get equal weights: the planner lets that happen only
            // where the reference has no importance either (token embeddings).
            let required = types::importance_use(ty) == Ok(ImportanceUse::Required);
            let weights = weights.or_else(|| required.then(|| vec![1.0; row].into()));
            let place = |at: usize| at / layout.values * layout.bytes;
            let (values, bytes) = (&values[at..end], &mut bytes[place(at)..place(end)]);
            types::encode(ty, effort, values, row, weights.as_deref(), bytes)
                .map_err(|error| self.codec(error))?;
            at = end;
        }
        Ok(())
    }

    /// Weights for the columns of matrix `at` of `matrices`: as measured, or at effort `best` as
    /// estimated where nothing was measured.
    fn weights(
        &self,
        at: usize,
        matrices: usize,
        effort: Effort,
    ) -> Result<Option<Cow<'_, [f32]>>, JobError> {
        if let Some((entry, pooled)) = &self.entry {
            let weights = entry.weights(at, matrices, effort, pooled);
            return Ok(Some(weights.into()));
        }
        if effort == Effort::Reference {
            return Ok(None);
        }
        let estimate = match self.estimate.get() {
            Some(estimate) => estimate,
            None => {
                let estimate =
                    estimate(self.source, self.info).map_err(|error| JobError::Source {
                        tensor: self.info.name.clone(),
                        error,
                    })?;
                self.estimate.get_or_init(|| estimate)
            }
        };
        let row = self.info.row_len() as usize;
        // One vector may be for all matrices.
        let of = |all: &'_ Vec<f32>| at * row % all.len();
        Ok(estimate.as_ref().map(|all| all[of(all)..][..row].into()))
    }
}
