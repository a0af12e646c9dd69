//! bitsandbytes: 4-bit codes of a table with a scale for every block (itself quantized at times),
//! or 8-bit rows with a scale each.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use serde_json::Value as Json;

use super::{Named, Tensors, floats, matrix, parameter};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows, values};

/// What precedes the kind of codes in the name of a weight's description.
const STATE: &str = ".quant_state.bitsandbytes__";
/// Parts of a 4-bit weight besides its codes and description.
const PARTS: [&str; 4] = [
    ".absmax",
    ".quant_map",
    ".nested_absmax",
    ".nested_quant_map",
];
/// Parts of an 8-bit weight, in place of `weight`.
const SCALES: &str = "SCB";
const FORMAT: &str = "weight_format";

/// Quantized weights unpacked, all others as they are.
pub(super) fn read(tensors: &[Stored], by_name: &Tensors) -> Result<Vec<Named>, Error> {
    let mut states = std::collections::HashMap::new();
    for tensor in tensors {
        if let Some((weight, _)) = tensor.name.split_once(STATE) {
            states.insert(weight, tensor);
        }
    }
    let mut out = Vec::new();
    for tensor in tensors {
        let name = tensor.name.as_str();
        if let Some(state) = states.get(name) {
            out.push((name.to_owned(), four_bits(tensor, state, by_name)?));
            continue;
        }
        let module = name.strip_suffix(".weight");
        let scales = module.and_then(|module| by_name.get(&format!("{module}.{SCALES}")));
        if let (Some(scales), Dtype::I8) = (scales, tensor.dtype) {
            out.push((name.to_owned(), eight_bits(tensor, scales)?));
            continue;
        }
        let of_four = name.contains(STATE)
            || PARTS.iter().any(|part| {
                let weight = name.strip_suffix(part);
                weight.is_some_and(|weight| states.contains_key(weight))
            });
        let of_eight = [SCALES, FORMAT].iter().any(|part| {
            let module = name.strip_suffix(part);
            let weight = module.and_then(|module| by_name.get(&format!("{module}weight")));
            weight.is_some_and(|weight| weight.dtype == Dtype::I8)
        });
        if !of_four && !of_eight {
            out.push((name.to_owned(), Expr::load(tensor)));
        }
    }
    Ok(out)
}

/// `w = code_table[code] · absmax[block]`, two codes in a byte, the first in its upper half.
#[derive(Debug)]
struct FourBits {
    codes: Stored,
    table: [f32; 16],
    scales: Scales,
    block: usize,
    columns: usize,
}

/// The largest magnitude of every block.
#[derive(Debug)]
enum Scales {
    Plain(Stored),
    /// `table[code] · scale[code's block] + offset`
    Nested {
        codes: Stored,
        table: Vec<f32>,
        scales: Stored,
        block: usize,
        offset: f32,
    },
}

fn four_bits(codes: &Stored, state: &Stored, by_name: &Tensors) -> Result<Expr, Error> {
    let bad = |reason: String| Error::tensor(&state.name, reason);
    let json: Json = serde_json::from_slice(state.bytes())
        .map_err(|error| bad(format!("is no JSON: {error}")))?;
    let stated = |field: &str| {
        parameter(&json, field).ok_or_else(|| bad(format!("states no `{field}` above zero")))
    };
    let shape = json.get("shape").and_then(Json::as_array);
    let shape: Option<Vec<u64>> = shape.and_then(|shape| shape.iter().map(Json::as_u64).collect());
    let shape = shape.filter(|shape| !shape.is_empty());
    let shape = shape.ok_or_else(|| bad("states no `shape`".into()))?;
    let elements = shape
        .iter()
        .try_fold(1u64, |all, &dim| all.checked_mul(dim));
    if codes.dtype != Dtype::U8 || elements.map(|count| count.div_ceil(2)) != Some(codes.elements())
    {
        return Err(Error::tensor(
            &codes.name,
            format!(
                "is {} {:?}, which are no 4-bit codes of {shape:?}",
                codes.dtype, codes.shape
            ),
        ));
    }
    let block = stated("blocksize")?;
    let blocks = codes.elements().saturating_mul(2).div_ceil(block);
    let part = |suffix: &str, dtype: Dtype, count: u64| {
        let part = by_name.need(&format!("{}{suffix}", codes.name))?;
        if part.dtype == dtype && part.elements() == count {
            return Ok(part);
        }
        Err(Error::tensor(
            &part.name,
            format!(
                "is {} {:?}, expected {count} of {dtype}",
                part.dtype, part.shape
            ),
        ))
    };
    let table = floats(part(".quant_map", Dtype::F32, 16)?);
    let table = <[f32; 16]>::try_from(table).map_err(|_| bad("has no table of codes".into()))?;
    let nested = by_name.get(&format!("{}.nested_absmax", codes.name));
    let blocks_stored = blocks.min(elements.unwrap_or(0).div_ceil(block));
    let scales = if nested.is_none() {
        Scales::Plain(part(".absmax", Dtype::F32, blocks_stored)?.clone())
    } else {
        let block = stated("nested_blocksize")?;
        let count = blocks_stored.div_ceil(block);
        let offset = json.get("nested_offset").and_then(Json::as_f64);
        Scales::Nested {
            codes: part(".absmax", Dtype::U8, blocks_stored)?.clone(),
            table: floats(part(".nested_quant_map", Dtype::F32, 256)?),
            scales: part(".nested_absmax", Dtype::F32, count)?.clone(),
            block: block as usize,
            offset: offset.ok_or_else(|| bad("states no `nested_offset`".into()))? as f32,
        }
    };
    let gguf: Vec<u64> = shape.iter().rev().copied().collect();
    let four = FourBits {
        codes: codes.clone(),
        table,
        scales,
        block: block as usize,
        columns: gguf[0] as usize,
    };
    Ok(Expr::scheme(TensorType::F32, &gguf, four))
}

impl Scales {
    /// Those of some blocks.
    fn read(&self, blocks: Range<usize>, into: &mut Vec<f32>) {
        into.clear();
        match self {
            Self::Plain(stored) => values::widen(stored, blocks.start, blocks.len(), into),
            Self::Nested {
                codes,
                table,
                scales,
                block,
                offset,
            } => {
                let mut outer = Vec::with_capacity(1);
                for at in blocks {
                    if at % block == 0 || outer.is_empty() {
                        outer.clear();
                        values::widen(scales, at / block, 1, &mut outer);
                    }
                    let code = usize::from(codes.bytes()[at]);
                    into.push(table[code] * outer[0] + offset);
                }
            }
        }
    }
}

impl Rows for FourBits {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let span = rows.start as usize * self.columns..rows.end as usize * self.columns;
        if span.is_empty() {
            return Ok(());
        }
        let first = span.start / self.block;
        let mut scales = Vec::new();
        self.scales
            .read(first..span.end.div_ceil(self.block), &mut scales);
        let codes = self.codes.bytes();
        out.extend(span.flat_map(|at| {
            let code = codes[at / 2] >> (4 * (1 - at % 2)) & 0xf;
            let value = self.table[usize::from(code)] * scales[at / self.block - first];
            value.to_le_bytes()
        }));
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        let bytes = |row: u64| row as usize * self.columns / 2;
        self.codes.release(bytes(rows.start)..bytes(rows.end));
    }
}

/// `w[o][i] = q · scale[o] / 127`
#[derive(Debug)]
struct EightBits {
    weight: Stored,
    scales: Stored,
    columns: usize,
}

fn eight_bits(weight: &Stored, scales: &Stored) -> Result<Expr, Error> {
    let [rows, columns] = matrix(weight)?;
    if scales.elements() != rows {
        return Err(Error::tensor(
            &scales.name,
            format!(
                "has shape {:?}, expected a scale for each of {rows} rows",
                scales.shape
            ),
        ));
    }
    let eight = EightBits {
        weight: weight.clone(),
        scales: scales.clone(),
        columns: columns as usize,
    };
    Ok(Expr::scheme(TensorType::F32, &[columns, rows], eight))
}

impl Rows for EightBits {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        /// The library multiplies by the rounded reciprocal.
        const STEP: f32 = 1.0 / 127.0;
        let (mut row, mut scales) = (Vec::new(), Vec::new());
        let count = (rows.end - rows.start) as usize;
        values::widen(&self.scales, rows.start as usize, count, &mut scales);
        for (at, scale) in (rows.start as usize..).zip(scales) {
            row.clear();
            values::widen(&self.weight, at * self.columns, self.columns, &mut row);
            out.extend(row.iter().flat_map(|q| (q * scale * STEP).to_le_bytes()));
        }
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        let bytes = |row: u64| row as usize * self.columns;
        self.weight.release(bytes(rows.start)..bytes(rows.end));
    }
}
