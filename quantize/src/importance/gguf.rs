//! The GGUF form of an importance matrix.

use std::path::Path;

use bstr::{BString, ByteSlice};
use gristmill_gguf::{
    Array, File, Layout, Metadata, Plan, Source, TensorInfo, TensorType, WriteOptions, Writer,
};

use super::{Entry, Importance, ImportanceError};

const SUMS: &[u8] = b".in_sum2";
const COUNTS: &[u8] = b".counts";
/// Tokens in a chunk, unless said otherwise.
const DEFAULT_CHUNK: u32 = 512;

pub(super) fn read(path: &Path) -> Result<Importance, ImportanceError> {
    let file = File::open(path)?;
    let fail = |reason: String| ImportanceError::Format {
        path: path.to_owned(),
        reason,
    };
    let metadata = file.metadata();
    if file.tensors().is_empty() {
        return Err(fail("an importance matrix without entries".into()));
    }
    let number = |key: &str| metadata.u64(key).and_then(|n| u32::try_from(n).ok());
    let mut importance = Importance {
        datasets: match metadata.array("imatrix.datasets") {
            Some(Array::String(names)) => names.clone(),
            _ => Vec::new(),
        },
        chunks: number("imatrix.chunk_count").unwrap_or(0),
        chunk_size: Some(number("imatrix.chunk_size").unwrap_or(DEFAULT_CHUNK)),
        ..Importance::default()
    };
    for info in file.tensors() {
        let is_entry = info.name.ends_with(SUMS) || info.name.ends_with(COUNTS);
        if info.ty != TensorType::F32 || !is_entry {
            return Err(fail(format!(
                "tensor `{}` of type {} is no part of an importance matrix (expected F32 tensors \
                 named *.in_sum2 and *.counts): is this a model?",
                info.name, info.ty
            )));
        }
    }
    let values = |name: &[u8]| -> Result<Vec<f32>, ImportanceError> {
        let (_, data) = file
            .tensor(name)
            .ok_or_else(|| fail(format!("tensor `{}` is missing", name.as_bstr())))??;
        let values = data.as_chunks().0.iter();
        Ok(values.copied().map(f32::from_le_bytes).collect())
    };
    for info in file.tensors() {
        let Some(tensor) = info.name.strip_suffix(SUMS) else {
            // Its sums are looked for from the other side.
            let tensor = info.name.strip_suffix(COUNTS).unwrap_or_default();
            if file.find([tensor, SUMS].concat()).is_none() {
                return Err(fail(format!(
                    "`{}` has counts, but no sums",
                    tensor.as_bstr()
                )));
            }
            continue;
        };
        let sums = values(&info.name)?;
        let counts = values(&[tensor, COUNTS].concat())?;
        let bad = counts
            .iter()
            .find(|count| !(**count >= 0.0 && count.is_finite()));
        if let Some(bad) = bad {
            let tensor = tensor.as_bstr();
            return Err(fail(format!("`{tensor}` has a count of {bad} tokens")));
        }
        if counts.is_empty() || sums.is_empty() || sums.len() % counts.len() != 0 {
            return Err(fail(format!(
                "`{}` has {} values for {} counts",
                tensor.as_bstr(),
                sums.len(),
                counts.len()
            )));
        }
        let counts = counts.iter().map(|count| count.round() as u64).collect();
        importance
            .entries
            .insert(BString::from(tensor), Entry { sums, counts });
    }
    Ok(importance)
}

pub(super) fn write(
    importance: &Importance,
    path: &Path,
    replace: bool,
) -> Result<(), ImportanceError> {
    let mut importance = std::borrow::Cow::Borrowed(importance);
    if importance.chunk_size.is_none() {
        importance.to_mut().set_chunk_size(Some(DEFAULT_CHUNK));
    }
    let mut metadata = Metadata::new();
    metadata.set("general.type", "imatrix");
    metadata.set("imatrix.datasets", importance.datasets.clone());
    metadata.set("imatrix.chunk_count", importance.chunks);
    metadata.set(
        "imatrix.chunk_size",
        importance.chunk_size.unwrap_or(DEFAULT_CHUNK),
    );
    let mut tensors = Vec::new();
    let mut data = Vec::new();
    for (name, entry) in &importance.entries {
        let counts = entry.counts.len();
        let shape = |columns: usize| match counts {
            1 => vec![columns as u64],
            _ => vec![columns as u64, counts as u64],
        };
        let mut add = |suffix: &[u8], columns: usize, values: &mut dyn Iterator<Item = f32>| {
            tensors.push(TensorInfo {
                name: [name.as_slice(), suffix].concat().into(),
                shape: shape(columns),
                ty: TensorType::F32,
            });
            data.push(values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>());
        };
        add(
            SUMS,
            entry.sums.len() / counts.max(1),
            &mut entry.sums.iter().copied(),
        );
        add(
            COUNTS,
            1,
            &mut entry.counts.iter().map(|&count| count as f32),
        );
    }
    let plan = Plan::new(&metadata, &tensors, &Layout::default())?;
    let options = WriteOptions {
        replace,
        ..WriteOptions::default()
    };
    let writer = Writer::create(path, plan, &options)?;
    for (tensor, bytes) in data.iter().enumerate() {
        writer.write_rows(tensor, 0, bytes)?;
    }
    writer.finish()?;
    Ok(())
}
