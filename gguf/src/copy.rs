//! Copying a source's rows, in bounded memory.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::plan::Plan;
use crate::source::{Source, TensorInfo};
use crate::writer::{WriteOptions, Writer};

/// Bytes of rows that are handled at a time.
pub const CHUNK_BYTES: u64 = 8 << 20;

/// Divides a tensor's rows into ranges of about `bytes` bytes, at least a row each.
pub fn row_chunks(info: &TensorInfo, bytes: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let rows = info.rows();
    let row = info.ty.row_bytes(info.row_len()).unwrap_or(0).max(1);
    let step = (bytes / row).max(1);
    (0..rows.div_ceil(step)).map(move |chunk| chunk * step..rows.min((chunk + 1) * step))
}

/// Is told how many bytes were handled, and may ask for an end.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

/// Writes all rows of the source's tensors, which are the writer's tensors in the same order,
/// except those that are there already.
///
/// # Errors
/// If reading or writing fails, or if `progress` asks for an end.
pub fn copy_rows(
    source: &dyn Source,
    writer: &Writer,
    progress: Progress<'_>,
) -> Result<(), Error> {
    for (tensor, info) in source.tensors().iter().enumerate() {
        if writer.is_done(tensor) {
            continue;
        }
        for rows in row_chunks(info, CHUNK_BYTES) {
            let bytes = source.rows(tensor, rows.clone())?;
            writer.write_rows(tensor, rows.start, &bytes)?;
            if progress(bytes.len() as u64).is_break() {
                return Err(Error::Interrupted);
            }
            drop(bytes);
            source.release(tensor, rows);
        }
        writer.complete(tensor, 0)?;
    }
    Ok(())
}

/// Writes a source's tensors as planned: the plan is of the same tensors, with metadata and a
/// layout of its own.
///
/// # Errors
/// If the disk has no room, or as [`Writer::create`], [`copy_rows`] and [`Writer::finish`].
pub fn write(
    source: &dyn Source,
    plan: Plan,
    output: &Path,
    options: &WriteOptions,
    progress: Progress<'_>,
) -> Result<Vec<PathBuf>, Error> {
    plan.check_space(output)?;
    let writer = Writer::create(output, plan, options)?;
    copy_rows(source, &writer, progress)?;
    writer.finish()
}
