//! The legacy `.dat` form: names, and means times a number of chunks.

use std::io::Write;
use std::path::Path;

use bstr::{BStr, BString};

use super::{Entry, Importance, ImportanceError};

/// Reads fields one after another; every length is checked against what is left.
struct Fields<'a> {
    bytes: &'a [u8],
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], String> {
        let (taken, left) = self.left.split_at_checked(count).ok_or_else(|| {
            format!(
                "no importance matrix: {what} at byte {} needs {count} bytes, {} are left",
                self.bytes.len() - self.left.len(),
                self.left.len()
            )
        })?;
        self.left = left;
        Ok(taken)
    }

    fn i32(&mut self, what: &str) -> Result<i32, String> {
        let bytes = self.take(4, what)?;
        Ok(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn size(&mut self, what: &str, least: i32) -> Result<usize, String> {
        let at = self.bytes.len() - self.left.len();
        let value = self.i32(what)?;
        if value < least {
            return Err(format!(
                "no importance matrix: {what} at byte {at} is {value}, expected at least {least}"
            ));
        }
        Ok(value as usize)
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<Importance, String> {
    let mut fields = Fields { bytes, left: bytes };
    let mut importance = Importance::default();
    for _ in 0..fields.size("the number of entries", 1)? {
        let length = fields.size("the length of a name", 1)?;
        let name = BString::from(fields.take(length, "a name")?);
        let calls = fields.size("the number of calls", 0)?;
        let count = fields.size("the number of values", 1)?;
        let values = fields.take(count.saturating_mul(4), "the values")?;
        let values = values.as_chunks().0.iter().copied().map(f32::from_le_bytes);
        let mut entry = Entry {
            sums: values.collect(),
            counts: vec![calls as u64],
        };
        if calls == 0 {
            // Written by tools that stored means outright.
            entry.counts = vec![1];
        }
        let shown = name.to_string();
        if importance.entries.insert(name, entry).is_some() {
            return Err(format!("entry `{shown}` is there twice"));
        }
    }
    if !fields.left.is_empty() {
        importance.chunks = fields.size("the number of chunks", 0)? as u32;
        if !fields.left.is_empty() {
            let length = fields.size("the length of the text's name", 0)?;
            let name = fields.take(length, "the text's name")?;
            importance.datasets.push(name.into());
        }
    }
    Ok(importance)
}

pub(super) fn write(
    importance: &Importance,
    path: &Path,
    replace: bool,
) -> Result<(), ImportanceError> {
    let io = |action| {
        move |error| ImportanceError::Io {
            action,
            path: path.to_owned(),
            error,
        }
    };
    let bytes = bytes(importance);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(io("create"))?;
    file.write_all(&bytes).map_err(io("write"))?;
    file.as_file().sync_all().map_err(io("flush"))?;
    if replace {
        file.persist(path)
    } else {
        file.persist_noclobber(path)
    }
    .map(drop)
    .map_err(|error| io("create")(error.error))
}

fn bytes(importance: &Importance) -> Vec<u8> {
    let chunk = u64::from(importance.chunk_size.unwrap_or(1).max(1));
    let mut bytes = Vec::new();
    let put = |bytes: &mut Vec<u8>, number: u64| {
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        bytes.extend_from_slice(&number.to_le_bytes());
    };
    let put_text = |bytes: &mut Vec<u8>, text: &BStr| {
        put(bytes, text.len() as u64);
        bytes.extend_from_slice(text);
    };
    let measured = |entry: &&Entry| entry.counts.iter().any(|&count| count > 0);
    put(
        &mut bytes,
        importance.entries.values().filter(measured).count() as u64,
    );
    for (name, entry) in importance
        .entries
        .iter()
        .filter(|(_, entry)| measured(entry))
    {
        let most = entry.counts.iter().copied().max().unwrap_or(0);
        let calls = most.div_ceil(chunk);
        put_text(&mut bytes, name.as_ref());
        put(&mut bytes, calls);
        put(&mut bytes, entry.sums.len() as u64);
        let columns = entry.columns(entry.counts.len());
        let matrices = entry.sums.chunks_exact(columns.max(1));
        for (sums, &count) in matrices.zip(&entry.counts) {
            for sum in sums {
                let value = match count {
                    0 => calls as f32,
                    // Read from such a file: no need to divide and multiply.
                    _ if count == calls => *sum,
                    _ => sum / count as f32 * calls as f32,
                };
                bytes.extend_from_slice(&value.to_le_bytes());
            }
        }
    }
    put(&mut bytes, importance.chunks.into());
    let dataset = importance.datasets.last();
    put_text(
        &mut bytes,
        dataset.map_or(BStr::new(""), |name| name.as_ref()),
    );
    bytes
}
