//! AWQ: packed values, eight columns to a word in an order of their own.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use serde_json::Value as Json;

use super::packed::{field, words};
use super::{Named, Tensors, floats, matrix, parameter};
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
    scales: Vec<f32>,
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
    let outputs = packed * PER_WORD as u64;
    let [groups, _] = matrix(scales)?;
    let fits = weight.dtype == Dtype::I32
        && zeros.dtype == Dtype::I32
        && groups > 0
        && inputs % groups == 0
        && scales.shape == [groups, outputs]
        && zeros.shape == [groups, packed];
    if !fits {
        return Err(Error::tensor(
            &weight.name,
            format!(
                "qweight {:?}, qzeros {:?} and scales {:?} do not fit each other",
                weight.shape, zeros.shape, scales.shape
            ),
        ));
    }
    let grouped = Grouped {
        weight: weight.clone(),
        zeros: zeros.clone(),
        scales: floats(scales),
        inputs: inputs as usize,
        outputs: outputs as usize,
        group_size: (inputs / groups).max(1) as usize,
    };
    Ok(Expr::scheme(TensorType::F32, &[inputs, outputs], grouped))
}

impl Rows for Grouped {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let row_words = self.outputs / PER_WORD;
        let (words_of, zeros_of) = (words(&self.weight), words(&self.zeros));
        for output in rows.start as usize..rows.end as usize {
            let (word, place) = (output / PER_WORD, PLACE[output % PER_WORD]);
            for input in 0..self.inputs {
                let group = input / self.group_size;
                let value = field(words_of[input * row_words + word], place, 4).cast_signed();
                let zero = field(zeros_of[group * row_words + word], place, 4).cast_signed();
                let value = (value - zero) as f32 * self.scales[group * self.outputs + output];
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
