//! What distinguishes two models: keys, tensors, data.

use std::collections::HashMap;

use bstr::BString;
use rayon::prelude::*;

use crate::copy::row_chunks;
use crate::source::{ReadError, Source, TensorInfo};
use crate::value::Value;

/// Bytes of rows that are compared as one piece of work.
const CHUNK_BYTES: u64 = 4 << 20;

/// A key that the two do not have in common, or not with the same value.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyDifference {
    /// The key.
    pub key: BString,
    /// Its value in the first model.
    pub first: Option<Value>,
    /// Its value in the second.
    pub second: Option<Value>,
}

/// A tensor that the two do not have in common, or not with the same description and data.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorDifference {
    /// Its name.
    pub name: BString,
    /// Its index and description in the first model.
    pub first: Option<(usize, TensorInfo)>,
    /// Its index and description in the second.
    pub second: Option<(usize, TensorInfo)>,
    /// Rows with different bytes, where type and shape are the same.
    pub rows: Option<u64>,
}

/// All that distinguishes two models. Byte order, alignment, gaps and splits are no differences.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    /// Keys, in the order of the first model, then of the second.
    pub keys: Vec<KeyDifference>,
    /// Tensors, in the same order.
    pub tensors: Vec<TensorDifference>,
    /// Whether the keys that both have stand in another order.
    pub key_order: bool,
    /// Whether the tensors that both have stand in another order.
    pub tensor_order: bool,
}

impl Difference {
    /// Whether there is none but in order.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.tensors.is_empty()
    }
}

/// Values are the same if they have the same type and bits: NaN equals itself here, 0 not -0.
fn same_value(a: &Value, b: &Value) -> bool {
    use crate::value::Array;
    match (a, b) {
        (Value::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
        (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        (Value::Array(Array::F32(a)), Value::Array(Array::F32(b))) => a
            .iter()
            .map(|v| v.to_bits())
            .eq(b.iter().map(|v| v.to_bits())),
        (Value::Array(Array::F64(a)), Value::Array(Array::F64(b))) => a
            .iter()
            .map(|v| v.to_bits())
            .eq(b.iter().map(|v| v.to_bits())),
        (a, b) => a == b,
    }
}

/// Compares two models.
///
/// # Errors
/// If rows cannot be read.
pub fn diff(first: &dyn Source, second: &dyn Source) -> Result<Difference, ReadError> {
    let mut difference = Difference::default();
    let (a, b) = (first.metadata(), second.metadata());
    let mut add = |key: &bstr::BStr, first: Option<&Value>, second: Option<&Value>| {
        difference.keys.push(KeyDifference {
            key: key.to_owned(),
            first: first.cloned(),
            second: second.cloned(),
        });
    };
    for (key, value) in a.iter() {
        match b.get(key) {
            Some(other) if same_value(value, other) => {}
            other => add(key, Some(value), other),
        }
    }
    for (key, value) in b.iter().filter(|(key, _)| !a.contains(key)) {
        add(key, None, Some(value));
    }
    let common_a = a.iter().map(|(key, _)| key).filter(|key| b.contains(key));
    let common_b = b.iter().map(|(key, _)| key).filter(|key| a.contains(key));
    difference.key_order = !common_a.eq(common_b);
    diff_tensors(first, second, &mut difference)?;
    Ok(difference)
}

fn diff_tensors(
    first: &dyn Source,
    second: &dyn Source,
    difference: &mut Difference,
) -> Result<(), ReadError> {
    let index = |source: &dyn Source| -> HashMap<BString, usize> {
        let names = source.tensors().iter().map(|info| info.name.clone());
        names.zip(0..).collect()
    };
    let (in_first, in_second) = (index(first), index(second));
    for (at, info) in first.tensors().iter().enumerate() {
        let mut found = TensorDifference {
            name: info.name.clone(),
            first: Some((at, info.clone())),
            second: None,
            rows: None,
        };
        if let Some(&other_at) = in_second.get(&info.name) {
            let other = &second.tensors()[other_at];
            found.second = Some((other_at, other.clone()));
            if other.ty == info.ty && other.shape == info.shape {
                let rows = differing_rows(first, at, second, other_at)?;
                if rows == 0 {
                    continue;
                }
                found.rows = Some(rows);
            }
        }
        difference.tensors.push(found);
    }
    for (at, info) in second.tensors().iter().enumerate() {
        if !in_first.contains_key(&info.name) {
            difference.tensors.push(TensorDifference {
                name: info.name.clone(),
                first: None,
                second: Some((at, info.clone())),
                rows: None,
            });
        }
    }
    let common = |source: &'_ dyn Source, other: &HashMap<BString, usize>| -> Vec<BString> {
        let names = source.tensors().iter().map(|info| info.name.clone());
        names.filter(|name| other.contains_key(name)).collect()
    };
    difference.tensor_order = common(first, &in_second) != common(second, &in_first);
    Ok(())
}

/// How many rows of two tensors of the same type and shape have different bytes.
fn differing_rows(
    first: &dyn Source,
    first_tensor: usize,
    second: &dyn Source,
    second_tensor: usize,
) -> Result<u64, ReadError> {
    let info = &first.tensors()[first_tensor];
    let row = info.ty.row_bytes(info.row_len()).unwrap_or(0).max(1) as usize;
    let chunks: Vec<_> = row_chunks(info, CHUNK_BYTES).collect();
    chunks
        .into_par_iter()
        .map(|rows| {
            let a = first.rows(first_tensor, rows.clone())?;
            let b = second.rows(second_tensor, rows.clone())?;
            let count = match a == b {
                true => 0,
                false => a
                    .chunks(row)
                    .zip(b.chunks(row))
                    .filter(|(a, b)| a != b)
                    .count(),
            };
            drop((a, b));
            first.release(first_tensor, rows.clone());
            second.release(second_tensor, rows);
            Ok(count as u64)
        })
        .try_reduce(|| 0, |a, b| Ok(a + b))
}
