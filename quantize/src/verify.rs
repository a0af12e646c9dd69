//! Whether a model is what it claims to be made from: the same tensors, with values as near to the
//! source's as their types allow.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use gristmill_gguf::check::{Finding, Severity};
use gristmill_gguf::copy::row_chunks;
use gristmill_gguf::error::Subject;
use gristmill_gguf::schema::keys;
use gristmill_gguf::{ReadError, Source, TensorInfo, TensorType};
use rayon::prelude::*;

use crate::types;

/// Bytes of the model's rows that are compared as one piece of work.
const CHUNK_BYTES: u64 = 1 << 20;

/// How far the values of a tensor are from those of another.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Deviation {
    /// Sum of squared differences.
    pub squared_error: f64,
    /// Sum of the other's squares.
    pub squared: f64,
    /// Values that are not finite in either.
    pub not_finite: u64,
}

impl Deviation {
    /// Root of the squared differences' share in the squares: 0 for equal values, 1 for what zeros
    /// would do. A tensor of zeros deviates by 0 from itself and without bound from all else.
    pub fn relative(self) -> f64 {
        match self.squared_error {
            0.0 => 0.0,
            error => (error / self.squared).sqrt(),
        }
    }
}

/// Measures how far tensor `at` of a model is from tensor `other_at` of another, of the same shape.
/// The sums do not depend on the number of threads.
///
/// # Errors
/// If rows cannot be read or decoded.
pub fn deviation(
    model: &dyn Source,
    at: usize,
    other: &dyn Source,
    other_at: usize,
) -> Result<Deviation, ReadError> {
    let info = &model.tensors()[at];
    let chunks: Vec<Range<u64>> = row_chunks(info, CHUNK_BYTES).collect();
    let parts: Vec<Deviation> = chunks
        .into_par_iter()
        .map(|rows| {
            let values = decode(model, at, rows.clone())?;
            let others = decode(other, other_at, rows)?;
            let mut sum = Deviation::default();
            for (&value, &other) in values.iter().zip(&others) {
                if value.is_finite() && other.is_finite() {
                    let (value, other) = (f64::from(value), f64::from(other));
                    sum.squared_error += (value - other) * (value - other);
                    sum.squared += other * other;
                } else {
                    sum.not_finite += 1;
                }
            }
            Ok(sum)
        })
        .collect::<Result<_, ReadError>>()?;
    Ok(parts
        .into_iter()
        .fold(Deviation::default(), |a, b| Deviation {
            squared_error: a.squared_error + b.squared_error,
            squared: a.squared + b.squared,
            not_finite: a.not_finite + b.not_finite,
        }))
}

fn decode(source: &dyn Source, tensor: usize, rows: Range<u64>) -> Result<Vec<f32>, ReadError> {
    let info = &source.tensors()[tensor];
    let bytes = source.rows(tensor, rows.clone())?;
    let mut values = vec![0.0; (info.row_len() * (rows.end - rows.start)) as usize];
    types::decode(info.ty, &bytes, &mut values)
        .map_err(|error| ReadError::Data(format!("tensor `{}`: {error}", info.name)))?;
    drop(bytes);
    source.release(tensor, rows);
    Ok(values)
}

/// Whether the type can be decoded: integers and double precision are no weights.
fn holds_weights(ty: TensorType) -> bool {
    types::supported().any(|supported| supported == ty)
}

/// A relative deviation that no sound encoder exceeds on the weights of a trained model. On normal
/// values the block types leave about 1.8 · 2^-b with b bits per weight.
fn limit(ty: TensorType) -> f64 {
    match ty {
        TensorType::F32 => 1e-6,
        TensorType::F16 => 2e-3,
        TensorType::BF16 => 8e-3,
        ty => (4.0 * (-ty.bits_per_weight()).exp2()).min(1.0),
    }
}

/// Compares a model with what it was made from; `file` names the model in the findings.
///
/// # Errors
/// If rows cannot be read or decoded.
pub fn verify(
    model: &dyn Source,
    source: &dyn Source,
    file: &Path,
) -> Result<Vec<Finding>, ReadError> {
    let finding = |severity, code, subject, message: String| Finding {
        code,
        severity,
        file: file.to_owned(),
        subject,
        offset: None,
        message,
        help: None,
        llama_cpp_refuses: false,
    };
    let mut findings = verify_keys(model, source, &finding);
    let origin: HashMap<_, _> = source
        .tensors()
        .iter()
        .map(|info| &info.name)
        .zip(0..)
        .collect();
    for (at, info) in model.tensors().iter().enumerate() {
        let subject = || Subject::Tensor(info.name.clone());
        let Some(&other_at) = origin.get(&info.name) else {
            let message = "the source has no such tensor".to_owned();
            findings.push(finding(
                Severity::Error,
                "against-extra",
                subject(),
                message,
            ));
            continue;
        };
        let other: &TensorInfo = &source.tensors()[other_at];
        let comparable = holds_weights(info.ty) && holds_weights(other.ty);
        if other.elements() != info.elements() || other.row_len() != info.row_len() {
            let message = format!("shape {:?}: the source has {:?}", info.shape, other.shape);
            findings.push(finding(
                Severity::Error,
                "against-shape",
                subject(),
                message,
            ));
        } else if comparable {
            let deviation = deviation(model, at, source, other_at)?;
            let (relative, limit) = (deviation.relative(), limit(info.ty).max(limit(other.ty)));
            // Written so that NaN is bad.
            let fine = relative <= limit && deviation.not_finite == 0;
            if !fine {
                let hopeless = deviation.not_finite > 0 || relative.is_nan() || relative >= 1.0;
                let severity = if hopeless {
                    Severity::Error
                } else {
                    Severity::Warning
                };
                let message = match deviation.not_finite {
                    0 => format!(
                        "values deviate by {relative:.4} of the source's magnitude, in type {} \
                         expected at most {limit:.4}",
                        info.ty
                    ),
                    count => format!("{count} values are not finite"),
                };
                findings.push(finding(severity, "against-values", subject(), message));
            }
        }
    }
    let names: HashSet<_> = model.tensors().iter().map(|info| &info.name).collect();
    for info in source
        .tensors()
        .iter()
        .filter(|info| !names.contains(&info.name))
    {
        let subject = Subject::Tensor(info.name.clone());
        let message = "missing; the source has it".to_owned();
        findings.push(finding(
            Severity::Error,
            "against-missing",
            subject,
            message,
        ));
    }
    Ok(findings)
}

/// Keys that decide how a model runs: those of the architecture and of the tokenizer.
fn verify_keys(
    model: &dyn Source,
    source: &dyn Source,
    finding: &dyn Fn(Severity, &'static str, Subject, String) -> Finding,
) -> Vec<Finding> {
    let own = keys::architecture(source.metadata()).map(|name| format!("{name}."));
    let decides = |key: &[u8]| {
        key == keys::ARCHITECTURE.as_bytes()
            || key.starts_with(b"tokenizer.")
            || own
                .as_ref()
                .is_some_and(|own| key.starts_with(own.as_bytes()))
    };
    let entries = source.metadata().iter().filter(|(key, _)| decides(key));
    entries
        .filter_map(|(key, value)| {
            let message = match model.metadata().get(key) {
                Some(found) if found == value => return None,
                Some(_) => "another value than in the source",
                None => "missing; the source has it",
            };
            let subject = Subject::Key(key.to_owned());
            Some(finding(
                Severity::Warning,
                "against-key",
                subject,
                message.to_owned(),
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use gristmill_gguf::Metadata;

    use super::*;
    use crate::types::Effort;

    struct Memory {
        metadata: Metadata,
        tensors: Vec<TensorInfo>,
        data: Vec<Vec<u8>>,
    }

    impl Source for Memory {
        fn metadata(&self) -> &Metadata {
            &self.metadata
        }

        fn tensors(&self) -> &[TensorInfo] {
            &self.tensors
        }

        fn rows(&self, tensor: usize, rows: Range<u64>) -> Result<Cow<'_, [u8]>, ReadError> {
            let info = &self.tensors[tensor];
            let row = info.ty.row_bytes(info.row_len()).unwrap();
            let range = (rows.start * row) as usize..(rows.end * row) as usize;
            Ok(self.data[tensor][range].into())
        }
    }

    /// A tensor of bell-shaped values in a type.
    fn model(ty: TensorType) -> Memory {
        let (row, rows) = (512, 8);
        let mut state = 1u32;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as f32 / u32::MAX as f32 - 0.5
        };
        let values: Vec<f32> = (0..row * rows)
            .map(|_| (0..12).map(|_| uniform()).sum::<f32>())
            .collect();
        let mut data = vec![0; ty.row_bytes(row as u64).unwrap() as usize * rows];
        let ones = vec![1.0; row];
        types::encode(ty, Effort::Reference, &values, row, Some(&ones), &mut data).unwrap();
        Memory {
            metadata: [(keys::ARCHITECTURE, "llama")].into_iter().collect(),
            tensors: vec![TensorInfo {
                name: "a.weight".into(),
                shape: vec![row as u64, rows as u64],
                ty,
            }],
            data: vec![data],
        }
    }

    fn codes(model: &Memory, source: &Memory) -> Vec<&'static str> {
        let findings = verify(model, source, Path::new("m.gguf")).unwrap();
        findings.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn sound_variants_have_no_findings() {
        let source = model(TensorType::F32);
        // Below three bits plain bell-shaped values without a model's structure may fare worse.
        let fine = |ty: &TensorType| holds_weights(*ty) && ty.bits_per_weight() > 3.0;
        for ty in TensorType::all().filter(fine) {
            assert_eq!(codes(&model(ty), &source), [""; 0], "{ty}");
        }
    }

    #[test]
    fn damage_is_found_in_every_type() {
        let source = model(TensorType::F32);
        for ty in TensorType::all().filter(|&ty| holds_weights(ty)) {
            let mut damaged = model(ty);
            // Rows in another order: plausible values in the wrong places.
            damaged.data[0].reverse();
            let row = ty.row_bytes(512).unwrap() as usize;
            damaged.data[0].chunks_mut(row).for_each(<[u8]>::reverse);
            assert_eq!(codes(&damaged, &source), ["against-values"], "{ty}");
        }
    }

    #[test]
    fn tensors_and_keys_are_compared() {
        let source = model(TensorType::F32);
        let mut other = model(TensorType::Q8_0);
        other.tensors[0].name = "b.weight".into();
        other.metadata.set(keys::ARCHITECTURE, "gpt2");
        let expected = ["against-key", "against-extra", "against-missing"];
        assert_eq!(codes(&other, &source), expected);
        let mut other = model(TensorType::Q8_0);
        other.tensors[0].shape = vec![512, 7];
        assert_eq!(codes(&other, &source), ["against-shape"]);
    }
}
