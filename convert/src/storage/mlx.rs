//! MLX: values packed along the rows, with a scale and a bias for every group.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use serde_json::Value as Json;

use super::packed::{Table, stream};
use super::{Named, Tensors, mxfp4, nvfp4, parameter};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows};

/// `w[o][i] = q · scale[o][g] + bias[o][g]`.
#[derive(Debug)]
struct Affine {
    weight: Stored,
    scales: Table,
    biases: Table,
    columns: usize,
    bits: usize,
}

const BITS: [u64; 6] = [2, 3, 4, 5, 6, 8];

pub(super) fn read(
    tensors: &[Stored],
    by_name: &Tensors,
    scheme: &Json,
) -> Result<Vec<Named>, Error> {
    let mut out = Vec::new();
    for tensor in tensors {
        let base = |suffix: &str| tensor.name.strip_suffix(suffix);
        let scales = base(".weight").and_then(|base| by_name.get(&format!("{base}.scales")));
        if let (Some(base), Some(scales), Dtype::U32) = (base(".weight"), scales, tensor.dtype) {
            // A module may state parameters of its own.
            let own = scheme.get(base).filter(|own| own.is_object());
            let expr = unpacked(tensor, scales, by_name, base, own.unwrap_or(scheme))?;
            out.push((tensor.name.clone(), expr));
            continue;
        }
        let owner = [".scales", ".biases"].into_iter().find_map(base);
        let packed = |base: &str| by_name.get(&format!("{base}.weight")).map(|w| w.dtype);
        if owner.and_then(packed) != Some(Dtype::U32) {
            out.push((tensor.name.clone(), Expr::load(tensor)));
        }
    }
    Ok(out)
}

fn unpacked(
    weight: &Stored,
    scales: &Stored,
    by_name: &Tensors,
    base: &str,
    scheme: &Json,
) -> Result<Expr, Error> {
    let mode = scheme.get("mode").and_then(Json::as_str);
    match mode.unwrap_or("affine") {
        "affine" => {
            let biases = by_name.need(&format!("{base}.biases"))?;
            affine(weight, scales, biases, scheme)
        }
        "mxfp4" => mxfp4::words(weight, scales),
        "nvfp4" => nvfp4::words(weight, scales),
        other => Err(Error::config(
            "quantization",
            format!("has mode `{other}`; MLX is read in affine, mxfp4 and nvfp4"),
        )),
    }
}

fn affine(weight: &Stored, scales: &Stored, biases: &Stored, scheme: &Json) -> Result<Expr, Error> {
    let bits = parameter(scheme, "bits").unwrap_or(4);
    if !BITS.contains(&bits) {
        return Err(Error::config(
            "quantization",
            format!("has {bits} bits; MLX is read with {BITS:?}"),
        ));
    }
    let group_size = parameter(scheme, "group_size").unwrap_or(64);
    let words = weight.shape.last().copied().unwrap_or(0);
    let rows = weight.elements().checked_div(words).unwrap_or(0);
    let columns = words.saturating_mul(32) / bits;
    let mut expected = weight.shape.clone();
    if let Some(last) = expected.last_mut() {
        *last = columns / group_size;
    }
    let fits = columns.is_multiple_of(group_size)
        && columns * bits == words * 32
        && scales.shape == expected
        && biases.shape == expected;
    let tables = Table::new(scales, rows).zip(Table::new(biases, rows));
    let (Some((scales, biases)), true) = (tables, fits) else {
        return Err(Error::tensor(
            &weight.name,
            format!(
                "values {:?}, scales {:?} and biases {:?} do not fit {bits} bits in groups of \
                 {group_size}",
                weight.shape, scales.shape, biases.shape
            ),
        ));
    };
    let mut shape: Vec<u64> = weight.shape.iter().rev().copied().collect();
    shape[0] = columns;
    let affine = Affine {
        weight: weight.clone(),
        scales,
        biases,
        columns: columns as usize,
        bits: bits as usize,
    };
    Ok(Expr::scheme(TensorType::F32, &shape, affine))
}

impl Affine {
    fn row_bytes(&self) -> usize {
        self.columns * self.bits / 8
    }
}

impl Rows for Affine {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let size = self.columns / self.scales.columns();
        let (mut scales, mut biases) = (Vec::new(), Vec::new());
        for output in rows.start as usize..rows.end as usize {
            let row = &self.weight.bytes()[output * self.row_bytes()..][..self.row_bytes()];
            self.scales.read_row(output, &mut scales);
            self.biases.read_row(output, &mut biases);
            for column in 0..self.columns {
                let group = column / size;
                let value = stream(row, column, self.bits) as f32 * scales[group] + biases[group];
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        let size = self.row_bytes();
        self.weight
            .release(rows.start as usize * size..rows.end as usize * size);
    }
}
