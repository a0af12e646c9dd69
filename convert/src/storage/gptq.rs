//! GPTQ: columns of packed values, grouped by an index.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use serde_json::Value as Json;

use super::packed::{Table, append_by_columns, stream, words};
use super::{Named, Tensors, groups_of, matrix, parameter};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows};

/// Bits that are read: 3 as a stream that crosses words, the others never do.
const BITS: [u64; 4] = [2, 3, 4, 8];

/// A matrix stored input-major: `w[o][i] = scales[g][o] · (q[i][o] − zero[g][o])`, `g = group[i]`.
#[derive(Debug)]
struct Grouped {
    weight: Stored,
    zeros: Stored,
    scales: Table,
    groups: Vec<u32>,
    bits: usize,
    outputs: usize,
    /// What is stored below the true zero point.
    zero_offset: u32,
}

/// Plain tensors in their places, unpacked ones after them.
pub(super) fn read(
    tensors: &[Stored],
    by_name: &Tensors,
    scheme: &Json,
) -> Result<Vec<Named>, Error> {
    let bits = parameter(scheme, "bits").unwrap_or(4);
    if !BITS.contains(&bits) {
        return Err(Error::config(
            "quantization_config",
            format!("has {bits} bits; GPTQ is read with {BITS:?}"),
        ));
    }
    let mut plain = Vec::new();
    let mut unpacked = Vec::new();
    for tensor in tensors {
        let base = |suffix: &str| tensor.name.strip_suffix(suffix);
        if let Some(base) = base(".qweight") {
            let weight = grouped(tensor, by_name, base, scheme, bits)?;
            unpacked.push((format!("{base}.weight"), weight));
            continue;
        }
        let owner = [".qzeros", ".scales", ".g_idx"].into_iter().find_map(base);
        if owner.is_none_or(|base| by_name.get(&format!("{base}.qweight")).is_none()) {
            plain.push((tensor.name.clone(), Expr::load(tensor)));
        }
    }
    plain.extend(unpacked);
    Ok(plain)
}

fn grouped(
    weight: &Stored,
    by_name: &Tensors,
    base: &str,
    scheme: &Json,
    bits: u64,
) -> Result<Expr, Error> {
    let zeros = by_name.need(&format!("{base}.qzeros"))?;
    let scales = by_name.need(&format!("{base}.scales"))?;
    let [packed, outputs] = matrix(weight)?;
    let [groups, _] = matrix(scales)?;
    let inputs = packed.saturating_mul(32) / bits;
    let table = Table::new(scales, groups).filter(|table| table.columns() as u64 == outputs);
    let fits = weight.dtype == Dtype::I32
        && zeros.dtype == Dtype::I32
        && inputs * bits == packed * 32
        && zeros.shape == [groups, (outputs * bits).div_ceil(32)];
    let (Some(scales), true) = (table, fits) else {
        return Err(Error::tensor(
            &weight.name,
            format!(
                "qweight {:?}, qzeros {:?} and scales {:?} do not fit {bits} bits",
                weight.shape, zeros.shape, scales.shape
            ),
        ));
    };
    let index = by_name.get(&format!("{base}.g_idx"));
    let size = parameter(scheme, "group_size").unwrap_or(inputs);
    // The first format stores zero points less one.
    let v2 = scheme.get("checkpoint_format").and_then(Json::as_str) == Some("gptq_v2");
    let grouped = Grouped {
        weight: weight.clone(),
        zeros: zeros.clone(),
        scales,
        groups: groups_of(weight, index, inputs, size, groups)?,
        bits: bits as usize,
        outputs: outputs as usize,
        zero_offset: u32::from(!v2),
    };
    Ok(Expr::scheme(TensorType::F32, &[inputs, outputs], grouped))
}

impl Grouped {
    /// Scales and zero points of a group, for these outputs.
    fn group(&self, group: usize, outputs: &Range<usize>, scales: &mut Vec<f32>) -> Vec<i32> {
        self.scales.read(group, outputs.clone(), scales);
        let row = (self.outputs * self.bits).div_ceil(32) * 4;
        let zeros = &self.zeros.bytes()[group * row..][..row];
        let zero = |output| stream(zeros, output, self.bits) + self.zero_offset;
        outputs.clone().map(|o| zero(o).cast_signed()).collect()
    }
}

impl Rows for Grouped {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let outputs = rows.start as usize..rows.end as usize;
        let words = words(&self.weight);
        let word = |at: usize| -> &[[u8; 4]] {
            let row = words.get(at * self.outputs..(at + 1) * self.outputs);
            row.map_or(&[], |row| &row[outputs.clone()])
        };
        let mask = (1u64 << self.bits) - 1;
        let count = self.scales.rows();
        let mut scales = vec![Vec::new(); count];
        let zeros: Vec<Vec<i32>> = (0..count)
            .map(|group| self.group(group, &outputs, &mut scales[group]))
            .collect();
        append_by_columns(outputs.len(), self.groups.len(), out, |input, values| {
            let group = self.groups[input] as usize;
            let (scales, zeros) = (&scales[group], &zeros[group]);
            let bit = input * self.bits;
            let (low, high) = (word(bit / 32), word(bit / 32 + 1));
            for (at, value) in values.iter_mut().enumerate() {
                let high = high.get(at).map_or(0, |word| u32::from_le_bytes(*word));
                let both = u64::from(high) << 32 | u64::from(u32::from_le_bytes(low[at]));
                let quant = (both >> (bit % 32) & mask) as i32;
                *value = scales[at] * (quant - zeros[at]) as f32;
            }
        });
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        if rows.end as usize == self.outputs {
            self.weight.release(0..self.weight.bytes().len());
        }
    }
}
