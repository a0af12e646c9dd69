//! What each type does to each tensor, measured on sampled rows.

use std::sync::atomic::{AtomicBool, Ordering};

use gristmill_gguf::{Source, TensorType};
use rayon::prelude::*;

use super::candidates;
use crate::importance::{Importance, matrices};
use crate::job::JobError;
use crate::types::{self, Effort};

/// Values of a tensor that are encoded with every type.
const SAMPLE_VALUES: u64 = 1 << 16;

/// The importance-weighted squared error of every type that a tensor can have.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorTable {
    rows: Vec<(usize, Vec<(TensorType, f64)>)>,
}

impl ErrorTable {
    /// Encodes evenly spread rows of the given tensors with every type that fits them, at this
    /// effort, and sums the weighted squared errors, scaled to the whole tensor.
    ///
    /// # Errors
    /// If the source cannot be read or holds values that are not finite, or on cancellation.
    pub fn measure(
        source: &dyn Source,
        tensors: &[usize],
        importance: Option<&Importance>,
        effort: Effort,
        progress: &(dyn Fn() + Sync),
        cancel: &AtomicBool,
    ) -> Result<Self, JobError> {
        let rows = tensors
            .par_iter()
            .map(|&tensor| {
                if cancel.load(Ordering::Relaxed) {
                    return Err(JobError::Cancelled);
                }
                let row = measure_tensor(source, tensor, importance, effort)?;
                progress();
                Ok((tensor, row))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { rows })
    }

    /// The tensors and their types with errors, in the order in which they were asked for.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &[(TensorType, f64)])> {
        self.rows.iter().map(|(tensor, row)| (*tensor, &row[..]))
    }

    /// The error of a type on a tensor.
    pub fn get(&self, tensor: usize, ty: TensorType) -> Option<f64> {
        let (_, row) = self.rows.iter().find(|(known, _)| *known == tensor)?;
        row.iter().find(|(known, _)| *known == ty).map(|(_, e)| *e)
    }
}

fn measure_tensor(
    source: &dyn Source,
    tensor: usize,
    importance: Option<&Importance>,
    effort: Effort,
) -> Result<Vec<(TensorType, f64)>, JobError> {
    let info = &source.tensors()[tensor];
    let codec = |error| JobError::Codec {
        tensor: info.name.clone(),
        error,
    };
    let columns = info.row_len() as usize;
    let entry = importance.and_then(|matrix| matrix.fitting(info));
    let pooled = entry
        .map(super::super::importance::Entry::pooled)
        .unwrap_or_default();
    let stack = matrices(info) as usize;
    let rows_per_matrix = (info.rows() / stack.max(1) as u64).max(1);
    let types = candidates(info, importance);
    let mut errors = vec![0.0f64; types.len()];
    let sampled = (SAMPLE_VALUES / info.row_len().max(1)).clamp(1, info.rows().max(1));
    let mut values = vec![0.0f32; columns];
    let mut decoded = vec![0.0f32; columns];
    let mut bytes = Vec::new();
    for at in 0..sampled {
        // The middle of each of `sampled` equal stretches of rows.
        let row = (2 * at + 1) * info.rows() / (2 * sampled);
        let stored = source.rows(tensor, row..row + 1);
        let stored = stored.map_err(|error| JobError::Source {
            tensor: info.name.clone(),
            error,
        })?;
        types::decode(info.ty, &stored, &mut values).map_err(codec)?;
        if let Some(column) = values.iter().position(|value| !value.is_finite()) {
            return Err(JobError::NotFinite {
                tensor: info.name.clone(),
                row,
                column: column as u64,
                value: values[column],
            });
        }
        let weights = entry.map(|entry| {
            let matrix = (row / rows_per_matrix) as usize;
            entry.weights(matrix, stack, Effort::Best, &pooled)
        });
        for (&ty, error) in types.iter().zip(&mut errors) {
            let layout = ty.layout();
            bytes.resize(columns / layout.values * layout.bytes, 0);
            types::encode(ty, effort, &values, columns, weights.as_deref(), &mut bytes)
                .map_err(codec)?;
            types::decode(ty, &bytes, &mut decoded).map_err(codec)?;
            *error += squared_error(&values, &decoded, weights.as_deref());
        }
    }
    let scale = info.rows() as f64 / sampled as f64;
    Ok(types
        .into_iter()
        .zip(errors.into_iter().map(|error| error * scale))
        .collect())
}

fn squared_error(values: &[f32], decoded: &[f32], weights: Option<&[f32]>) -> f64 {
    let differences = values.iter().zip(decoded);
    let squares = differences.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
    match weights {
        Some(weights) => squares.zip(weights).map(|(e, &w)| e * f64::from(w)).sum(),
        None => squares.sum(),
    }
}
