//! MLX: values packed along the rows, with a scale and a bias for every group.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use serde_json::Value as Json;

use super::packed::{field, words};
use super::{Named, Tensors, floats, parameter};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows};

/// `w[o][i] = q · scale[o][g] + bias[o][g]`.
#[derive(Debug)]
struct Affine {
    weight: Stored,
    scales: Vec<f32>,
    biases: Vec<f32>,
    group_size: usize,
    bits: usize,
    words_per_row: usize,
}

pub(super) fn read(
    tensors: &[Stored],
    by_name: &Tensors,
    scheme: &Json,
) -> Result<Vec<Named>, Error> {
    let bits = parameter(scheme, "bits").unwrap_or(4) as usize;
    if ![2, 4, 8].contains(&bits) {
        return Err(Error::config(
            "quantization",
            format!("has {bits} bits; MLX is read with 2, 4 and 8"),
        ));
    }
    let group_size = parameter(scheme, "group_size").unwrap_or(64);
    let mut out = Vec::new();
    for tensor in tensors {
        let base = |suffix: &str| tensor.name.strip_suffix(suffix);
        let scales = base(".weight").and_then(|base| by_name.get(&format!("{base}.scales")));
        if let (Some(base), Some(scales), Dtype::U32) = (base(".weight"), scales, tensor.dtype) {
            let biases = by_name.need(&format!("{base}.biases"))?;
            let expr = affine(tensor, scales, biases, bits, group_size)?;
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

fn affine(
    weight: &Stored,
    scales: &Stored,
    biases: &Stored,
    bits: usize,
    group_size: u64,
) -> Result<Expr, Error> {
    let words_per_row = weight.shape.last().copied().unwrap_or(0);
    let columns = words_per_row * (32 / bits as u64);
    let groups = columns / group_size;
    let mut expected = weight.shape.clone();
    if let Some(last) = expected.last_mut() {
        *last = groups;
    }
    if groups * group_size != columns || scales.shape != expected || biases.shape != expected {
        return Err(Error::tensor(
            &weight.name,
            format!(
                "values {:?}, scales {:?} and biases {:?} do not fit {bits} bits in groups of \
                 {group_size}",
                weight.shape, scales.shape, biases.shape
            ),
        ));
    }
    let mut shape: Vec<u64> = weight.shape.iter().rev().copied().collect();
    shape[0] = columns;
    let affine = Affine {
        weight: weight.clone(),
        scales: floats(scales),
        biases: floats(biases),
        group_size: group_size as usize,
        bits,
        words_per_row: words_per_row as usize,
    };
    Ok(Expr::scheme(TensorType::F32, &shape, affine))
}

impl Rows for Affine {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let per_word = 32 / self.bits;
        let columns = self.words_per_row * per_word;
        let groups = columns / self.group_size;
        let packed = words(&self.weight);
        for output in rows.start as usize..rows.end as usize {
            let row = &packed[output * self.words_per_row..][..self.words_per_row];
            for column in 0..columns {
                let group = output * groups + column / self.group_size;
                let value = field(row[column / per_word], column % per_word, self.bits);
                let value = value as f32 * self.scales[group] + self.biases[group];
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        let size = self.words_per_row * 4;
        self.weight
            .release(rows.start as usize * size..rows.end as usize * size);
    }
}
