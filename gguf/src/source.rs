//! A model as metadata and rows.

use std::borrow::Cow;
use std::ops::Range;

use bstr::BString;

use crate::metadata::Metadata;
use crate::tensor_type::TensorType;

/// What a tensor is: its name, shape and type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name; bytes, since files with invalid UTF-8 exist.
    pub name: BString,
    /// Dimensions, the fastest-varying (row length) first; one to four of them.
    pub shape: Vec<u64>,
    /// Type of the rows that the source gives.
    pub ty: TensorType,
}

impl TensorInfo {
    /// Values in a row: the first dimension.
    pub fn row_len(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Number of rows: the product of the other dimensions, and 0 for a tensor without elements.
    /// Shapes are checked when a source is opened, so the product cannot overflow.
    pub fn rows(&self) -> u64 {
        if self.shape.contains(&0) {
            return 0;
        }
        self.shape.iter().skip(1).product()
    }

    /// Number of values.
    pub fn elements(&self) -> u64 {
        self.row_len() * self.rows()
    }

    /// Bytes of the tensor's data, padding excluded; `None` if the rows are not whole blocks or the
    /// size overflows.
    pub fn bytes(&self) -> Option<u64> {
        let rows = self.rows();
        if rows == 0 {
            // The length of a row that is never stored may be anything.
            let block = self.ty.layout().values as u64;
            return self.row_len().is_multiple_of(block).then_some(0);
        }
        self.ty.row_bytes(self.row_len())?.checked_mul(rows)
    }

    /// Number of dimensions, not counting trailing ones.
    pub fn dims(&self) -> usize {
        let trailing = self.shape.iter().rev().take_while(|&&d| d == 1).count();
        (self.shape.len() - trailing).max(1)
    }
}

/// Why rows could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system failed.
    #[error("{context}: {error}")]
    Io {
        /// What was read.
        context: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// The data are bad: tensor and reason are in the text.
    #[error("{0}")]
    Data(String),
    /// Any other failure of a source.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// A model that can be read by rows: a GGUF file, a split set, or a checkpoint under conversion.
pub trait Source: Send + Sync {
    /// The metadata, in order.
    fn metadata(&self) -> &Metadata;

    /// The tensors, in order.
    fn tensors(&self) -> &[TensorInfo];

    /// The part of a split set (from 0) that a tensor lies in.
    fn part(&self, _tensor: usize) -> usize {
        0
    }

    /// Rows `rows` of tensor `tensor` (an index into [`Source::tensors`]) in the tensor's type,
    /// little-endian, one after another. Borrowed where the source is mapped and stores them so.
    ///
    /// # Errors
    /// If the data cannot be read or evaluated.
    ///
    /// # Panics
    /// May panic if the index or the range is outside the tensor.
    fn rows(&self, tensor: usize, rows: Range<u64>) -> Result<Cow<'_, [u8]>, ReadError>;

    /// Tells the source that these rows will not be read again, so that mapped pages can go back.
    fn release(&self, tensor: usize, rows: Range<u64>) {
        let _ = (tensor, rows);
    }
}
