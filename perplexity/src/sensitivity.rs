//! How much a model minds errors in each of its tensors: its divergence from itself with one group
//! of tensors quantized at a time.

use std::path::Path;

use gristmill_engine::{LoadOptions, Model, SessionOptions};
use gristmill_quantize::Effort;
use gristmill_quantize::budget::{CacheError, Group, Sensitivities};
use gristmill_quantize::importance::Importance;
use gristmill_quantize::job::{Control, Job, JobError, NamedImportance, Output, Target};
use gristmill_quantize::plan::Options;
use gristmill_quantize::preset::Preset;
use gristmill_quantize::recipe::Recipe;

use crate::evaluate::{self, Observer, Reference};
use crate::protocol::Chunks;

/// Why sensitivities could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A probe could not be written.
    #[error(transparent)]
    Job(#[from] JobError),
    /// A probe could not be measured.
    #[error(transparent)]
    Evaluate(#[from] evaluate::Error),
    /// A result could not be kept.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The model cannot say what happened.
    #[error("the divergence of {group} is not finite")]
    NotFinite {
        /// The group's tensors.
        group: String,
    },
}

/// Measures the groups that are not known yet: each is quantized to its probing types in a copy of
/// the model that stands in `folder` while it is needed, and the copy is compared with the model
/// over the chunks, in exact arithmetic. `measured` is called after every group.
///
/// # Errors
/// If a copy cannot be written or run, or the observer interrupts; what was measured is kept.
#[allow(clippy::too_many_arguments)]
pub fn measure(
    model: &Model,
    importance: Option<&Importance>,
    effort: Effort,
    groups: &[Group],
    sensitivities: &mut Sensitivities,
    chunks: &Chunks,
    folder: &Path,
    observer: &Observer<'_>,
    measured: &dyn Fn(),
) -> Result<(), Error> {
    let unknown: Vec<&Group> = groups
        .iter()
        .filter(|group| sensitivities.get(group).is_none())
        .collect();
    (unknown.len()..groups.len()).for_each(|_| measured());
    if unknown.is_empty() {
        return Ok(());
    }
    let exact = SessionOptions {
        exact: true,
        ..SessionOptions::default()
    };
    let reference = Reference::new(model, &exact, chunks, observer)?;
    let tensors = gristmill_gguf::Source::tensors(model.file());
    for group in unknown {
        let types = group.tensors.iter();
        let probe = Recipe {
            preset: Preset::Copy,
            options: Options {
                exact: types
                    .map(|&(tensor, ty)| (tensors[tensor].name.clone(), ty))
                    .collect(),
                allow_requantize: true,
                ..Options::default()
            },
            effort,
        };
        let path = folder.join("probe.gguf");
        let job = Job {
            source: model.file(),
            base: None,
            importance: importance.map(|matrix| NamedImportance { matrix, file: "" }),
            outputs: vec![Output {
                path: path.clone(),
                target: Target::Quantized(probe),
                split: None,
                part: None,
                replace: true,
            }],
        };
        job.plan()?.run(&Control {
            progress: &|_| {},
            cancel: observer.interrupted,
        })?;
        let options = LoadOptions {
            threads: Some(rayon::current_num_threads()),
        };
        let variant = Model::open(&path, &options).map_err(evaluate::Error::from)?;
        let report = reference.compare(&variant, &exact, chunks, observer)?;
        let divergence = report.against.map_or(f64::NAN, |found| found.kl_mean);
        if !divergence.is_finite() {
            return Err(Error::NotFinite {
                group: group.key.clone(),
            });
        }
        sensitivities.insert(group, divergence)?;
        measured();
    }
    Ok(())
}
