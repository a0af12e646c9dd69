//! Output tensors as expressions over stored ones.
//!
//! An expression knows its type and shape without reading anything, and gives any range of its
//! rows straight from the mapped checkpoint: a conversion never holds a model, and of a tensor no
//! more than the rows that were asked for.

mod eval;
mod exponential;
mod strided;
mod ternary;
pub(crate) mod values;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use gristmill_gguf::{ReadError, TensorType};

pub use strided::Strided;
use ternary::Levels;

use crate::checkpoint::{Dtype, Stored};

/// A tensor that is computed row by row. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Expr {
    ty: TensorType,
    /// Dimensions in GGUF's order, the row length first.
    shape: Vec<u64>,
    op: Arc<Op>,
}

/// Arithmetic on every value. Results of F16 operands are rounded to F16, as PyTorch does; all
/// others are F32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arithmetic {
    /// `x + c`
    Add(f32),
    /// `x · c`
    Multiply(f32),
    /// `-exp(x)`
    NegExp,
    /// `ln(1 + exp(x))`
    Softplus,
}

/// Rows that are computed by a scheme of their own, such as an unpacking of stored 4-bit values.
pub trait Rows: fmt::Debug + Send + Sync {
    /// Appends the bytes of these rows, in the type that the expression states.
    ///
    /// # Errors
    /// If the data are bad.
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError>;

    /// Tells that these rows will not be read again.
    fn release(&self, rows: Range<u64>);

    /// Whether all values are one of -s, 0 and s already.
    fn is_ternary(&self) -> bool {
        false
    }
}

#[derive(Debug)]
enum Op {
    /// Stored bytes in a type that GGUF has.
    Stored(Stored),
    /// Stored values of another type, as F32.
    Widened(Stored),
    /// Rows in another order, or some of them.
    Rows(Expr, Strided),
    /// Columns in another order, or some of them.
    Columns(Expr, Strided),
    /// Rows of several tensors, one after another.
    Concat(Vec<Expr>),
    /// The first two dimensions swapped.
    Transposed(Expr),
    /// The same values in another shape.
    Reshaped(Expr),
    /// The same values in F32.
    Float(Expr),
    Computed(Expr, Arithmetic),
    /// The elementwise product of the rows with one row of factors.
    ScaledColumns(Expr, Vec<f32>),
    /// Every row times a factor of its own.
    ScaledRows(Expr, Vec<f32>),
    /// Values rounded to three levels, which are found on the first reading.
    Ternary(Expr, OnceLock<Levels>),
    /// Constants, row-major.
    Values(Vec<f32>),
    /// Rows of zeros.
    Zeros,
    Scheme(Box<dyn Rows>),
}

/// Why an expression cannot be: shapes or types do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ShapeError(String);

impl Expr {
    /// A stored tensor: in its own type where GGUF has it (F32, F16, BF16), else as F32. Scalars
    /// become one-element tensors.
    pub fn load(stored: &Stored) -> Self {
        let mut shape: Vec<u64> = stored.shape.iter().rev().copied().collect();
        if shape.is_empty() {
            shape.push(1);
        }
        let (ty, op) = match stored.dtype {
            Dtype::F32 => (TensorType::F32, Op::Stored(stored.clone())),
            Dtype::F16 => (TensorType::F16, Op::Stored(stored.clone())),
            Dtype::BF16 => (TensorType::BF16, Op::Stored(stored.clone())),
            _ => (TensorType::F32, Op::Widened(stored.clone())),
        };
        let Some(strides) = stored.strides() else {
            return Self::node(ty, shape, op);
        };
        // All that lies between the first value and the last, a value a row.
        let span = (stored.bytes().len() / stored.dtype.size()) as u64;
        let values = Self::node(ty, vec![1, span], op);
        if let (&[rows, columns], &[1, step]) = (&stored.shape[..], strides)
            && step == rows
        {
            // By tiles, which single values would be far from.
            let columns_first = Self::node(ty, vec![rows, columns], Op::Reshaped(values));
            return Self::node(ty, shape, Op::Transposed(columns_first));
        }
        let dims: Vec<_> = stored
            .shape
            .iter()
            .copied()
            .zip(strides.iter().copied())
            .collect();
        let taken = Op::Rows(values, Strided::new(0, dims));
        let taken = Self::node(ty, vec![1, stored.elements()], taken);
        Self::node(ty, shape, Op::Reshaped(taken))
    }

    /// Constants of this shape (GGUF order).
    ///
    /// # Errors
    /// If their number does not fit the shape.
    pub fn values(values: Vec<f32>, shape: &[u64]) -> Result<Self, ShapeError> {
        if shape.iter().product::<u64>() != values.len() as u64 {
            return Err(ShapeError(format!(
                "{} values do not fill the shape {shape:?}",
                values.len()
            )));
        }
        Ok(Self::node(
            TensorType::F32,
            shape.to_vec(),
            Op::Values(values),
        ))
    }

    /// Zeros of a type whose zero is all bits clear.
    pub fn zeros(ty: TensorType, shape: &[u64]) -> Self {
        Self::node(ty, shape.to_vec(), Op::Zeros)
    }

    /// Rows by a scheme of their own.
    pub fn scheme(ty: TensorType, shape: &[u64], rows: impl Rows + 'static) -> Self {
        Self::node(ty, shape.to_vec(), Op::Scheme(Box::new(rows)))
    }

    fn node(ty: TensorType, shape: Vec<u64>, op: Op) -> Self {
        Self {
            ty,
            shape,
            op: Arc::new(op),
        }
    }

    /// Type of the rows.
    pub fn ty(&self) -> TensorType {
        self.ty
    }

    /// Dimensions in GGUF's order.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// Values of a row.
    pub fn row_len(&self) -> u64 {
        self.shape[0]
    }

    /// Number of rows: the product of all dimensions but the first.
    pub fn row_count(&self) -> u64 {
        self.shape[1..].iter().product()
    }

    /// Number of values.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    fn row_bytes(&self) -> usize {
        // Stored sizes were checked against the address space, so this fits.
        self.ty.row_bytes(self.row_len()).unwrap_or(0) as usize
    }

    /// The rows of a view, as a tensor of `shape` without its row length.
    ///
    /// # Errors
    /// If the view reaches beyond the tensor or does not fill the shape.
    pub fn rows_view(&self, rows: Strided, outer: &[u64]) -> Result<Self, ShapeError> {
        if rows.last().is_some_and(|last| last >= self.row_count())
            || rows.len() != outer.iter().product::<u64>()
        {
            return Err(ShapeError(format!(
                "a view of {} rows as {outer:?} does not fit the shape {:?}",
                rows.len(),
                self.shape
            )));
        }
        let mut shape = vec![self.row_len()];
        shape.extend_from_slice(outer);
        if rows.contiguous() == Some(0) && rows.len() == self.row_count() {
            return self.reshape(&shape);
        }
        Ok(Self::node(self.ty, shape, Op::Rows(self.clone(), rows)))
    }

    /// Consecutive rows of a tensor with two dimensions, or values of one with one.
    ///
    /// # Errors
    /// If the range reaches beyond the tensor.
    pub fn slice(&self, range: Range<u64>) -> Result<Self, ShapeError> {
        let count = range.end.saturating_sub(range.start);
        if self.shape.len() == 1 {
            return self
                .as_column()?
                .rows_view(Strided::range(range), &[count])?
                .reshape(&[count]);
        }
        self.rows_view(Strided::range(range), &[count])
    }

    /// A view of the rows; of the values where the tensor has one dimension (a bias goes the way
    /// of its weight's rows).
    ///
    /// # Errors
    /// If the view does not fit the tensor.
    pub fn reorder(&self, rows: &Strided) -> Result<Self, ShapeError> {
        let count = rows.len();
        if self.shape.len() == 1 {
            return self
                .as_column()?
                .rows_view(rows.clone(), &[count])?
                .reshape(&[count]);
        }
        self.rows_view(rows.clone(), &[count])
    }

    fn as_column(&self) -> Result<Self, ShapeError> {
        self.reshape(&[1, self.row_len()])
    }

    /// Rotary halves to interleaved pairs, in every one of `heads` heads: row `2j + k` of a head
    /// is its former row `k·d/2 + j`.
    ///
    /// # Errors
    /// If the rows are not `heads` times an even number.
    pub fn permute_heads(&self, heads: u64) -> Result<Self, ShapeError> {
        let rows = if self.shape.len() == 1 {
            self.row_len()
        } else {
            self.row_count()
        };
        if heads == 0 || !rows.is_multiple_of(heads) || !(rows / heads).is_multiple_of(2) {
            return Err(ShapeError(format!(
                "{rows} rows are not {heads} heads of an even size"
            )));
        }
        let dim = rows / heads;
        self.reorder(&Strided::new(0, [(heads, dim), (dim / 2, 1), (2, dim / 2)]))
    }

    /// Columns of a view.
    ///
    /// # Errors
    /// If the view reaches beyond the row, or the type is one of blocks.
    pub fn columns(&self, columns: Strided) -> Result<Self, ShapeError> {
        if self.ty.is_quantized() || columns.last().is_some_and(|last| last >= self.row_len()) {
            return Err(ShapeError(format!(
                "a view of columns does not fit {} {:?}",
                self.ty, self.shape
            )));
        }
        let mut shape = self.shape.clone();
        shape[0] = columns.len();
        Ok(Self::node(
            self.ty,
            shape,
            Op::Columns(self.clone(), columns),
        ))
    }

    /// Tensors of the same type and row length, one after another, in one tensor whose outer
    /// dimensions are `outer`.
    ///
    /// # Errors
    /// If types or row lengths differ, or the rows do not fill the shape.
    pub fn concat(parts: Vec<Self>, outer: &[u64]) -> Result<Self, ShapeError> {
        let Some(first) = parts.first() else {
            return Err(ShapeError("nothing to join".into()));
        };
        // Parts stored in different types meet in F32.
        let mixed = parts.iter().any(|part| part.ty != first.ty);
        if mixed && parts.iter().any(|part| part.ty.is_quantized()) {
            return Err(ShapeError("parts have different types".into()));
        }
        let row_len = first.row_len();
        let ty = if mixed { TensorType::F32 } else { first.ty };
        let mut rows = 0;
        for part in &parts {
            if part.row_len() != row_len {
                return Err(ShapeError(format!(
                    "parts have different shapes: {:?} and {:?}",
                    first.shape, part.shape
                )));
            }
            rows += part.row_count();
        }
        if rows != outer.iter().product::<u64>() {
            return Err(ShapeError(format!("{rows} rows do not fill {outer:?}")));
        }
        let mut shape = vec![row_len];
        shape.extend_from_slice(outer);
        let parts = if mixed {
            parts.iter().map(Self::to_f32).collect()
        } else {
            parts
        };
        Ok(Self::node(ty, shape, Op::Concat(parts)))
    }

    /// Tensors of one shape as the slices of a new outermost dimension.
    ///
    /// # Errors
    /// If shapes or types differ.
    pub fn stack(parts: Vec<Self>) -> Result<Self, ShapeError> {
        let Some(first) = parts.first() else {
            return Err(ShapeError("nothing to stack".into()));
        };
        if let Some(other) = parts.iter().find(|part| part.shape != first.shape) {
            return Err(ShapeError(format!(
                "slices have different shapes: {:?} and {:?}",
                first.shape, other.shape
            )));
        }
        if let [len] = first.shape[..] {
            let count = parts.len() as u64;
            return Self::concat(parts, &[count])?.reshape(&[len, count]);
        }
        let mut outer = first.shape[1..].to_vec();
        outer.push(parts.len() as u64);
        Self::concat(parts, &outer)
    }

    /// The tensor with its first two dimensions swapped.
    ///
    /// # Errors
    /// If it has one dimension, or its type is one of blocks.
    pub fn transpose(&self) -> Result<Self, ShapeError> {
        if self.shape.len() < 2 || self.ty.is_quantized() {
            return Err(ShapeError(format!(
                "{} {:?} cannot be transposed",
                self.ty, self.shape
            )));
        }
        let mut shape = self.shape.clone();
        shape.swap(0, 1);
        Ok(Self::node(self.ty, shape, Op::Transposed(self.clone())))
    }

    /// The same values in another shape (GGUF order).
    ///
    /// # Errors
    /// If the number of values differs, or blocks would be cut.
    pub fn reshape(&self, shape: &[u64]) -> Result<Self, ShapeError> {
        if shape == self.shape {
            return Ok(self.clone());
        }
        let elements = shape
            .iter()
            .try_fold(1u64, |product, &dim| product.checked_mul(dim));
        if shape.is_empty()
            || elements != Some(self.elements())
            || (self.ty.is_quantized() && shape[0] != self.shape[0])
        {
            return Err(ShapeError(format!(
                "{:?} cannot be seen as {shape:?}",
                self.shape
            )));
        }
        Ok(Self::node(
            self.ty,
            shape.to_vec(),
            Op::Reshaped(self.clone()),
        ))
    }

    /// The tensor without dimensions of one, but for the row.
    ///
    /// # Errors
    /// Never for a tensor that exists.
    pub fn squeeze(&self) -> Result<Self, ShapeError> {
        let mut shape: Vec<u64> = self.shape.iter().copied().filter(|&dim| dim != 1).collect();
        if shape.is_empty() {
            shape.push(1);
        }
        self.reshape(&shape)
    }

    /// The same values in F32.
    pub fn to_f32(&self) -> Self {
        if self.ty == TensorType::F32 {
            return self.clone();
        }
        Self::node(TensorType::F32, self.shape.clone(), Op::Float(self.clone()))
    }

    /// Arithmetic on every value.
    pub fn compute(&self, arithmetic: Arithmetic) -> Self {
        Self::node(
            self.arithmetic_type(),
            self.shape.clone(),
            Op::Computed(self.clone(), arithmetic),
        )
    }

    /// Every value as -s, 0 or s, where s is the mean magnitude of all values (BitNet's weights).
    /// Values that are so already stay what they are.
    pub fn ternary(&self) -> Self {
        if matches!(&*self.op, Op::Scheme(scheme) if scheme.is_ternary()) {
            return self.clone();
        }
        Self::node(
            self.arithmetic_type(),
            self.shape.clone(),
            Op::Ternary(self.clone(), OnceLock::new()),
        )
    }

    /// Every row times its factor.
    ///
    /// # Errors
    /// If there is not one factor for each row.
    pub fn scale_rows(&self, factors: Vec<f32>) -> Result<Self, ShapeError> {
        if factors.len() as u64 != self.row_count() {
            return Err(ShapeError(format!(
                "{} factors for {} rows",
                factors.len(),
                self.row_count()
            )));
        }
        Ok(Self::node(
            self.arithmetic_type(),
            self.shape.clone(),
            Op::ScaledRows(self.clone(), factors),
        ))
    }

    /// Every column times its factor.
    ///
    /// # Errors
    /// If there is not one factor for each column.
    pub fn scale_columns(&self, factors: Vec<f32>) -> Result<Self, ShapeError> {
        if factors.len() as u64 != self.row_len() {
            return Err(ShapeError(format!(
                "{} factors for {} columns",
                factors.len(),
                self.row_len()
            )));
        }
        Ok(Self::node(
            self.arithmetic_type(),
            self.shape.clone(),
            Op::ScaledColumns(self.clone(), factors),
        ))
    }

    /// Whether these are stored values of a float's full width, that no scheme unpacks.
    pub(crate) fn is_plain(&self) -> bool {
        match &*self.op {
            Op::Scheme(_) => false,
            Op::Widened(stored) => stored.dtype.size() > 1,
            _ => true,
        }
    }

    /// A stored tensor of integers among those that the values are read from.
    pub(crate) fn integers(&self) -> Option<&Stored> {
        match &*self.op {
            Op::Stored(stored) | Op::Widened(stored) => stored.dtype.is_integer().then_some(stored),
            Op::Rows(of, _)
            | Op::Columns(of, _)
            | Op::Transposed(of)
            | Op::Reshaped(of)
            | Op::Float(of)
            | Op::Computed(of, _)
            | Op::ScaledColumns(of, _)
            | Op::ScaledRows(of, _)
            | Op::Ternary(of, _) => of.integers(),
            Op::Concat(parts) => parts.iter().find_map(Self::integers),
            Op::Values(_) | Op::Zeros | Op::Scheme(_) => None,
        }
    }

    fn arithmetic_type(&self) -> TensorType {
        match self.ty {
            TensorType::F16 => TensorType::F16,
            _ => TensorType::F32,
        }
    }
}
