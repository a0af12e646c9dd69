//! How the work is divided, and how the source is known again.

use std::fmt::Write;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use gristmill_gguf::{Metadata, Source, TensorInfo};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// Values that are handled at a time: a mebibyte as f32, so that every thread's buffers stay in
/// its cache and memory does not grow with the model.
const CHUNK_VALUES: u64 = 1 << 18;

/// Rows of a chunk: as many as hold [`CHUNK_VALUES`] values, at least one.
fn chunk_rows(info: &TensorInfo) -> u64 {
    (CHUNK_VALUES / info.row_len().max(1)).max(1)
}

/// Number of chunks of a tensor.
pub(super) fn chunk_count(info: &TensorInfo) -> usize {
    // Tensors exist in files, so their chunks can be counted in memory.
    info.rows().div_ceil(chunk_rows(info)) as usize
}

/// The rows of chunk `at`.
pub(super) fn chunk(info: &TensorInfo, at: usize) -> Range<u64> {
    let step = chunk_rows(info);
    let start = at as u64 * step;
    start..info.rows().min(start + step)
}

/// The digests of a tensor's chunks, as they come in.
#[derive(Debug)]
pub(super) struct TensorDigest {
    chunks: Vec<OnceLock<u128>>,
    left: AtomicUsize,
}

impl TensorDigest {
    pub(super) fn new(info: &TensorInfo) -> Self {
        let count = chunk_count(info);
        Self {
            chunks: (0..count).map(|_| OnceLock::new()).collect(),
            left: AtomicUsize::new(count),
        }
    }

    /// Notes a chunk's stored bytes.
    pub(super) fn add(&self, chunk: usize, bytes: &[u8]) {
        // A chunk that is read again (a tensor that is made anew) has the same digest.
        let _ = self.chunks[chunk].set(xxh3_128(bytes));
    }

    /// Says that a chunk is dealt with; true for the last one.
    pub(super) fn finish(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The digest of the tensor, once every chunk has been added.
    pub(super) fn get(&self) -> Option<u128> {
        let mut hash = Xxh3::new();
        for chunk in &self.chunks {
            hash.update(&chunk.get()?.to_le_bytes());
        }
        Some(hash.digest128())
    }
}

/// A digest of a whole source: metadata, descriptions and data of all tensors. `None` if a
/// tensor's digest is missing.
pub(super) fn source_digest<'a>(
    metadata: &Metadata,
    tensors: impl Iterator<Item = (&'a TensorInfo, Option<u128>)>,
) -> Option<String> {
    struct Hashed(Xxh3);
    impl Write for Hashed {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.update(text.as_bytes());
            Ok(())
        }
    }
    let mut hash = Hashed(Xxh3::new());
    for (key, value) in metadata.iter() {
        write!(hash, "{key:?}{value:?}").ok()?;
    }
    for (info, digest) in tensors {
        write!(hash, "{info:?}{:x}", digest?).ok()?;
    }
    Some(format!("xxh3-128:{:032x}", hash.0.digest128()))
}

/// The digest that a job reports of its source, by reading all of it: what a finished output is
/// compared with before it is trusted. It tells sources apart; it is no cryptographic hash.
///
/// # Errors
/// If the source cannot be read.
pub fn digest_source(source: &dyn Source) -> Result<String, gristmill_gguf::ReadError> {
    use rayon::prelude::*;
    let digests = source
        .tensors()
        .iter()
        .enumerate()
        .map(|(tensor, info)| {
            let digest = TensorDigest::new(info);
            (0..chunk_count(info)).into_par_iter().try_for_each(|at| {
                let rows = chunk(info, at);
                digest.add(at, &source.rows(tensor, rows.clone())?);
                source.release(tensor, rows);
                Ok::<_, gristmill_gguf::ReadError>(())
            })?;
            Ok((info, digest.get()))
        })
        .collect::<Result<Vec<_>, gristmill_gguf::ReadError>>()?;
    Ok(source_digest(source.metadata(), digests.into_iter()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use gristmill_gguf::TensorType;

    use super::*;

    #[test]
    fn chunks_cover_every_row_once() {
        for shape in [
            vec![256, 5000],
            vec![1 << 20, 3],
            vec![7],
            vec![300, 11, 13],
        ] {
            let info = TensorInfo {
                name: "x".into(),
                shape,
                ty: TensorType::F16,
            };
            let mut next = 0;
            for range in (0..chunk_count(&info)).map(|at| chunk(&info, at)) {
                assert_eq!(range.start, next);
                assert!(range.end > range.start);
                let values = (range.end - range.start) * info.row_len();
                assert!(values <= CHUNK_VALUES || range.end - range.start == 1);
                next = range.end;
            }
            assert_eq!(next, info.rows());
        }
    }
}
