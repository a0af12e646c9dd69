//! What is done with the rows of one tensor.

use std::ops::Range;

use gristmill_gguf::{TensorInfo, TensorType};

use super::JobError;
use super::chunks::TensorDigest;
use crate::importance::{Entry, Pooled, matrices};
use crate::types::{self, Effort, ImportanceUse};

/// How rows are encoded: outputs that agree share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As they are stored.
    Copy,
    Encode {
        ty: TensorType,
        effort: Effort,
        /// With importance, if there is an entry.
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
    pub(super) entry: Option<(&'a Entry, Pooled)>,
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

    /// Encodes the decoded rows, which begin with row `first`; matrix by matrix where each has
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
        let mut encode = |range: Range<usize>, importance: Option<&[f32]>| {
            let start = range.start / layout.values * layout.bytes;
            let end = range.end / layout.values * layout.bytes;
            let (values, bytes) = (&values[range], &mut bytes[start..end]);
            types::encode(ty, effort, values, row, importance, bytes)
                .map_err(|error| self.codec(error))
        };
        let all = 0..values.len();
        let Some((entry, pooled)) = self.entry.as_ref().filter(|_| weighted) else {
            // Types that cannot do without get equal weights: the planner lets that happen only
            // where the reference has no importance either (token embeddings).
            let required = types::importance_use(ty) == Ok(ImportanceUse::Required);
            let equal = required.then(|| vec![1.0; row]);
            return encode(all, equal.as_deref());
        };
        let matrices = matrices(self.info) as usize;
        let rows_per_matrix = (self.info.rows() as usize / matrices.max(1)).max(1);
        let mut at = 0;
        while at < all.end {
            let absolute = first as usize + at / row;
            let matrix = absolute / rows_per_matrix;
            let left_in_matrix = rows_per_matrix - absolute % rows_per_matrix;
            let end = all.end.min(at + left_in_matrix * row);
            let weights = entry.weights(matrix, matrices, effort, pooled);
            encode(at..end, Some(&weights))?;
            at = end;
        }
        Ok(())
    }
}
