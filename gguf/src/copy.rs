//! Copying a source's rows, in bounded memory.

use std::ops::Range;

use crate::error::Error;
use crate::source::{Source, TensorInfo};
use crate::writer::Writer;

/// Bytes of rows that are handled at a time.
pub const CHUNK_BYTES: u64 = 8 << 20;

/// Divides a tensor's rows into ranges of about `bytes` bytes, at least a row each.
pub fn row_chunks(info: &TensorInfo, bytes: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let rows = info.rows();
    let row = info.ty.row_bytes(info.row_len()).unwrap_or(0).max(1);
    let step = (bytes / row).max(1);
    (0..rows.div_ceil(step)).map(move |chunk| chunk * step..rows.min((chunk + 1) * step))
}

/// Writes all rows of the source's tensors, which are the writer's tensors in the same order,
/// except those that are there already. `progress` is told how many bytes were written.
///
/// # Errors
/// If reading or writing fails.
pub fn copy_rows(
    source: &dyn Source,
    writer: &Writer,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    for (tensor, info) in source.tensors().iter().enumerate() {
        if writer.is_done(tensor) {
            continue;
        }
        for rows in row_chunks(info, CHUNK_BYTES) {
            let bytes = source.rows(tensor, rows.clone())?;
            writer.write_rows(tensor, rows.start, &bytes)?;
            progress(bytes.len() as u64);
            drop(bytes);
            source.release(tensor, rows);
        }
        writer.complete(tensor, 0)?;
    }
    Ok(())
}
