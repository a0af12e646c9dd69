//! Every value of plain tensors and every scale of quantized ones must be finite.

use std::ops::Range;

use rayon::prelude::*;

use super::Findings;
use super::Severity::Error;
use crate::copy::row_chunks;
use crate::error::Subject;
use crate::file::File;
use crate::source::{ReadError, Source};
use crate::tensor_type::TensorType;
use crate::validity::invalid_blocks;

/// Bytes of rows that are looked at as one piece of work.
const CHUNK_BYTES: u64 = 4 << 20;

/// Blocks that break the rule: how many, and the first by its number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bad {
    count: u64,
    first: Option<u64>,
}

impl Bad {
    /// Adds what was found further on.
    fn and(self, later: Self) -> Self {
        Self {
            count: self.count + later.count,
            first: match (self.first, later.first) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }
}

/// Looks at whole blocks of a type; `before` blocks came before them.
fn scan(ty: TensorType, bytes: &[u8], before: u64) -> Bad {
    let mut bad = Bad::default();
    for block in invalid_blocks(ty, bytes) {
        bad.count += 1;
        bad.first.get_or_insert(before + block as u64);
    }
    bad
}

fn scan_tensor(file: &File, tensor: usize) -> Result<Bad, ReadError> {
    let info = &file.tensors()[tensor];
    let blocks_per_row = info.row_len() / info.ty.layout().values as u64;
    let chunks: Vec<Range<u64>> = row_chunks(info, CHUNK_BYTES).collect();
    chunks
        .into_par_iter()
        .map(|rows| {
            let bytes = file.rows(tensor, rows.clone())?;
            let bad = scan(info.ty, &bytes, rows.start * blocks_per_row);
            drop(bytes);
            file.release(tensor, rows);
            Ok(bad)
        })
        .try_reduce(Bad::default, |a, b| Ok(a.and(b)))
}

/// Checks all tensors of a model.
pub(super) fn check_data<'a>(file: &'a File, findings: &mut Findings<'a>) {
    for (tensor, info) in file.tensors().iter().enumerate() {
        let (part, place) = file.tensor_place(tensor);
        findings.file = &part.path;
        let subject = Subject::Tensor(info.name.clone());
        match scan_tensor(file, tensor) {
            Ok(Bad { first: None, .. }) => {}
            Ok(Bad {
                count,
                first: Some(first),
            }) => {
                let layout = info.ty.layout();
                let value = first * layout.values as u64;
                let (row, column) = (value / info.row_len(), value % info.row_len());
                let message = if info.ty.is_quantized() {
                    format!(
                        "{count} blocks with a scale that is not finite, the first in row {row} \
                         at value {column}"
                    )
                } else {
                    format!(
                        "{count} values that are not finite, the first in row {row} at value \
                         {column}"
                    )
                };
                let offset = place.start + first * layout.bytes as u64;
                findings
                    .add(Error, "data-not-finite", subject, offset, message)
                    .help("make the file anew from its source, and check that for the same rows");
            }
            Err(error) => {
                findings.add(
                    Error,
                    "data-unreadable",
                    subject,
                    place.start,
                    error.to_string(),
                );
            }
        }
    }
}
