//! 8-bit values with a scale for every block, channel or tensor.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use serde_json::Value as Json;

use super::packed::Table;
use super::{Named, Tensors, is_of_run_time};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows, values};

/// A stored matrix times a grid of scales, each of which covers a block.
#[derive(Debug)]
struct Scaled {
    weight: Stored,
    columns: usize,
    scales: Table,
    /// Subtracted before, where the values are not symmetric.
    zeros: Option<Table>,
    /// Rows and columns that a scale covers.
    block: [usize; 2],
}

/// Rows and columns that a scale covers where nothing else is stated.
pub(super) const BLOCK: [u64; 2] = [128, 128];

/// Names of a weight's scale.
const SCALES: [&str; 3] = ["_scale_inv", "_scale", ".scale"];
/// In Mistral's own format, in place of `.weight`.
const MISTRAL_SCALE: &str = ".qscale_weight";
const ZERO_POINT: &str = "_zero_point";

pub(super) fn read(
    tensors: &[Stored],
    by_name: &Tensors,
    scheme: &Json,
) -> Result<Vec<Named>, Error> {
    let size = scheme.get("weight_block_size").and_then(Json::as_array);
    let side = |at: usize| size.and_then(|s| s.get(at)?.as_u64()).filter(|&n| n > 0);
    let block = [side(0).unwrap_or(BLOCK[0]), side(1).unwrap_or(BLOCK[1])];
    read_with(tensors, by_name, block)
}

/// Every tensor with a scale beside it times that scale; the others as they are.
pub(super) fn read_with(
    tensors: &[Stored],
    by_name: &Tensors,
    block: [u64; 2],
) -> Result<Vec<Named>, Error> {
    let mut out = Vec::new();
    for tensor in tensors {
        let name = &tensor.name;
        if is_of_run_time(name) {
            continue;
        }
        let mut parts = SCALES.iter().chain([&ZERO_POINT]);
        let owner = parts.find_map(|suffix| by_name.get(name.strip_suffix(suffix)?));
        let beside = name.strip_suffix(MISTRAL_SCALE);
        let owner = owner.or_else(|| by_name.get(&format!("{}.weight", beside?)));
        if owner.is_some_and(is_narrow) {
            continue;
        }
        let scale = SCALES
            .iter()
            .find_map(|suffix| by_name.get(&format!("{name}{suffix}")));
        let module = name.strip_suffix(".weight");
        let scale = scale.or_else(|| by_name.get(&format!("{}{MISTRAL_SCALE}", module?)));
        let expr = match scale {
            Some(scale) if is_narrow(tensor) => {
                let zeros = by_name.get(&format!("{name}{ZERO_POINT}"));
                expr(tensor, scale, zeros, block)?
            }
            _ => Expr::load(tensor),
        };
        out.push((name.clone(), expr));
    }
    Ok(out)
}

fn is_narrow(stored: &Stored) -> bool {
    matches!(
        stored.dtype,
        Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::I8 | Dtype::U8
    )
}

/// `weight · scale` in F32: a scale for the tensor, for every row, or for every block. Stacks of
/// matrices have stacks of scales.
fn expr(
    weight: &Stored,
    scale: &Stored,
    zeros: Option<&Stored>,
    block: [u64; 2],
) -> Result<Expr, Error> {
    let (outer, rows, columns) = match weight.shape[..] {
        [rows, columns] => (1, rows, columns),
        [outer, rows, columns] => (outer, rows, columns),
        _ => {
            return Err(Error::tensor(
                &weight.name,
                format!("has shape {:?}, expected a matrix", weight.shape),
            ));
        }
    };
    let misfit = || {
        Error::tensor(
            &scale.name,
            format!(
                "has shape {:?}, which does not fit blocks of {block:?} in {:?}",
                scale.shape, weight.shape
            ),
        )
    };
    let last = scale.shape.last().copied().unwrap_or(1);
    let count = scale.elements();
    if outer * rows == 0 || columns == 0 || zeros.is_some_and(|zeros| zeros.elements() != count) {
        return Err(misfit());
    }
    // By shape, not by count: blocks of 128 in rows of 16384 are as many as the rows.
    let lead = &weight.shape[..weight.shape.len() - 1];
    let per_row = scale.shape == lead || scale.shape.strip_suffix(&[1]) == Some(lead);
    let (grid, block) = if count == 1 {
        (1, [outer * rows, columns])
    } else if per_row {
        (1, [1, columns])
    } else if count == outer && outer > 1 {
        (1, [rows, columns])
    } else if last == columns.div_ceil(block[1]) && count == outer * rows.div_ceil(block[0]) * last
    {
        if outer > 1 && rows % block[0] != 0 {
            return Err(misfit());
        }
        (last, block)
    } else {
        // Groups of columns, a scale for each row of each group.
        let grouped = count.checked_rem(outer * rows) == Some(0);
        let groups = count / (outer * rows).max(1);
        if !grouped || groups == 0 || columns % groups != 0 {
            return Err(misfit());
        }
        (groups, [1, columns / groups])
    };
    let mut shape: Vec<u64> = weight.shape.clone();
    shape.reverse();
    let table = |stored: &Stored| Table::new(stored, count / grid).ok_or_else(misfit);
    let scaled = Scaled {
        weight: weight.clone(),
        columns: columns as usize,
        scales: table(scale)?,
        zeros: zeros.map(table).transpose()?,
        block: block.map(|side| (side as usize).max(1)),
    };
    Ok(Expr::scheme(TensorType::F32, &shape, scaled))
}

impl Rows for Scaled {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let mut row = Vec::with_capacity(self.columns);
        let (mut scales, mut zeros) = (Vec::new(), Vec::new());
        for at in rows.start as usize..rows.end as usize {
            row.clear();
            values::widen(&self.weight, at * self.columns, self.columns, &mut row);
            let line = at / self.block[0];
            self.scales.read_row(line, &mut scales);
            if let Some(table) = &self.zeros {
                table.read_row(line, &mut zeros);
                for (values, zero) in row.chunks_mut(self.block[1]).zip(&zeros) {
                    values.iter_mut().for_each(|value| *value -= zero);
                }
            }
            for (values, scale) in row.chunks_mut(self.block[1]).zip(&scales) {
                values.iter_mut().for_each(|value| *value *= scale);
            }
            out.extend(row.iter().flat_map(|value| value.to_le_bytes()));
        }
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        let size = self.columns * self.weight.dtype.size();
        self.weight
            .release(rows.start as usize * size..rows.end as usize * size);
    }
}
