//! Weight matrices in their stored type.

use std::ops::Range;

use gristmill_gguf::TensorType;
use gristmill_gguf::file::TensorData;

/// A weight matrix as its file stores it: `rows` rows of `cols` values, one after another, each a
/// whole number of blocks of `ty`. Cheap to clone.
#[derive(Clone)]
pub struct Matrix {
    ty: TensorType,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    data: TensorData,
}

/// Bytes that are no matrix of the given type and shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// The type has no product.
    #[error("a matrix of type {0} cannot be multiplied")]
    Type(TensorType),
    /// A row is no whole number of blocks, or nothing at all.
    #[error("{ty}: a row of {cols} values is not a whole number of blocks")]
    RowLength {
        /// The type.
        ty: TensorType,
        /// Values in a row.
        cols: usize,
    },
    /// Another number of bytes than the shape says.
    #[error("{ty}, {rows} rows of {cols} values: {found} bytes")]
    Size {
        /// The type.
        ty: TensorType,
        /// Number of rows.
        rows: usize,
        /// Values in a row.
        cols: usize,
        /// Bytes given.
        found: usize,
    },
}

impl Matrix {
    /// A matrix over `data`.
    ///
    /// # Errors
    /// If the type has no kernels here, or the bytes do not fit type and shape.
    pub fn new(
        ty: TensorType,
        rows: usize,
        cols: usize,
        data: TensorData,
    ) -> Result<Self, MatrixError> {
        if !super::is_supported(ty) {
            return Err(MatrixError::Type(ty));
        }
        let found = data.len();
        let row_bytes = ty
            .row_bytes(cols as u64)
            .filter(|&bytes| bytes > 0)
            .ok_or(MatrixError::RowLength { ty, cols })?;
        if row_bytes.checked_mul(rows as u64) != Some(found as u64) {
            return Err(MatrixError::Size {
                ty,
                rows,
                cols,
                found,
            });
        }
        Ok(Self {
            ty,
            rows,
            cols,
            row_bytes: row_bytes as usize, // no more than `found`, or there are no rows
            data,
        })
    }

    /// The stored type.
    pub fn ty(&self) -> TensorType {
        self.ty
    }

    /// Number of rows: output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values in a row: input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Stored bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Stored bytes of some rows.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn bytes(&self, rows: Range<usize>) -> &[u8] {
        &self.data[rows.start * self.row_bytes..rows.end * self.row_bytes]
    }
}

impl std::fmt::Debug for Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Matrix({} {}x{})", self.ty, self.rows, self.cols)
    }
}
