//! Safetensors files.

use std::path::Path;
use std::sync::Arc;

use ::safetensors::{Dtype as FileDtype, SafeTensorError, SafeTensors};
use gristmill_gguf::Map;

use super::stored::{Dtype, Stored};
use crate::Error;

fn dtype(stored: FileDtype) -> Option<Dtype> {
    Some(match stored {
        FileDtype::F64 => Dtype::F64,
        FileDtype::F32 => Dtype::F32,
        FileDtype::F16 => Dtype::F16,
        FileDtype::BF16 => Dtype::BF16,
        FileDtype::F8_E4M3 => Dtype::F8E4M3,
        FileDtype::F8_E5M2 => Dtype::F8E5M2,
        FileDtype::F8_E8M0 => Dtype::F8E8M0,
        FileDtype::I64 => Dtype::I64,
        FileDtype::I32 => Dtype::I32,
        FileDtype::I16 => Dtype::I16,
        FileDtype::I8 => Dtype::I8,
        FileDtype::U64 => Dtype::U64,
        FileDtype::U32 => Dtype::U32,
        FileDtype::U16 => Dtype::U16,
        FileDtype::U8 => Dtype::U8,
        FileDtype::BOOL => Dtype::Bool,
        _ => return None,
    })
}

/// What is wrong with a header, in words.
fn reason(error: &SafeTensorError, bytes: &[u8]) -> (String, Option<String>) {
    if bytes.starts_with(b"version https://git-lfs") {
        return (
            "is a git-lfs pointer, not the weights".into(),
            Some("run `git lfs pull` in the checkpoint's folder".into()),
        );
    }
    let again = Some("download the file again".into());
    let header = bytes
        .first_chunk()
        .map(|&length| u64::from_le_bytes(length));
    match (error, header) {
        (SafeTensorError::HeaderTooSmall, _) | (_, None) => {
            (format!("is truncated: {} bytes", bytes.len()), again)
        }
        (SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength, Some(length)) => (
            format!(
                "is no safetensors file or is truncated: the header would take {length} bytes, the \
                 file has {}",
                bytes.len()
            ),
            again,
        ),
        (SafeTensorError::MetadataIncompleteBuffer, _) => (
            format!(
                "is truncated or has bytes left over: its tensors do not end at the end of the \
                 file ({} bytes)",
                bytes.len()
            ),
            again,
        ),
        _ => (format!("bad header: {error}"), None),
    }
}

/// The tensors of a file, sorted by name.
pub(super) fn open(path: &Path) -> Result<Vec<Stored>, Error> {
    let map = Arc::new(Map::open(path).map_err(Error::io(path))?);
    let bytes: &[u8] = &map;
    let bad = |error: &SafeTensorError| {
        let (reason, help) = reason(error, bytes);
        Error::File {
            file: path.to_owned(),
            reason,
            help,
        }
    };
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| bad(&error))?;
    let data = header + size_of::<u64>();
    if data + metadata.data_len() != bytes.len() {
        return Err(bad(&SafeTensorError::MetadataIncompleteBuffer));
    }
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let wrong = |reason: String| Error::tensor(format!("{}: {name}", path.display()), reason);
        let dtype = dtype(info.dtype)
            .ok_or_else(|| wrong(format!("type {:?} is not supported", info.dtype)))?;
        let shape: Vec<u64> = info.shape.iter().map(|&dim| dim as u64).collect();
        let (start, end) = info.data_offsets;
        let size = end.saturating_sub(start);
        let tensor = data
            .checked_add(start)
            .zip(data.checked_add(end))
            .and_then(|(start, end)| {
                Stored::new(name.clone(), dtype, shape.clone(), &map, start..end)
            })
            .ok_or_else(|| {
                wrong(format!(
                    "{dtype} of shape {shape:?} does not fit its place of {size} bytes"
                ))
            })?;
        tensors.push(tensor);
    }
    tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}
