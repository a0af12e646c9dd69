//! GPTQ: columns of packed values, grouped by an index.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use serde_json::Value as Json;

use super::packed::{field, words};
use super::{Named, Tensors, floats, matrix, parameter};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows};

/// A matrix stored input-major: `w[o][i] = scales[g][o] · (q[i][o] − zero[g][o])`, `g = group[i]`.
#[derive(Debug)]
struct Grouped {
    weight: Stored,
    zeros: Stored,
    scales: Vec<f32>,
    groups: Vec<u32>,
    bits: usize,
    outputs: usize,
    /// What is stored below the true zero point.
    zero_offset: i32,
}

/// Plain tensors in their places, unpacked ones after them.
pub(super) fn read(
    tensors: &[Stored],
    by_name: &Tensors,
    scheme: &Json,
) -> Result<Vec<Named>, Error> {
    let bits = parameter(scheme, "bits").unwrap_or(4);
    if ![2, 4, 8].contains(&bits) {
        return Err(Error::config(
            "quantization_config",
            format!("has {bits} bits; GPTQ is read with 2, 4 and 8"),
        ));
    }
    // The first format stores zero points less one.
    let v2 = scheme.get("checkpoint_format").and_then(Json::as_str) == Some("gptq_v2");
    let mut plain = Vec::new();
    let mut unpacked = Vec::new();
    for tensor in tensors {
        let base = |suffix: &str| tensor.name.strip_suffix(suffix);
        if let Some(base) = base(".qweight") {
            let weight = grouped(tensor, by_name, base, scheme, bits as usize, i32::from(!v2))?;
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
    bits: usize,
    zero_offset: i32,
) -> Result<Expr, Error> {
    let zeros = by_name.need(&format!("{base}.qzeros"))?;
    let scales = by_name.need(&format!("{base}.scales"))?;
    let [packed, outputs] = matrix(weight)?;
    let [groups, _] = matrix(scales)?;
    let per_word = 32 / bits as u64;
    let inputs = packed * per_word;
    let fits = weight.dtype == Dtype::I32
        && zeros.dtype == Dtype::I32
        && scales.shape == [groups, outputs]
        && zeros.shape == [groups, outputs.div_ceil(per_word)];
    if !fits {
        return Err(Error::tensor(
            &weight.name,
            format!(
                "qweight {:?}, qzeros {:?} and scales {:?} do not fit {bits} bits",
                weight.shape, zeros.shape, scales.shape
            ),
        ));
    }
    let index: Vec<u32> = match by_name.get(&format!("{base}.g_idx")) {
        Some(index) => floats(index)
            .into_iter()
            .map(|group| group as u32)
            .collect(),
        None => {
            let size = parameter(scheme, "group_size").unwrap_or(inputs).max(1);
            (0..inputs).map(|input| (input / size) as u32).collect()
        }
    };
    if index.len() as u64 != inputs || index.iter().any(|&group| u64::from(group) >= groups) {
        return Err(Error::tensor(
            format!("{base}.g_idx"),
            format!("does not give each of {inputs} inputs one of {groups} groups"),
        ));
    }
    let grouped = Grouped {
        weight: weight.clone(),
        zeros: zeros.clone(),
        scales: floats(scales),
        groups: index,
        bits,
        outputs: outputs as usize,
        zero_offset,
    };
    Ok(Expr::scheme(TensorType::F32, &[inputs, outputs], grouped))
}

impl Rows for Grouped {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let per_word = 32 / self.bits;
        let zero_words = self.outputs.div_ceil(per_word);
        let (words_of, zeros_of) = (words(&self.weight), words(&self.zeros));
        for output in rows.start as usize..rows.end as usize {
            for (input, &group) in self.groups.iter().enumerate() {
                let group = group as usize;
                let word = words_of[input / per_word * self.outputs + output];
                let value = field(word, input % per_word, self.bits).cast_signed();
                let word = zeros_of[group * zero_words + output / per_word];
                let zero = field(word, output % per_word, self.bits).cast_signed();
                let scale = self.scales[group * self.outputs + output];
                let value = scale * (value - zero - self.zero_offset) as f32;
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        if rows.end as usize == self.outputs {
            self.weight.release(0..self.weight.bytes().len());
        }
    }
}
