//! BitNet's packed layers: four ternary values in a byte, from four quarters of the rows.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};

use super::{Named, Tensors, floats, matrix};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows};

/// Rows in a byte.
const PER_BYTE: u64 = 4;

/// `w[o][i] = (q − 1) / scale`, where `q` is two bits of a byte that rows `o`, `o + quarter`, …
/// share.
#[derive(Debug)]
struct Ternary {
    weight: Stored,
    /// Rows of bytes: a quarter of the rows of values.
    quarter: usize,
    columns: usize,
    scale: f32,
}

/// Packed weights unpacked; layers that are stored plain stay so.
pub(super) fn read(tensors: &[Stored], by_name: &Tensors) -> Result<Vec<Named>, Error> {
    let mut out = Vec::new();
    for tensor in tensors {
        let name = &tensor.name;
        let owner = name.strip_suffix("_scale").and_then(|of| by_name.get(of));
        if owner.is_some_and(|owner| owner.dtype == Dtype::U8) {
            continue;
        }
        let scale = by_name.get(&format!("{name}_scale"));
        let expr = match scale {
            Some(scale) if tensor.dtype == Dtype::U8 => unpacked(tensor, scale)?,
            _ => Expr::load(tensor),
        };
        out.push((name.clone(), expr));
    }
    Ok(out)
}

fn unpacked(weight: &Stored, scale: &Stored) -> Result<Expr, Error> {
    let [quarter, columns] = matrix(weight)?;
    let &[scale] = &floats(scale)[..] else {
        return Err(Error::tensor(
            &scale.name,
            format!("has shape {:?}, expected one value", scale.shape),
        ));
    };
    let ternary = Ternary {
        weight: weight.clone(),
        quarter: quarter as usize,
        columns: columns as usize,
        scale,
    };
    let rows = quarter.saturating_mul(PER_BYTE);
    Ok(Expr::scheme(TensorType::F32, &[columns, rows], ternary))
}

impl Rows for Ternary {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        for output in rows.start as usize..rows.end as usize {
            let (part, row) = (output / self.quarter, output % self.quarter);
            let bytes = &self.weight.bytes()[row * self.columns..][..self.columns];
            out.extend(bytes.iter().flat_map(|byte| {
                let level = f32::from(byte >> (2 * part) & 3) - 1.0;
                (level / self.scale).to_le_bytes()
            }));
        }
        Ok(())
    }

    /// Every byte is read once for each quarter of the rows.
    fn release(&self, rows: Range<u64>) {
        if rows.end as usize == self.quarter * PER_BYTE as usize {
            self.weight.release(0..self.weight.bytes().len());
        }
    }

    fn is_ternary(&self) -> bool {
        true
    }
}
