//! AWQ: packed values, eight columns to a word in an order of their own.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use serde_json::Value as Json;

use super::packed::{Table, append_by_columns, field, words};
use super::{Named, Tensors, matrix, parameter};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows};

const PER_WORD: usize = 8;
/// Place in the word of each of eight neighbouring columns: the inverse of the stored order
/// 0, 2, 4, 6, 1, 3, 5, 7.
const PLACE: [usize; PER_WORD] = [0, 4, 1, 5, 2, 6, 3, 7];

/// A matrix stored input-major: `w[o][i] = (q[i][o] − zero[g][o]) · scale[g][o]`, `g = i / size`.
#[derive(Debug)]
struct Grouped {
    weight: Stored,
    zeros: Stored,
    scales: Table,
    inputs: usize,
    outputs: usize,
    group_size: usize,
}

pub(super) fn read(
    tensors: &[Stored],
    by_name: &Tensors,
    scheme: &Json,
) -> Result<Vec<Named>, Error> {
    let bits = parameter(scheme, "bits").or_else(|| parameter(scheme, "w_bit"));
    let version = scheme.get("version").and_then(Json::as_str);
    if bits.is_some_and(|bits| bits != 4)
        || version.is_some_and(|version| !version.eq_ignore_ascii_case("gemm"))
    {
        return Err(Error::config(
            "quantization_config",
            "AWQ is read with 4 bits in the gemm layout",
        ));
    }
    let mut out = Vec::new();
    for tensor in tensors {
        let base = |suffix: &str| tensor.name.strip_suffix(suffix);
        if let Some(base) = base(".qweight") {
            out.push((format!("{base}.weight"), grouped(tensor, by_name, base)?));
            continue;
        }
        let owner = [".qzeros", ".scales"].into_iter().find_map(base);
        if owner.is_none_or(|base| by_name.get(&format!("{base}.qweight")).is_none()) {
            out.push((tensor.name.clone(), Expr::load(tensor)));
        }
    }
    Ok(out)
}

fn grouped(weight: &Stored, by_name: &Tensors, base: &str) -> Result<Expr, Error> {
    let zeros = by_name.need(&format!("{base}.qzeros"))?;
    let scales = by_name.need(&format!("{base}.scales"))?;
    let [inputs, packed] = matrix(weight)?;
    let outputs = packed.saturating_mul(PER_WORD as u64);
    let [groups, _] = matrix(scales)?;
    let table = Table::new(scales, groups).filter(|table| table.columns() as u64 == outputs);
    let fits = weight.dtype == Dtype::I32
        && zeros.dtype == Dtype::I32
        && inputs > 0
        && inputs.checked_rem(groups) == Some(0)
        && zeros.shape == [groups, packed];
    let (Some(scales), true) = (table, fits) else {
        return Err(Error::tensor(
            &weight.name,
            format!(
                "qweight {:?}, qzeros {:?} and scales {:?} do not fit each other",
                weight.shape, zeros.shape, scales.shape
            ),
        ));
    };
    let grouped = Grouped {
        weight: weight.clone(),
        zeros: zeros.clone(),
        scales,
        inputs: inputs as usize,
        outputs: outputs as usize,
        group_size: (inputs / groups) as usize,
    };
    Ok(Expr::scheme(TensorType::F32, &[inputs, outputs], grouped))
}

impl Rows for Grouped {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let outputs = rows.start as usize..rows.end as usize;
        let row_words = self.outputs / PER_WORD;
        let (weight, zeros) = (words(&self.weight), words(&self.zeros));
        let quant = |words: &[[u8; 4]], output: usize| {
            field(words[output / PER_WORD], PLACE[output % PER_WORD], 4).cast_signed()
        };
        let mut scales = Vec::new();
        append_by_columns(outputs.len(), self.inputs, out, |input, values| {
            let group = input / self.group_size;
            if input % self.group_size == 0 {
                self.scales.read(group, outputs.clone(), &mut scales);
            }
            let weight = &weight[input * row_words..][..row_words];
            let zeros = &zeros[group * row_words..][..row_words];
            let scaled = outputs.clone().zip(&scales);
            for (value, (output, scale)) in values.iter_mut().zip(scaled) {
                *value = (quant(weight, output) - quant(zeros, output)) as f32 * scale;
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
