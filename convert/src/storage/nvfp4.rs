//! NVFP4 as ModelOpt stores it: neighbouring values in a byte, an FP8 scale for 16 values and a
//! factor for the whole tensor.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};

use super::{Named, Tensors, floats, matrix};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows};

/// Values, scale bytes and code bytes of ggml's block.
const VALUES: u64 = 64;
const SCALES: usize = 4;
const CODES: usize = 32;

#[derive(Debug)]
struct Packed {
    codes: Stored,
    scales: Stored,
    blocks_per_row: usize,
}

/// Packed weights first, each with its factors; then all other tensors.
pub(super) fn read(tensors: &[Stored], by_name: &Tensors) -> Result<Vec<Named>, Error> {
    let mut packed = Vec::new();
    let mut others = Vec::new();
    for tensor in tensors {
        let base = |suffix: &str| tensor.name.strip_suffix(suffix);
        let scales = base(".weight").and_then(|base| by_name.get(&format!("{base}.weight_scale")));
        if let (Some(base), Some(scales), Dtype::U8) = (base(".weight"), scales, tensor.dtype) {
            packed.push((tensor.name.clone(), repack(tensor, scales)?));
            for (stored, suffix) in [("weight_scale_2", "scale"), ("input_scale", "input_scale")] {
                if let Some(factor) = by_name.get(&format!("{base}.{stored}"))
                    && floats(factor) != [1.0]
                {
                    packed.push((format!("{base}.{suffix}"), Expr::load(factor).to_f32()));
                }
            }
            continue;
        }
        let owner = [".weight_scale", ".weight_scale_2", ".input_scale"]
            .into_iter()
            .find_map(base);
        let cache = [".k_scale", ".v_scale"]
            .into_iter()
            .any(|s| base(s).is_some());
        if owner.is_none() && !cache {
            others.push((tensor.name.clone(), Expr::load(tensor)));
        }
    }
    packed.extend(others);
    Ok(packed)
}

fn repack(codes: &Stored, scales: &Stored) -> Result<Expr, Error> {
    let [rows, half] = matrix(codes)?;
    let columns = half * 2;
    if columns % VALUES != 0 {
        return Err(Error::tensor(
            &codes.name,
            format!("has rows of {columns} values, which are no whole NVFP4 blocks of {VALUES}"),
        ));
    }
    if scales.dtype != Dtype::F8E4M3 || scales.shape != [rows, columns / 16] {
        return Err(Error::tensor(
            &scales.name,
            format!(
                "is {} {:?}, expected F8E4M3 {:?}",
                scales.dtype,
                scales.shape,
                [rows, columns / 16]
            ),
        ));
    }
    let packed = Packed {
        codes: codes.clone(),
        scales: scales.clone(),
        blocks_per_row: (columns / VALUES) as usize,
    };
    Ok(Expr::scheme(TensorType::NVFP4, &[columns, rows], packed))
}

impl Packed {
    fn span(&self, rows: &Range<u64>) -> Range<usize> {
        rows.start as usize * self.blocks_per_row..rows.end as usize * self.blocks_per_row
    }
}

impl Rows for Packed {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let span = self.span(&rows);
        let codes = &self.codes.bytes()[span.start * CODES..span.end * CODES];
        let scales = &self.scales.bytes()[span.start * SCALES..span.end * SCALES];
        let blocks = codes.as_chunks::<CODES>().0.iter();
        for (codes, scales) in blocks.zip(scales.as_chunks::<SCALES>().0) {
            out.extend_from_slice(scales);
            // In each group of 16, ggml wants values j and j + 8 in byte j.
            for group in codes.as_chunks::<8>().0 {
                let nibble = |value: usize| group[value / 2] >> (value % 2 * 4) & 0xf;
                out.extend((0..8).map(|j| nibble(j) | nibble(j + 8) << 4));
            }
        }
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        let span = self.span(&rows);
        self.codes.release(span.start * CODES..span.end * CODES);
        self.scales.release(span.start * SCALES..span.end * SCALES);
    }
}
