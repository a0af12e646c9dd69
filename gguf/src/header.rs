//! The header: everything before the data section, parsed and checked against the file's length.
//!
//! What passes here is safe to read: every name is unique, every size is exact, every tensor lies
//! inside the file, aligned, and overlaps no other. Rules whose breach harms nobody are left to
//! [`crate::check`].

use std::collections::HashMap;
use std::ops::Range;

use bstr::{BString, ByteSlice};

use crate::endian::Endian;
use crate::error::{Fault, Field, Subject};
use crate::metadata::Metadata;
use crate::reader::{Flaw, Reader};
use crate::schema::keys;
use crate::source::TensorInfo;
use crate::tensor_type::TensorType;
use crate::value::{Array, Value, ValueType};

/// The bytes that a GGUF file starts with, in either byte order.
pub const MAGIC: [u8; 4] = *b"GGUF";
/// The version that is written; 2 differs only in not allowing big-endian files.
pub const VERSION: u32 = 3;
/// Alignment of tensor data where `general.alignment` does not say otherwise.
pub const DEFAULT_ALIGNMENT: u32 = 32;
/// Longest tensor name by the specification, in bytes. llama.cpp takes one byte less.
pub const TENSOR_NAME_LIMIT: u64 = 64;
/// Arrays of arrays may be this deep, so that hostile files cannot exhaust the stack.
const ARRAY_DEPTH_LIMIT: usize = 64;

/// The parsed header of one file.
#[derive(Debug, Clone)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Byte order of the file.
    pub endian: Endian,
    /// Alignment of tensor data, in bytes.
    pub alignment: u64,
    /// The metadata, in file order.
    pub metadata: Metadata,
    /// Where each metadata entry starts, in bytes from the start of the file.
    pub key_offsets: Vec<u64>,
    /// The tensors, in file order.
    pub tensors: Vec<TensorInfo>,
    /// Where each tensor is described, in bytes from the start of the file.
    pub info_offsets: Vec<u64>,
    /// Each tensor's data, in bytes from the start of the file.
    pub data: Vec<Range<u64>>,
    /// End of the last tensor description (or of the metadata, without tensors).
    pub end: u64,
    /// Start of the data section.
    pub data_start: u64,
    /// Booleans stored as neither 0 nor 1: key, and the byte's offset and value. The first of each
    /// entry.
    pub odd_bools: Vec<(BString, u64, u8)>,
}

/// Why parsing stopped, and at what.
pub(crate) type Stop = (Subject, Flaw);

impl Header {
    /// Parses the header of a file given whole.
    pub(crate) fn parse(file: &[u8]) -> Result<Self, Stop> {
        let reader = &mut Reader::new(file);
        let (version, endian, tensor_count, key_count) = preamble(reader).map_err(of_file)?;
        let mut header = Self {
            version,
            endian,
            alignment: DEFAULT_ALIGNMENT.into(),
            metadata: Metadata::new(),
            key_offsets: Vec::new(),
            tensors: Vec::new(),
            info_offsets: Vec::new(),
            data: Vec::new(),
            end: 0,
            data_start: 0,
            odd_bools: Vec::new(),
        };
        for index in 0..key_count {
            header.read_entry(reader, index)?;
        }
        header.read_alignment()?;
        header.read_tensors(reader, tensor_count)?;
        header.end = reader.offset();
        header.check_data(file.len() as u64)?;
        Ok(header)
    }

    fn read_entry(&mut self, reader: &mut Reader<'_>, index: u64) -> Result<(), Stop> {
        let offset = reader.offset();
        let key = reader.string(Field::Key).map_err(of_file)?;
        if key.is_empty() {
            let fault = Fault::KeyEmpty { index };
            return Err(of_file(Flaw { offset, fault }));
        }
        // The index of entries serves as the set of keys seen; a position is needed only to
        // report where the first one stood.
        if self.metadata.contains(&key) {
            let first = self
                .metadata
                .iter()
                .position(|(other, _)| other == key.as_bstr())
                .map_or(0, |at| self.key_offsets[at]);
            let fault = Fault::KeyDuplicate { first };
            return Err((Subject::Key(key), Flaw { offset, fault }));
        }
        let mut odd_bool = None;
        let value = read_value(reader, &mut odd_bool);
        let value = value.map_err(|flaw| (Subject::Key(key.clone()), flaw))?;
        if let Some((offset, byte)) = odd_bool {
            self.odd_bools.push((key.clone(), offset, byte));
        }
        self.key_offsets.push(offset);
        self.metadata.set(key, value);
        Ok(())
    }

    fn read_alignment(&mut self) -> Result<(), Stop> {
        if let Some(alignment) = alignment_of(&self.metadata).map_err(|fault| {
            let at = self
                .metadata
                .iter()
                .position(|(key, _)| key == keys::ALIGNMENT);
            let offset = at.map_or(0, |at| self.key_offsets[at]);
            (Subject::Key(keys::ALIGNMENT.into()), Flaw { offset, fault })
        })? {
            self.alignment = alignment.into();
        }
        Ok(())
    }

    fn read_tensors(&mut self, reader: &mut Reader<'_>, count: u64) -> Result<(), Stop> {
        let mut seen: HashMap<BString, u64> = HashMap::new();
        for _ in 0..count {
            let offset = reader.offset();
            let name = reader.string(Field::TensorName).map_err(of_file)?;
            let (info, data_offset) = read_info(reader, offset, name)?;
            if let Some(first) = seen.insert(info.name.clone(), offset) {
                let fault = Fault::TensorDuplicate { first: Some(first) };
                return Err((Subject::Tensor(info.name), Flaw { offset, fault }));
            }
            // Relative to the data section until that is known.
            self.data.push(data_offset..data_offset);
            self.tensors.push(info);
            self.info_offsets.push(offset);
        }
        Ok(())
    }

    /// Resolves offsets to places in the file and checks them.
    fn check_data(&mut self, file_len: u64) -> Result<(), Stop> {
        // Nothing can overflow here: the end is inside the file, the alignment fits 32 bits.
        self.data_start = self.end.next_multiple_of(self.alignment);
        if self.tensors.is_empty() {
            return Ok(());
        }
        if self.data_start > file_len {
            return Err(of_file(Flaw {
                offset: self.end,
                fault: Fault::DataStart {
                    start: self.data_start,
                    found: file_len,
                },
            }));
        }
        for index in 0..self.tensors.len() {
            let offset = self.data[index].start;
            let info = &self.tensors[index];
            let fault = if !offset.is_multiple_of(self.alignment) {
                Fault::OffsetMisaligned {
                    offset,
                    alignment: self.alignment,
                }
            } else {
                let size = info.bytes().unwrap_or(u64::MAX);
                let needed = u128::from(self.data_start) + u128::from(offset) + u128::from(size);
                // A tensor without elements has no data; its offset may be that of the end of
                // the padded section in a file whose final padding is missing.
                let limit = match size {
                    0 => file_len.next_multiple_of(self.alignment),
                    _ => file_len,
                };
                if needed <= u128::from(limit) {
                    let start = self.data_start + offset;
                    self.data[index] = start..start + size;
                    continue;
                }
                Fault::OutsideFile {
                    offset,
                    size,
                    needed,
                    found: file_len,
                }
            };
            return Err(self.at_info(index, fault));
        }
        let mut order: Vec<usize> = (0..self.data.len())
            .filter(|&index| !self.data[index].is_empty())
            .collect();
        order.sort_by_key(|&index| (self.data[index].start, index));
        for pair in order.windows(2) {
            if self.data[pair[1]].start < self.data[pair[0]].end {
                let with = self.tensors[pair[0]].name.clone();
                return Err(self.at_info(pair[1], Fault::Overlap { with }));
            }
        }
        Ok(())
    }

    fn at_info(&self, index: usize, fault: Fault) -> Stop {
        let subject = Subject::Tensor(self.tensors[index].name.clone());
        let offset = self.info_offsets[index];
        (subject, Flaw { offset, fault })
    }
}

/// The alignment that the metadata asks for, if it does.
pub(crate) fn alignment_of(metadata: &Metadata) -> Result<Option<u32>, Fault> {
    match metadata.get(keys::ALIGNMENT) {
        None => Ok(None),
        Some(&Value::U32(found)) => {
            // The specification wants a multiple of 8; llama.cpp any power of two.
            if found != 0 && (found.is_power_of_two() || found % 8 == 0) {
                Ok(Some(found))
            } else {
                Err(Fault::AlignmentValue { found })
            }
        }
        Some(other) => Err(Fault::AlignmentType {
            found: other.value_type(),
        }),
    }
}

fn of_file(flaw: Flaw) -> Stop {
    (Subject::File, flaw)
}

/// Magic, version, byte order, counts.
fn preamble(reader: &mut Reader<'_>) -> Result<(u32, Endian, u64, u64), Flaw> {
    let found: [u8; 4] = reader.array(Field::Magic)?;
    if found != MAGIC {
        let fault = Fault::Magic { found };
        return Err(Flaw { offset: 0, fault });
    }
    let raw: u32 = reader.scalar(Field::Version)?;
    // There is no flag: a small version number whose low half reads as zero is byte-swapped.
    let (version, endian) = match raw {
        raw if raw & 0xFFFF == 0 && raw != 0 => (raw.swap_bytes(), Endian::Big),
        raw => (raw, Endian::Little),
    };
    let fault = match version {
        0 => Some(Fault::VersionZero),
        1 => Some(Fault::VersionObsolete),
        2 | 3 => None,
        found => Some(Fault::VersionUnknown { found }),
    };
    if let Some(fault) = fault {
        return Err(Flaw { offset: 4, fault });
    }
    reader.set_endian(endian);
    let count_offset = reader.offset();
    let tensor_count: u64 = reader.scalar(Field::TensorCount)?;
    let keys_offset = reader.offset();
    let key_count: u64 = reader.scalar(Field::KeyCount)?;
    // A count of more entries than bytes is nonsense by itself. A lower one that is still too
    // high ends where the file does, with a better message; nothing is reserved ahead.
    let fits = |tensors: u64, keys: u64| tensors.max(keys) <= reader.offset() + reader.left();
    if endian == Endian::Big
        && !fits(tensor_count, key_count)
        && fits(tensor_count.swap_bytes(), key_count.swap_bytes())
    {
        let fault = Fault::MixedByteOrder {
            found: raw,
            order: Endian::Little,
        };
        return Err(Flaw { offset: 4, fault });
    }
    for (field, count, offset) in [
        (Field::TensorCount, tensor_count, count_offset),
        (Field::KeyCount, key_count, keys_offset),
    ] {
        if !fits(count, 0) {
            let left = reader.left();
            let fault = Fault::Count { field, count, left };
            return Err(Flaw { offset, fault });
        }
    }
    Ok((version, endian, tensor_count, key_count))
}

/// Offset and value of a boolean byte that is neither 0 nor 1.
type OddBool = Option<(u64, u8)>;

fn read_value(reader: &mut Reader<'_>, odd: &mut OddBool) -> Result<Value, Flaw> {
    let offset = reader.offset();
    let found: u32 = reader.scalar(Field::ValueType)?;
    let Some(ty) = ValueType::from_id(found) else {
        let fault = Fault::ValueType { found };
        return Err(Flaw { offset, fault });
    };
    let field = Field::Value;
    Ok(match ty {
        ValueType::U8 => Value::U8(reader.scalar(field)?),
        ValueType::I8 => Value::I8(reader.scalar(field)?),
        ValueType::U16 => Value::U16(reader.scalar(field)?),
        ValueType::I16 => Value::I16(reader.scalar(field)?),
        ValueType::U32 => Value::U32(reader.scalar(field)?),
        ValueType::I32 => Value::I32(reader.scalar(field)?),
        ValueType::F32 => Value::F32(reader.scalar(field)?),
        ValueType::U64 => Value::U64(reader.scalar(field)?),
        ValueType::I64 => Value::I64(reader.scalar(field)?),
        ValueType::F64 => Value::F64(reader.scalar(field)?),
        ValueType::Bool => Value::Bool(read_bools(reader, 1, odd)?[0]),
        ValueType::String => Value::String(reader.string(field)?),
        ValueType::Array => Value::Array(read_array(reader, odd, 1)?),
    })
}

fn read_array(reader: &mut Reader<'_>, odd: &mut OddBool, depth: usize) -> Result<Array, Flaw> {
    let offset = reader.offset();
    let found: u32 = reader.scalar(Field::ArrayType)?;
    let Some(ty) = ValueType::from_id(found) else {
        let fault = Fault::ArrayType { found };
        return Err(Flaw { offset, fault });
    };
    let limit = ARRAY_DEPTH_LIMIT;
    if depth > limit {
        let fault = Fault::ArrayDepth { limit };
        return Err(Flaw { offset, fault });
    }
    let offset = reader.offset();
    let length: u64 = reader.scalar(Field::ArrayLength)?;
    let width = least_bytes(ty);
    if length > reader.left() / width {
        let left = reader.left();
        let fault = Fault::ArrayLength {
            length,
            width,
            left,
        };
        return Err(Flaw { offset, fault });
    }
    let field = Field::Value;
    Ok(match ty {
        ValueType::U8 => Array::U8(reader.scalars(length, field)?),
        ValueType::I8 => Array::I8(reader.scalars(length, field)?),
        ValueType::U16 => Array::U16(reader.scalars(length, field)?),
        ValueType::I16 => Array::I16(reader.scalars(length, field)?),
        ValueType::U32 => Array::U32(reader.scalars(length, field)?),
        ValueType::I32 => Array::I32(reader.scalars(length, field)?),
        ValueType::F32 => Array::F32(reader.scalars(length, field)?),
        ValueType::U64 => Array::U64(reader.scalars(length, field)?),
        ValueType::I64 => Array::I64(reader.scalars(length, field)?),
        ValueType::F64 => Array::F64(reader.scalars(length, field)?),
        ValueType::Bool => Array::Bool(read_bools(reader, length, odd)?),
        ValueType::String => Array::String(
            (0..length)
                .map(|_| reader.string(field))
                .collect::<Result<_, _>>()?,
        ),
        ValueType::Array => Array::Array(
            (0..length)
                .map(|_| read_array(reader, odd, depth + 1))
                .collect::<Result<_, _>>()?,
        ),
    })
}

/// The fewest bytes that a value of the type takes in an array.
fn least_bytes(ty: ValueType) -> u64 {
    match ty {
        ValueType::U8 | ValueType::I8 | ValueType::Bool => 1,
        ValueType::U16 | ValueType::I16 => 2,
        ValueType::U32 | ValueType::I32 | ValueType::F32 => 4,
        ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::String => 8,
        ValueType::Array => 4 + 8,
    }
}

fn read_bools(reader: &mut Reader<'_>, count: u64, odd: &mut OddBool) -> Result<Vec<bool>, Flaw> {
    let offset = reader.offset();
    let bytes = reader.take(count, Field::Value)?;
    if let (None, Some(at)) = (&odd, bytes.iter().position(|&byte| byte > 1)) {
        *odd = Some((offset + at as u64, bytes[at]));
    }
    Ok(bytes.iter().map(|&byte| byte != 0).collect())
}

/// A tensor description after its name: the tensor, and its offset in the data section.
fn read_info(
    reader: &mut Reader<'_>,
    offset: u64,
    name: BString,
) -> Result<(TensorInfo, u64), Stop> {
    let subject = || Subject::Tensor(name.clone());
    let at = |offset| move |fault| (subject(), Flaw { offset, fault });
    let length = name.len() as u64;
    if length > TENSOR_NAME_LIMIT {
        let limit = TENSOR_NAME_LIMIT;
        return Err(at(offset)(Fault::TensorNameLength { length, limit }));
    }
    let stop = |flaw| (subject(), flaw);
    let dims_offset = reader.offset();
    let dims: u32 = reader.scalar(Field::DimensionCount).map_err(stop)?;
    if dims > 4 {
        return Err(at(dims_offset)(Fault::DimensionCount { found: dims }));
    }
    let shape_offset = reader.offset();
    let mut shape: Vec<u64> = reader
        .scalars(dims.into(), Field::Dimensions)
        .map_err(stop)?;
    if shape.is_empty() {
        shape.push(1);
    }
    let type_offset = reader.offset();
    let id: u32 = reader.scalar(Field::TensorType).map_err(stop)?;
    check_shape(&shape).map_err(at(shape_offset))?;
    let ty = TensorType::from_id(id).ok_or_else(|| {
        at(type_offset)(match id {
            4 | 5 | 31..=33 | 36..=38 => Fault::TensorTypeRemoved { found: id },
            found => Fault::TensorTypeUnknown { found },
        })
    })?;
    check_size(&shape, ty).map_err(at(shape_offset))?;
    let data_offset = reader.scalar(Field::TensorOffset).map_err(stop)?;
    Ok((TensorInfo { name, shape, ty }, data_offset))
}

/// One to four dimensions whose product fits 63 bits.
pub(crate) fn check_shape(shape: &[u64]) -> Result<(), Fault> {
    if shape.len() > 4 {
        let found = shape.len().try_into().unwrap_or(u32::MAX);
        return Err(Fault::DimensionCount { found });
    }
    if let Some(axis) = shape.iter().position(|&dim| dim > i64::MAX as u64) {
        let found = shape[axis];
        return Err(Fault::DimensionValue { axis, found });
    }
    let elements = shape.iter().try_fold(1u64, |a, &b| a.checked_mul(b));
    let empty = shape.contains(&0);
    if !empty && elements.is_none_or(|elements| elements > i64::MAX as u64) {
        let shape = shape.to_vec();
        return Err(Fault::ElementOverflow { shape });
    }
    Ok(())
}

/// Rows of whole blocks, and a size in bytes that fits.
pub(crate) fn check_size(shape: &[u64], ty: TensorType) -> Result<u64, Fault> {
    let row = shape.first().copied().unwrap_or(1);
    let block = ty.layout().values as u64;
    if !row.is_multiple_of(block) {
        return Err(Fault::RowBlocks { row, ty, block });
    }
    let info = TensorInfo {
        name: BString::default(),
        shape: shape.to_vec(),
        ty,
    };
    info.bytes()
        .filter(|&bytes| bytes <= i64::MAX as u64)
        .ok_or(Fault::SizeOverflow {
            shape: info.shape,
            ty,
        })
}
