//! Split sets: one model in several files.

use std::path::{Path, PathBuf};

use bstr::BString;

use crate::error::Shown;
use crate::metadata::Metadata;
use crate::value::Value;

/// The keys that every part carries: its number from 0, the number of parts, and the number of
/// tensors of all parts.
pub const KEYS: [&str; 3] = [NO, COUNT, TENSORS];
/// `split.no`, u16.
pub const NO: &str = "split.no";
/// `split.count`, u16.
pub const COUNT: &str = "split.count";
/// `split.tensors.count`, i32.
pub const TENSORS: &str = "split.tensors.count";

/// When a new part starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SplitLimit {
    /// Bytes of padded tensor data a part; a larger tensor gets a part of its own.
    Bytes(u64),
    /// Tensors a part.
    Tensors(u64),
    /// This many parts, of about the same size.
    Parts(u64),
    /// So many tensors in each of the parts; what is left over goes into the last.
    Counts(Vec<usize>),
}

/// What is wrong with a split set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum SplitFault {
    #[error("part {} of {count} must be named `…{}`", no + 1, suffix(*no, *count))]
    Name { no: u64, count: u64 },
    #[error("part {} of {count} is missing: {}", no + 1, path.display())]
    Missing { no: u64, count: u64, path: PathBuf },
    #[error("key `{key}` is missing from part {}", no + 1)]
    KeyMissing { key: &'static str, no: u64 },
    #[error("key `{key}` has type {found}: expected an integer that is not negative")]
    KeyType {
        key: &'static str,
        found: &'static str,
    },
    #[error("split.no is {found}: expected {expected}")]
    Number { expected: u64, found: u64 },
    #[error("split.count is {found}, but the file names say {expected}")]
    Count { expected: u64, found: u64 },
    #[error("split.tensors.count is {expected}, but the parts hold {found} tensors")]
    Tensors { expected: u64, found: u64 },
    #[error("tensor `{}` stands in part {} and again in part {}", Shown(name), first + 1, again + 1)]
    Duplicate {
        name: BString,
        first: u64,
        again: u64,
    },
}

impl SplitFault {
    /// A short, stable name of the rule.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name { .. } => "split-name",
            Self::Missing { .. } => "split-missing",
            Self::KeyMissing { .. } => "split-key-missing",
            Self::KeyType { .. } => "split-key-type",
            Self::Number { .. } => "split-no",
            Self::Count { .. } => "split-count",
            Self::Tensors { .. } => "split-tensors-count",
            Self::Duplicate { .. } => "split-duplicate",
        }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Name { .. } => "give the parts back the names they were published with",
            Self::Missing { .. } => "put all parts into one folder",
            _ => "the parts are not of one set, or were edited: download the set again",
        })
    }
}

fn suffix(no: u64, count: u64) -> String {
    format!("-{:05}-of-{count:05}.gguf", no + 1)
}

/// The path of part `no` (from 0) of `count`; `prefix` is the path up to the number.
pub fn part_path(prefix: &Path, no: u64, count: u64) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(suffix(no, count));
    path.into()
}

/// A path that is named like a part: the path up to the number, the number from 0, the count.
pub fn parse_path(path: &Path) -> Option<(PathBuf, u64, u64)> {
    let name = path.file_name()?.to_str()?;
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let parse = |digits: &str| -> Option<u64> {
        let plain = digits.len() >= 5 && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok())?
    };
    let (number, count) = (parse(number)?, parse(count)?);
    let no = number.checked_sub(1).filter(|&no| no < count)?;
    let prefix = path.with_file_name(stem);
    // Leading zeros beyond five digits would make another name.
    (part_path(&prefix, no, count) == path).then_some((prefix, no, count))
}

/// The prefix of the parts of an output: its path without `.gguf`.
pub fn prefix_of(output: &Path) -> PathBuf {
    match output.extension() {
        Some(extension) if extension == "gguf" => output.with_extension(""),
        _ => output.to_owned(),
    }
}

/// An integer key of a part; `None` if it is absent.
pub(crate) fn integer(metadata: &Metadata, key: &'static str) -> Result<Option<u64>, SplitFault> {
    match metadata.get(key) {
        None => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(SplitFault::KeyType {
            key,
            found: value.value_type().name(),
        }),
    }
}

/// Sets the three keys of a part, at the end of its metadata.
pub(crate) fn set_keys(metadata: &mut Metadata, no: u16, count: u16, tensors: i32) {
    metadata.set_last(NO, Value::U16(no));
    metadata.set_last(COUNT, Value::U16(count));
    metadata.set_last(TENSORS, Value::I32(tensors));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_names_round_trip() {
        let path = Path::new("/models/a-b-00002-of-00012.gguf");
        let (prefix, no, count) = parse_path(path).unwrap();
        assert_eq!((prefix.to_str(), no, count), (Some("/models/a-b"), 1, 12));
        assert_eq!(part_path(&prefix, no, count), path);
        for other in [
            "a.gguf",
            "a-1-of-2.gguf",
            "a-00000-of-00002.gguf",
            "a-00003-of-00002.gguf",
            "a-000001-of-00002.gguf",
            "a-00001-of-00002.bin",
        ] {
            assert_eq!(parse_path(Path::new(other)), None, "{other}");
        }
    }
}
