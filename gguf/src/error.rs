//! What can be wrong with a file, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bstr::{BString, ByteSlice};

use crate::endian::Endian;
use crate::reader::Flaw;
use crate::split::SplitFault;
use crate::tensor_type::TensorType;
use crate::value::ValueType;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system failed.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried: `open`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The file breaks a rule of the format that makes it unsafe or impossible to read.
    #[error("{}: {subject}{fault} (byte {offset})", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where the offending field stands, in bytes from the start of the file.
        offset: u64,
        /// The key or tensor in question.
        subject: Subject,
        /// The rule, with what was expected and found.
        fault: Fault,
    },
    /// The parts of a split set do not belong together.
    #[error("{}: {fault}", path.display())]
    Split {
        /// The part.
        path: PathBuf,
        /// The rule.
        fault: SplitFault,
    },
    /// A tensor's rows have no defined little-endian form.
    #[error("{}: tensor `{}` of type {ty} in a big-endian file: the byte order inside its blocks is not defined", path.display(), Shown(name))]
    ByteOrder {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: BString,
        /// Its type.
        ty: TensorType,
    },
    /// Metadata or tensors cannot be laid out as a GGUF file.
    #[error("cannot lay out the file: {subject}{fault}")]
    Plan {
        /// The key or tensor in question.
        subject: Subject,
        /// The rule.
        fault: Fault,
    },
    /// The output exists and replacing it was not asked for.
    #[error("{} exists", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// Another process writes the same output.
    #[error("{} is being written by another process", path.display())]
    Busy {
        /// The output.
        path: PathBuf,
    },
    /// An output was finished before all its rows were written.
    #[error("{}: tensor `{}` has {found} of {expected} bytes", path.display(), Shown(name))]
    Incomplete {
        /// The output.
        path: PathBuf,
        /// The first tensor that lacks rows.
        name: BString,
        /// Its size in bytes.
        expected: u64,
        /// Bytes written.
        found: u64,
    },
    /// Rows that do not fit the tensor they are written to.
    #[error("{}: rows of tensor `{}`: {count} bytes at byte {at} of {size} are not whole rows inside it", path.display(), Shown(name))]
    Rows {
        /// The output.
        path: PathBuf,
        /// The tensor.
        name: BString,
        /// Where they were to go, in bytes from the tensor's start.
        at: u64,
        /// How many were given.
        count: u64,
        /// The tensor's size.
        size: u64,
    },
    /// The disk has not enough room for an output.
    #[error("{} needs {needed} bytes, {available} are free", path.display())]
    Space {
        /// The output.
        path: PathBuf,
        /// Its size.
        needed: u64,
        /// What the file system has left for this user.
        available: u64,
    },
    /// Whoever watches the progress asked for an end.
    #[error("interrupted")]
    Interrupted,
    /// The rows to be written could not be read.
    #[error(transparent)]
    Source(#[from] crate::source::ReadError),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io {
            action,
            path: path.to_owned(),
            error,
        }
    }

    pub(crate) fn malformed(path: &Path, subject: Subject, flaw: Flaw) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            offset: flaw.offset,
            subject,
            fault: flaw.fault,
        }
    }

    /// A short, stable name of the rule that was broken.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Malformed { fault, .. } | Self::Plan { fault, .. } => fault.code(),
            Self::Split { fault, .. } => fault.code(),
            Self::ByteOrder { .. } => "byte-order",
            Self::Exists { .. } => "exists",
            Self::Busy { .. } => "busy",
            Self::Incomplete { .. } => "incomplete",
            Self::Rows { .. } => "rows",
            Self::Space { .. } => "space",
            Self::Interrupted => "interrupted",
            Self::Source(_) => "source",
        }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Malformed { fault, .. } | Self::Plan { fault, .. } => fault.help(),
            Self::Split { fault, .. } => fault.help(),
            Self::ByteOrder { .. } => Some("use the little-endian file of the model"),
            Self::Exists { .. } => Some("remove it, choose another name, or pass --force"),
            Self::Space { .. } => Some("free some space, or write to another disk"),
            Self::Io {
                action: "create",
                error,
                ..
            } if error.kind() == io::ErrorKind::NotFound => Some("make the folder first"),
            Self::Busy { .. } => Some("wait for it, or choose another name"),
            _ => None,
        }
    }

    /// Whether the environment (disk, permissions) failed rather than the input.
    pub fn is_environment(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() != io::ErrorKind::NotFound
            && error.kind() != io::ErrorKind::IsADirectory)
            || matches!(self, Self::Busy { .. } | Self::Space { .. })
    }
}

/// What part of a file a fault or finding is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Subject {
    /// The file as such.
    #[default]
    File,
    /// A metadata entry.
    Key(BString),
    /// A tensor.
    Tensor(BString),
}

impl fmt::Display for Subject {
    /// A prefix for a message: empty, or the name and a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Key(key) => write!(f, "key `{}`: ", Shown(key)),
            Self::Tensor(name) => write!(f, "tensor `{}`: ", Shown(name)),
        }
    }
}

/// Untrusted bytes, fit to be printed: escaped, and cut when long.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LIMIT: usize = 100;
        if self.0.len() <= LIMIT {
            return write!(f, "{}", self.0.escape_bytes());
        }
        write!(f, "{}…", self.0[..LIMIT].escape_bytes())
    }
}

/// A field of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Field {
    Magic,
    Version,
    TensorCount,
    KeyCount,
    Key,
    ValueType,
    Value,
    ArrayType,
    ArrayLength,
    TensorName,
    DimensionCount,
    Dimensions,
    TensorType,
    TensorOffset,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Magic => "magic",
            Self::Version => "version",
            Self::TensorCount => "tensor count",
            Self::KeyCount => "key count",
            Self::Key => "key",
            Self::ValueType => "value type",
            Self::Value => "value",
            Self::ArrayType => "array element type",
            Self::ArrayLength => "array length",
            Self::TensorName => "tensor name",
            Self::DimensionCount => "dimension count",
            Self::Dimensions => "dimensions",
            Self::TensorType => "tensor type",
            Self::TensorOffset => "tensor offset",
        })
    }
}

/// A broken rule of the format.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Fault {
    /// The file ends inside a field: a broken download, or a count that is too high.
    #[error("the file ends inside the {field}: {needed} bytes needed, {left} left")]
    Truncated {
        field: Field,
        needed: u64,
        left: u64,
    },
    /// Some other kind of file.
    #[error("not a GGUF file: expected magic `GGUF`, found `{}`", Shown(found))]
    Magic { found: [u8; 4] },
    /// Version 0 was never used.
    #[error("bad version 0: expected 2 or 3")]
    VersionZero,
    /// Version 1, which had 32-bit counts, was used for weeks in 2023.
    #[error("obsolete version 1: expected 2 or 3")]
    VersionObsolete,
    /// A version this reader does not know.
    #[error("unknown version {found}: expected 2 or 3")]
    VersionUnknown { found: u32 },
    /// The version is big-endian, the rest is not.
    #[error("version {found:#010x} is byte-swapped but the counts after it are {} endian", order.name())]
    MixedByteOrder { found: u32, order: Endian },
    /// A count that the file cannot hold.
    #[error("{field} {count} does not fit a file with {left} bytes left")]
    Count { field: Field, count: u64, left: u64 },
    /// A string that is longer than the rest of the file.
    #[error("{field} of {length} bytes does not fit a file with {left} bytes left")]
    StringLength {
        field: Field,
        length: u64,
        left: u64,
    },
    #[error("empty key (entry {index})")]
    KeyEmpty { index: u64 },
    #[error("duplicate key, first at byte {first}")]
    KeyDuplicate { first: u64 },
    #[error("unknown value type {found}: expected 0 to 12")]
    ValueType { found: u32 },
    #[error("unknown array element type {found}: expected 0 to 12")]
    ArrayType { found: u32 },
    #[error(
        "array of {length} elements of {width} bytes or more does not fit a file with {left} bytes left"
    )]
    ArrayLength { length: u64, width: u64, left: u64 },
    /// Arrays of arrays are legal, but a bound on their depth keeps the stack bounded.
    #[error("arrays nested deeper than {limit}")]
    ArrayDepth { limit: usize },
    #[error("alignment has type {}: expected u32", found.name())]
    AlignmentType { found: ValueType },
    #[error("alignment {found}: expected a multiple of 8 or a power of two")]
    AlignmentValue { found: u32 },
    #[error("name of {length} bytes: expected at most {limit}")]
    TensorNameLength { length: u64, limit: u64 },
    #[error("duplicate tensor name{}", first.map(|at| format!(", first described at byte {at}")).unwrap_or_default())]
    TensorDuplicate { first: Option<u64> },
    #[error("{found} dimensions: expected at most 4")]
    DimensionCount { found: u32 },
    #[error("dimension {axis} is {}: expected a number that is not negative", *found as i64)]
    DimensionValue { axis: usize, found: u64 },
    #[error("the number of elements of {shape:?} overflows 63 bits")]
    ElementOverflow { shape: Vec<u64> },
    #[error("tensor type {found} was removed from the format")]
    TensorTypeRemoved { found: u32 },
    #[error("unknown tensor type {found}")]
    TensorTypeUnknown { found: u32 },
    #[error("row of {row} values is not a whole number of {ty} blocks of {block}")]
    RowBlocks {
        row: u64,
        ty: TensorType,
        block: u64,
    },
    #[error("the size in bytes of {shape:?} {ty} overflows")]
    SizeOverflow { shape: Vec<u64>, ty: TensorType },
    #[error("offset {offset} is not a multiple of the alignment {alignment}")]
    OffsetMisaligned { offset: u64, alignment: u64 },
    #[error("data overlaps tensor `{}`", Shown(with))]
    Overlap { with: BString },
    #[error(
        "data of {size} bytes at offset {offset} of the data section ends beyond the file: {needed} bytes needed, {found} found"
    )]
    OutsideFile {
        offset: u64,
        size: u64,
        needed: u128,
        found: u64,
    },
    #[error("the data section would start at byte {start}, beyond the end of the file at {found}")]
    DataStart { start: u64, found: u64 },
    /// Only when writing: a type with no defined byte order in a big-endian file.
    #[error("type {ty} has no defined big-endian form")]
    ByteOrder { ty: TensorType },
    /// Only when writing: more parts than `split.count` can say.
    #[error("{found} parts: expected at most 65535")]
    PartCount { found: u64 },
}

impl Fault {
    /// A short, stable name of the rule.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::Magic { .. } => "bad-magic",
            Self::VersionZero => "bad-version",
            Self::VersionObsolete => "old-version",
            Self::VersionUnknown { .. } => "future-version",
            Self::MixedByteOrder { .. } => "endianness",
            Self::Count { .. } => "count-range",
            Self::StringLength { .. } => "string-length",
            Self::KeyEmpty { .. } => "key-empty",
            Self::KeyDuplicate { .. } => "key-duplicate",
            Self::ValueType { .. } => "value-type",
            Self::ArrayType { .. } => "array-type",
            Self::ArrayLength { .. } => "array-length",
            Self::ArrayDepth { .. } => "array-depth",
            Self::AlignmentType { .. } => "alignment-type",
            Self::AlignmentValue { .. } => "alignment-value",
            Self::TensorNameLength { .. } => "tensor-name-length",
            Self::TensorDuplicate { .. } => "tensor-name-duplicate",
            Self::DimensionCount { .. } => "dims-count",
            Self::DimensionValue { .. } => "dims-value",
            Self::ElementOverflow { .. } => "dims-overflow",
            Self::TensorTypeRemoved { .. } => "tensor-type-removed",
            Self::TensorTypeUnknown { .. } => "tensor-type",
            Self::RowBlocks { .. } => "row-block",
            Self::SizeOverflow { .. } => "size-overflow",
            Self::OffsetMisaligned { .. } => "offset-misaligned",
            Self::Overlap { .. } => "offset-overlap",
            Self::OutsideFile { .. } => "truncated-data",
            Self::DataStart { .. } => "truncated-padding",
            Self::ByteOrder { .. } => "byte-order",
            Self::PartCount { .. } => "split-count",
        }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Truncated { .. } | Self::OutsideFile { .. } | Self::DataStart { .. } => {
                "the file is incomplete or its header is damaged: download or copy it again"
            }
            Self::Count { .. } | Self::StringLength { .. } | Self::ArrayLength { .. } => {
                "the file is damaged or cut short: download it again, or ask its publisher"
            }
            Self::Magic {
                found: [b'P', b'K', 3, 4],
            } => {
                "this is a zip archive (perhaps a PyTorch checkpoint): `grist convert` makes GGUF from checkpoints"
            }
            Self::Magic { .. } => {
                "`grist convert` makes GGUF from checkpoints; files of the formats before GGUF must be made anew"
            }
            Self::VersionZero | Self::VersionObsolete => "make the file anew from its checkpoint",
            Self::VersionUnknown { .. } => {
                "the file is damaged, or newer than this program: look for an update"
            }
            Self::TensorTypeRemoved { .. } => {
                "make the file anew: current programs repack weights when they load them"
            }
            Self::TensorTypeUnknown { .. } => {
                "the file is damaged, or its type belongs to another program or a newer version"
            }
            _ => return None,
        })
    }
}
