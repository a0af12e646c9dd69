//! Tensors as a checkpoint stores them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use gristmill_gguf::Map;

/// How a checkpoint stores the values of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    F8E8M0,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    /// Whether values are whole numbers.
    pub fn is_integer(self) -> bool {
        match self {
            Self::F64
            | Self::F32
            | Self::F16
            | Self::BF16
            | Self::F8E4M3
            | Self::F8E5M2
            | Self::F8E8M0 => false,
            Self::I64
            | Self::I32
            | Self::I16
            | Self::I8
            | Self::U64
            | Self::U32
            | Self::U16
            | Self::U8
            | Self::Bool => true,
        }
    }

    /// Bytes of a value.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::F8E8M0 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A tensor of a checkpoint: a name, a shape and mapped bytes.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Name in the checkpoint.
    pub name: String,
    /// Type of its values.
    pub dtype: Dtype,
    /// Dimensions as PyTorch has them: the fastest-varying last. Empty for a scalar.
    pub shape: Vec<u64>,
    /// Values between neighbours along each dimension, where they do not lie row-major.
    strides: Option<Vec<u64>>,
    map: Arc<Map>,
    range: Range<usize>,
}

impl Stored {
    /// A tensor of a mapped file. `None` if its size is not that of the range, or the range lies
    /// outside the file.
    pub(super) fn new(
        name: String,
        dtype: Dtype,
        shape: Vec<u64>,
        map: &Arc<Map>,
        range: Range<usize>,
    ) -> Option<Self> {
        let fits = byte_size(dtype, &shape)? == range.end.checked_sub(range.start)?
            && range.end <= map.len();
        fits.then(|| Self {
            name,
            dtype,
            shape,
            strides: None,
            map: Arc::clone(map),
            range,
        })
    }

    /// A tensor whose values lie so many apart along each dimension, in bytes of a mapped file of
    /// which it need not take all. `None` if it reaches beyond them, or shows values twice.
    pub(super) fn view(
        name: String,
        dtype: Dtype,
        shape: Vec<u64>,
        strides: &[u64],
        map: &Arc<Map>,
        bytes: Range<usize>,
    ) -> Option<Self> {
        let own = byte_size(dtype, &shape)?;
        let row_major = shape
            .iter()
            .zip(strides)
            .rev()
            .try_fold(1, |step, (&dim, &stride)| {
                (dim == 1 || stride == step).then(|| step.saturating_mul(dim))
            });
        if own == 0 || row_major.is_some() {
            let range = bytes.start..bytes.start.checked_add(own)?;
            return (range.end <= bytes.end).then(|| Self::new(name, dtype, shape, map, range))?;
        }
        let last = shape
            .iter()
            .zip(strides)
            .try_fold(0u64, |last, (dim, stride)| {
                last.checked_add((dim - 1).checked_mul(*stride)?)
            })?;
        let span = byte_size(dtype, &[last.checked_add(1)?])?;
        let end = bytes.start.checked_add(span)?;
        (own <= span && end <= bytes.end && end <= map.len()).then(|| Self {
            name,
            dtype,
            shape,
            strides: Some(strides.to_vec()),
            map: Arc::clone(map),
            range: bytes.start..end,
        })
    }

    /// Where the values do not lie row-major: how many lie between neighbours along each dimension.
    pub fn strides(&self) -> Option<&[u64]> {
        self.strides.as_deref()
    }

    /// The stored bytes, little-endian. Without [`Stored::strides`] they are row-major and as many
    /// as dtype and shape say, else they reach from the first value to the last.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }

    /// Number of values.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Tells that these bytes of the tensor will not be read again.
    pub(crate) fn release(&self, bytes: Range<usize>) {
        let start = self.range.start;
        let end = (start + bytes.end).min(self.range.end);
        self.map.release(start + bytes.start..end);
    }
}

/// The number of bytes of a tensor, `None` if it does not fit the address space.
fn byte_size(dtype: Dtype, shape: &[u64]) -> Option<usize> {
    let elements = shape
        .iter()
        .try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
    usize::try_from(elements.checked_mul(dtype.size() as u64)?).ok()
}
