//! compressed-tensors: 8-bit values with scales, or values packed into words.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use serde_json::Value as Json;

use super::packed::{Table, field, words};
use super::{Named, Tensors, blocks, floats, groups_of, matrix, nvfp4, parameter};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows};

/// A matrix packed along its rows: `w[o][i] = (q − offset) · scale[o][g]`.
#[derive(Debug)]
struct Packed {
    weight: Stored,
    /// Zero points, packed along the outputs; without them the middle of the range.
    zeros: Option<Stored>,
    scales: Table,
    /// Group of each input.
    groups: Vec<u32>,
    bits: usize,
    words_per_row: usize,
}

pub(super) fn read(
    tensors: &[Stored],
    by_name: &Tensors,
    scheme: &Json,
) -> Result<Vec<Named>, Error> {
    let groups = scheme.get("config_groups").and_then(Json::as_object);
    let group = groups.and_then(|groups| groups.values().next());
    // Groups may have formats of their own; the model has that of the first.
    let format = scheme.get("format").and_then(Json::as_str);
    let format = match format {
        Some("mixed-precision") | None => group
            .and_then(|group| group.get("format"))
            .and_then(Json::as_str),
        stated => stated,
    };
    let many = groups.is_some_and(|groups| groups.len() > 1);
    let weights = group.and_then(|group| group.get("weights"));
    let weights = weights.unwrap_or(&Json::Null);
    match format {
        Some("dense") => Ok(tensors
            .iter()
            .map(|tensor| (tensor.name.clone(), Expr::load(tensor)))
            .collect()),
        Some("float-quantized" | "int-quantized" | "naive-quantized") => {
            let block = weights.get("block_structure").and_then(Json::as_array);
            let side = |at: usize| block.and_then(|b| b.get(at)?.as_u64()).filter(|&n| n > 0);
            let block = [side(0).unwrap_or(128), side(1).unwrap_or(128)];
            blocks::read_with(tensors, by_name, block)
        }
        Some("pack-quantized") if many => Err(Error::config(
            "quantization_config",
            "has several groups of parameters (config_groups); one is read",
        )),
        Some("pack-quantized") => {
            let bits = parameter(weights, "num_bits").unwrap_or(4) as usize;
            if !(1..=8).contains(&bits) {
                return Err(Error::config(
                    "quantization_config",
                    format!("packs {bits} bits; 1 to 8 are read"),
                ));
            }
            unpack(tensors, by_name, bits)
        }
        Some("nvfp4-pack-quantized") => nvfp4::read(tensors, by_name),
        Some(other) => Err(Error::config(
            "quantization_config",
            format!("has the format `{other}` of compressed-tensors, which is not supported"),
        )),
        None => Err(Error::config(
            "quantization_config",
            "states no `format` of compressed-tensors",
        )),
    }
}

/// Plain tensors in their places, unpacked ones after them.
fn unpack(tensors: &[Stored], by_name: &Tensors, bits: usize) -> Result<Vec<Named>, Error> {
    const PARTS: [&str; 4] = ["_scale", "_shape", "_zero_point", "_g_idx"];
    let mut plain = Vec::new();
    let mut unpacked = Vec::new();
    for tensor in tensors {
        let name = &tensor.name;
        if let Some(base) = name.strip_suffix("_packed") {
            unpacked.push((base.to_owned(), packed(tensor, by_name, base, bits)?));
            continue;
        }
        let owner = PARTS.iter().find_map(|part| name.strip_suffix(part));
        if owner.is_none_or(|base| by_name.get(&format!("{base}_packed")).is_none()) {
            plain.push((name.clone(), Expr::load(tensor)));
        }
    }
    plain.extend(unpacked);
    Ok(plain)
}

fn packed(weight: &Stored, by_name: &Tensors, base: &str, bits: usize) -> Result<Expr, Error> {
    let scales = by_name.need(&format!("{base}_scale"))?;
    let [outputs, words_per_row] = matrix(weight)?;
    let per_word = 32 / bits as u64;
    let shape = by_name.get(&format!("{base}_shape"));
    let inputs = match shape.filter(|shape| shape.elements() == 2).map(floats) {
        Some(shape) => shape[1] as u64,
        None => words_per_row * per_word,
    };
    let zeros = by_name.get(&format!("{base}_zero_point"));
    let table = Table::new(scales, outputs);
    let count = table.as_ref().map_or(0, |table| table.columns() as u64);
    let fits = weight.dtype == Dtype::I32
        && inputs.div_ceil(per_word) == words_per_row
        && zeros.is_none_or(|zeros| {
            zeros.dtype == Dtype::I32 && zeros.shape == [outputs.div_ceil(per_word), count]
        });
    let (Some(scales), true) = (table, fits) else {
        return Err(Error::tensor(
            &weight.name,
            format!(
                "packed values {:?} and scales {:?} do not fit {bits} bits",
                weight.shape, scales.shape
            ),
        ));
    };
    let index = by_name.get(&format!("{base}_g_idx"));
    let packed = Packed {
        weight: weight.clone(),
        zeros: zeros.cloned(),
        scales,
        groups: groups_of(weight, index, inputs, inputs.div_ceil(count), count)?,
        bits,
        words_per_row: words_per_row as usize,
    };
    Ok(Expr::scheme(TensorType::F32, &[inputs, outputs], packed))
}

impl Rows for Packed {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let per_word = 32 / self.bits;
        let middle = 1 << (self.bits - 1);
        let packed = words(&self.weight);
        let mut zeros = vec![middle; self.scales.columns()];
        let mut scales = Vec::new();
        for output in rows.start as usize..rows.end as usize {
            let row = &packed[output * self.words_per_row..][..self.words_per_row];
            self.scales.read_row(output, &mut scales);
            if let Some(stored) = &self.zeros {
                let line = &words(stored)[output / per_word * zeros.len()..][..zeros.len()];
                for (zero, &word) in zeros.iter_mut().zip(line) {
                    *zero = field(word, output % per_word, self.bits).cast_signed();
                }
            }
            for (input, &group) in self.groups.iter().enumerate() {
                let group = group as usize;
                let value = field(row[input / per_word], input % per_word, self.bits);
                let value = (value.cast_signed() - zeros[group]) as f32 * scales[group];
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
