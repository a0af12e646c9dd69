//! The layout of an output, known before a byte is written.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bstr::ByteSlice;

use crate::endian::{self, Endian};
use crate::error::{Error, Fault, Subject};
use crate::header::{self, DEFAULT_ALIGNMENT, MAGIC, TENSOR_NAME_LIMIT, VERSION};
use crate::metadata::Metadata;
use crate::os;
use crate::schema::keys;
use crate::source::TensorInfo;
use crate::split::{self, SplitLimit};
use crate::value::{Array, Value};

/// How an output is laid out, beyond what its metadata say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Whether and when a new part starts; one file without.
    pub split: Option<SplitLimit>,
    /// Byte order.
    pub endian: Endian,
}

/// The parts of an output with their exact headers, and the place of every tensor in them.
///
/// The alignment is what `general.alignment` says, else 32.
#[derive(Debug, Clone)]
pub struct Plan {
    parts: Vec<PartPlan>,
    tensors: Vec<TensorInfo>,
    places: Vec<Place>,
    endian: Endian,
    /// If this is one part of a larger set: which, and of how many.
    part_of: Option<(u64, u64)>,
}

/// One file of an output.
#[derive(Debug, Clone)]
pub struct PartPlan {
    /// The tensors it holds.
    pub tensors: Range<usize>,
    /// Its exact length in bytes, final padding included.
    pub bytes: u64,
    pub(crate) header: Vec<u8>,
}

/// Where a tensor's data goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub part: usize,
    /// From the start of the part.
    pub start: u64,
    /// Bytes of data, padding excluded.
    pub bytes: u64,
    /// Bytes of a row.
    pub row: u64,
}

impl Plan {
    /// Lays out tensors in their order after the metadata in theirs. Keys of split sets in the
    /// metadata are dropped; each part of a split output gets its own.
    ///
    /// # Errors
    /// If the alignment is no legal one, or a name, shape or type cannot be written.
    pub fn new(
        metadata: &Metadata,
        tensors: &[TensorInfo],
        layout: &Layout,
    ) -> Result<Self, Error> {
        let mut metadata = metadata.clone();
        for key in split::KEYS {
            metadata.remove(key);
        }
        check_metadata(&metadata)?;
        let own_alignment = header::alignment_of(&metadata).map_err(|fault| Error::Plan {
            subject: Subject::File,
            fault,
        })?;
        let alignment = u64::from(own_alignment.unwrap_or(DEFAULT_ALIGNMENT));
        let sizes = check_tensors(tensors, layout.endian)?;
        let ranges = divide(&sizes, alignment, layout.split.as_ref());
        let count = u16::try_from(ranges.len());
        let total = i32::try_from(tensors.len());
        let (Ok(count), Ok(total)) = (count, total) else {
            let found = ranges.len().max(tensors.len()) as u64;
            return Err(Error::Plan {
                subject: Subject::File,
                fault: Fault::PartCount { found },
            });
        };
        let mut plan = Self {
            parts: Vec::with_capacity(ranges.len()),
            tensors: tensors.to_vec(),
            places: Vec::with_capacity(tensors.len()),
            endian: layout.endian,
            part_of: None,
        };
        for (no, range) in (0..count).zip(ranges) {
            let mut part_metadata = match no {
                0 => std::mem::take(&mut metadata),
                _ => own_alignment
                    .map(|alignment| (keys::ALIGNMENT, alignment))
                    .into_iter()
                    .collect(),
            };
            if count > 1 {
                split::set_keys(&mut part_metadata, no, count, total);
            }
            plan.add_part(&part_metadata, range, &sizes, alignment)?;
        }
        Ok(plan)
    }

    fn add_part(
        &mut self,
        metadata: &Metadata,
        range: Range<usize>,
        sizes: &[u64],
        alignment: u64,
    ) -> Result<(), Error> {
        let mut header = Encoder::new(self.endian);
        header.bytes.extend_from_slice(&MAGIC);
        header.u32(VERSION);
        header.u64(range.len() as u64);
        header.u64(metadata.len() as u64);
        for (key, value) in metadata.iter() {
            header.string(key);
            header.u32(value.value_type().id());
            header.value(value);
        }
        let too_large = |tensor: usize| Error::Plan {
            subject: Subject::Tensor(self.tensors[tensor].name.clone()),
            fault: Fault::SizeOverflow {
                shape: self.tensors[tensor].shape.clone(),
                ty: self.tensors[tensor].ty,
            },
        };
        let mut offsets = Vec::with_capacity(range.len());
        let mut end = 0u64;
        for tensor in range.clone() {
            let info = &self.tensors[tensor];
            header.string(&info.name);
            header.u32(info.shape.len() as u32);
            for &dim in &info.shape {
                header.u64(dim);
            }
            header.u32(info.ty.id());
            header.u64(end);
            offsets.push(end);
            end = sizes[tensor]
                .checked_next_multiple_of(alignment)
                .and_then(|padded| end.checked_add(padded))
                .ok_or_else(|| too_large(tensor))?;
        }
        let header = header.bytes;
        let mut data_start = header.len() as u64;
        if !range.is_empty() {
            // The padding is left to the file system: files start as zeros.
            data_start = data_start.next_multiple_of(alignment);
        }
        let bytes = data_start
            .checked_add(end)
            .filter(|&bytes| bytes <= i64::MAX as u64)
            .ok_or_else(|| too_large(range.end.saturating_sub(1)))?;
        let part = self.parts.len();
        for (tensor, offset) in range.clone().zip(offsets) {
            let info = &self.tensors[tensor];
            self.places.push(Place {
                part,
                start: data_start + offset,
                bytes: sizes[tensor],
                row: info.ty.row_bytes(info.row_len()).unwrap_or(0),
            });
        }
        self.parts.push(PartPlan {
            tensors: range,
            bytes,
            header,
        });
        Ok(())
    }

    /// The files to be written.
    pub fn parts(&self) -> &[PartPlan] {
        &self.parts
    }

    /// The tensors, in order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// Byte order of the output.
    pub fn endian(&self) -> Endian {
        self.endian
    }

    /// Length of all files together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// The plan of part `no` (from 0) alone, byte for byte what it is in the set; `None` if there
    /// is no such part. Its tensors are those of [`PartPlan::tensors`], counted from 0.
    #[must_use]
    pub fn only_part(&self, no: usize) -> Option<Self> {
        let part = self.parts.get(no)?;
        let range = part.tensors.clone();
        let places = self.places[range.clone()].iter();
        Some(Self {
            parts: vec![PartPlan {
                tensors: 0..range.len(),
                ..part.clone()
            }],
            tensors: self.tensors[range.clone()].to_vec(),
            places: places.map(|&place| Place { part: 0, ..place }).collect(),
            endian: self.endian,
            part_of: Some((no as u64, self.parts.len() as u64)),
        })
    }

    /// The final paths for an output of this name: the path itself, or the names of its parts.
    pub fn paths(&self, output: &Path) -> Vec<PathBuf> {
        let count = self.parts.len() as u64;
        let prefix = split::prefix_of(output);
        match self.part_of {
            Some((no, count)) if count > 1 => return vec![split::part_path(&prefix, no, count)],
            _ if count == 1 => return vec![output.to_owned()],
            _ => {}
        }
        (0..count)
            .map(|no| split::part_path(&prefix, no, count))
            .collect()
    }

    /// Checks that the output's disk has room for all of it.
    ///
    /// # Errors
    /// If it has not. Where the system does not tell, the writing will.
    pub fn check_space(&self, output: &Path) -> Result<(), Error> {
        let needed = self.bytes();
        match os::available_space(output) {
            Ok(Some(available)) if available < needed => Err(Error::Space {
                path: output.to_owned(),
                needed,
                available,
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn place(&self, tensor: usize) -> Place {
        self.places[tensor]
    }
}

fn check_metadata(metadata: &Metadata) -> Result<(), Error> {
    let empty = metadata.iter().position(|(key, _)| key.is_empty());
    match empty {
        None => Ok(()),
        Some(index) => Err(Error::Plan {
            subject: Subject::File,
            fault: Fault::KeyEmpty {
                index: index as u64,
            },
        }),
    }
}

/// Checks what a reader would check; returns the sizes in bytes.
fn check_tensors(tensors: &[TensorInfo], order: Endian) -> Result<Vec<u64>, Error> {
    let mut names = HashSet::with_capacity(tensors.len());
    let mut sizes = Vec::with_capacity(tensors.len());
    for info in tensors {
        let length = info.name.len() as u64;
        let size = if length > TENSOR_NAME_LIMIT {
            let limit = TENSOR_NAME_LIMIT;
            Err(Fault::TensorNameLength { length, limit })
        } else if !names.insert(info.name.as_bstr()) {
            Err(Fault::TensorDuplicate { first: None })
        } else if order == Endian::Big && !endian::can_swap(info.ty) {
            Err(Fault::ByteOrder { ty: info.ty })
        } else {
            header::check_shape(&info.shape).and_then(|()| header::check_size(&info.shape, info.ty))
        };
        sizes.push(size.map_err(|fault| Error::Plan {
            subject: Subject::Tensor(info.name.clone()),
            fault,
        })?);
    }
    Ok(sizes)
}

/// Divides tensors into parts: a new part starts where the next tensor would exceed the limit.
fn divide(sizes: &[u64], alignment: u64, limit: Option<&SplitLimit>) -> Vec<Range<usize>> {
    match limit {
        Some(SplitLimit::Parts(count)) => return divide_evenly(sizes, *count),
        Some(SplitLimit::Counts(counts)) => return divide_by_counts(sizes.len(), counts),
        None | Some(SplitLimit::Bytes(_) | SplitLimit::Tensors(_)) => {}
    }
    let mut parts = Vec::new();
    let (mut start, mut bytes) = (0, 0u64);
    for (tensor, size) in sizes.iter().enumerate() {
        let padded = size.checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
        let full = match limit {
            Some(SplitLimit::Bytes(limit)) => bytes.saturating_add(padded) > *limit,
            Some(SplitLimit::Tensors(limit)) => (tensor - start) as u64 >= *limit,
            _ => false,
        };
        if full && tensor > start {
            parts.push(start..tensor);
            (start, bytes) = (tensor, 0);
        }
        bytes = bytes.saturating_add(padded);
    }
    parts.push(start..sizes.len());
    parts
}

/// Divides tensors into parts of so many each.
fn divide_by_counts(tensors: usize, counts: &[usize]) -> Vec<Range<usize>> {
    let mut parts = Vec::with_capacity(counts.len());
    let mut start = 0;
    for &count in counts {
        let end = tensors.min(start + count);
        parts.push(start..end);
        start = end;
    }
    match parts.last_mut() {
        Some(last) => last.end = tensors,
        None => parts.push(0..tensors),
    }
    parts
}

/// Divides tensors into `count` parts (but never more than there are tensors) that each begin as
/// near as possible to their share of the bytes.
fn divide_evenly(sizes: &[u64], count: u64) -> Vec<Range<usize>> {
    let count = count.clamp(1, sizes.len().max(1) as u64) as usize;
    let total: u128 = sizes.iter().map(|&size| u128::from(size)).sum();
    let mut parts = Vec::with_capacity(count);
    let (mut start, mut before) = (0, 0u128);
    for (tensor, &size) in sizes.iter().enumerate() {
        let wanted = total * (parts.len() as u128 + 1);
        let middle = (before + u128::from(size) / 2) * count as u128;
        // As many tensors must be left as there are parts to come.
        let left = sizes.len() - tensor;
        let to_come = count - parts.len() - 1;
        if tensor > start && to_come > 0 && (middle >= wanted || left <= to_come) {
            parts.push(start..tensor);
            start = tensor;
        }
        before += u128::from(size);
    }
    parts.push(start..sizes.len());
    parts
}

/// Writes scalars in a byte order.
struct Encoder {
    bytes: Vec<u8>,
    endian: Endian,
}

impl Encoder {
    fn new(endian: Endian) -> Self {
        Self {
            bytes: Vec::new(),
            endian,
        }
    }

    /// A scalar given as little-endian bytes.
    fn scalar<const N: usize>(&mut self, mut bytes: [u8; N]) {
        if self.endian == Endian::Big {
            bytes.reverse();
        }
        self.bytes.extend_from_slice(&bytes);
    }

    fn u32(&mut self, value: u32) {
        self.scalar(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.scalar(value.to_le_bytes());
    }

    fn string(&mut self, string: &[u8]) {
        self.u64(string.len() as u64);
        self.bytes.extend_from_slice(string);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::U8(v) => self.scalar(v.to_le_bytes()),
            Value::I8(v) => self.scalar(v.to_le_bytes()),
            Value::U16(v) => self.scalar(v.to_le_bytes()),
            Value::I16(v) => self.scalar(v.to_le_bytes()),
            Value::U32(v) => self.scalar(v.to_le_bytes()),
            Value::I32(v) => self.scalar(v.to_le_bytes()),
            Value::F32(v) => self.scalar(v.to_le_bytes()),
            Value::Bool(v) => self.scalar([u8::from(*v)]),
            Value::String(v) => self.string(v),
            Value::Array(v) => self.array(v),
            Value::U64(v) => self.scalar(v.to_le_bytes()),
            Value::I64(v) => self.scalar(v.to_le_bytes()),
            Value::F64(v) => self.scalar(v.to_le_bytes()),
        }
    }

    fn array(&mut self, array: &Array) {
        self.u32(array.element_type().id());
        self.u64(array.len() as u64);
        match array {
            Array::U8(v) => self.bytes.extend_from_slice(v),
            Array::I8(v) => v.iter().for_each(|v| self.scalar(v.to_le_bytes())),
            Array::U16(v) => v.iter().for_each(|v| self.scalar(v.to_le_bytes())),
            Array::I16(v) => v.iter().for_each(|v| self.scalar(v.to_le_bytes())),
            Array::U32(v) => v.iter().for_each(|v| self.scalar(v.to_le_bytes())),
            Array::I32(v) => v.iter().for_each(|v| self.scalar(v.to_le_bytes())),
            Array::F32(v) => v.iter().for_each(|v| self.scalar(v.to_le_bytes())),
            Array::Bool(v) => self.bytes.extend(v.iter().map(|&v| u8::from(v))),
            Array::String(v) => v.iter().for_each(|v| self.string(v)),
            Array::Array(v) => v.iter().for_each(|v| self.array(v)),
            Array::U64(v) => v.iter().for_each(|v| self.scalar(v.to_le_bytes())),
            Array::I64(v) => v.iter().for_each(|v| self.scalar(v.to_le_bytes())),
            Array::F64(v) => v.iter().for_each(|v| self.scalar(v.to_le_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::divide_evenly;

    #[test]
    fn even_parts_are_whole_and_never_empty() {
        for (sizes, count, expected) in [
            (&[1u64, 1, 1, 1][..], 2, 2),
            (&[100, 1, 1, 1], 3, 3),
            (&[1, 1, 1, 100], 3, 3),
            (&[5, 5], 9, 2),
            (&[0, 0, 0], 2, 2),
            (&[], 3, 1),
        ] {
            let parts = divide_evenly(sizes, count);
            let all: Vec<usize> = parts.iter().cloned().flatten().collect();
            assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>(), "{sizes:?}");
            assert_eq!(parts.len(), expected, "{sizes:?}: {parts:?}");
            assert!(sizes.is_empty() || parts.iter().all(|part| !part.is_empty()));
        }
        assert_eq!(divide_evenly(&[1, 1, 1, 1], 2), [0..2, 2..4]);
    }
}
