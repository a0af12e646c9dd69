//! A bounded reader: the only place that looks at header bytes.

use bstr::BString;

use crate::endian::Endian;
use crate::error::{Fault, Field};

/// A fault and the byte where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Flaw {
    pub offset: u64,
    pub fault: Fault,
}

/// Reads scalars and strings from the front of a byte slice. Never reads outside it, never
/// reserves memory for more than the slice can hold.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    endian: Endian,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            endian: Endian::Little,
        }
    }

    pub fn set_endian(&mut self, endian: Endian) {
        self.endian = endian;
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.at as u64
    }

    /// Bytes not read yet.
    pub fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    pub fn take(&mut self, count: u64, field: Field) -> Result<&'a [u8], Flaw> {
        let left = &self.bytes[self.at..];
        let taken = usize::try_from(count).ok().and_then(|n| left.get(..n));
        let Some(taken) = taken else {
            return Err(Flaw {
                offset: self.offset(),
                fault: Fault::Truncated {
                    field,
                    needed: count,
                    left: left.len() as u64,
                },
            });
        };
        self.at += taken.len();
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, field: Field) -> Result<[u8; N], Flaw> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64, field)?);
        Ok(bytes)
    }

    pub fn scalar<T: Scalar>(&mut self, field: Field) -> Result<T, Flaw> {
        Ok(T::read(self.take(T::WIDTH as u64, field)?, self.endian))
    }

    /// `count` scalars. The caller has checked that they fit, with a message of its own.
    pub fn scalars<T: Scalar>(&mut self, count: u64, field: Field) -> Result<Vec<T>, Flaw> {
        let bytes = self.take(count.saturating_mul(T::WIDTH as u64), field)?;
        Ok(bytes
            .chunks_exact(T::WIDTH)
            .map(|bytes| T::read(bytes, self.endian))
            .collect())
    }

    /// A length and that many bytes.
    pub fn string(&mut self, field: Field) -> Result<BString, Flaw> {
        let offset = self.offset();
        let length: u64 = self.scalar(field)?;
        if length > self.left() {
            return Err(Flaw {
                offset,
                fault: Fault::StringLength {
                    field,
                    length,
                    left: self.left(),
                },
            });
        }
        Ok(self.take(length, field)?.into())
    }
}

/// A scalar of the format.
pub(crate) trait Scalar: Sized {
    const WIDTH: usize;

    /// From exactly [`Self::WIDTH`] bytes.
    fn read(bytes: &[u8], endian: Endian) -> Self;
}

macro_rules! scalars {
    ($($ty:ty),*) => {$(
        impl Scalar for $ty {
            const WIDTH: usize = size_of::<$ty>();

            fn read(bytes: &[u8], endian: Endian) -> Self {
                let mut array = [0; size_of::<$ty>()];
                array.copy_from_slice(bytes);
                match endian {
                    Endian::Little => Self::from_le_bytes(array),
                    Endian::Big => Self::from_be_bytes(array),
                }
            }
        }
    )*};
}
scalars!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);
