//! A release: convert, importance, variants, check, measure, report. Every step's result is kept in
//! the output folder with what it was made from, so that a rerun goes on where the last one ended.

mod ledger;
mod published;
mod texts;

use std::fs;
use std::path::{Path, PathBuf};

use gristmill_engine::Model;
use gristmill_gguf::check::{self, Level, Severity};
use gristmill_perplexity::importance::State;
use gristmill_perplexity::{importance, report};
use gristmill_quantize::importance::Importance;
use gristmill_quantize::job::{
    Control, Job, NamedImportance, Output, PlannedJob, Report as JobReport, Target,
};
use gristmill_quantize::plan::Options as PlanOptions;
use gristmill_quantize::preset::Preset;
use gristmill_quantize::recipe::Recipe;
use gristmill_quantize::types::Effort;

pub use ledger::Ledger;
pub use published::bits_per_weight;
pub use texts::{Asked, Texts};

use crate::context::Context;
use crate::files;
use crate::measure::{self, Arithmetic, ChunkProgress};
use crate::model_source::{ModelSource, file_type};
use crate::report::{Exit, Report};
use ledger::Provenance;

/// What a release is to be.
pub struct Release<'a> {
    /// The checkpoint's folder or the GGUF file.
    pub source: &'a Path,
    /// What the names of files begin with.
    pub name: String,
    /// The folder for everything made.
    pub output: &'a Path,
    /// The variants.
    pub types: &'a [Preset],
    /// How hard the encoders search.
    pub effort: Effort,
    /// The texts.
    pub texts: Texts,
    /// Where importance comes from.
    pub importance: ImportanceChoice,
    /// How models are run for the measurements.
    pub arithmetic: Arithmetic,
    /// The pre-tokenizer, where it is not to be found out.
    pub pre: Option<String>,
    /// Whether files that no release of ours made are replaced.
    pub force: bool,
    /// The command line, for the report.
    pub command: String,
}

/// Where the importance matrix comes from.
pub enum ImportanceChoice {
    /// From the calibration text.
    Collect,
    /// From a file.
    File(PathBuf),
    /// There is none.
    None,
}

/// The unquantized model.
struct BaseFile {
    path: PathBuf,
    sha256: String,
}

/// A finished variant.
struct Made {
    preset: Preset,
    path: PathBuf,
    sha256: String,
}

/// The importance matrix in use.
struct Matrix {
    matrix: Importance,
    file: String,
    sha256: String,
}

impl Release<'_> {
    /// Plans without writing: what would be made and how large it would be.
    pub fn plan(&self, context: &Context) -> Result<Vec<(String, u64, f64)>, Report> {
        let opened = self.open(context)?;
        let job = self.job(&opened, self.types, None)?;
        let outputs = job.outputs().iter().zip(self.types);
        Ok(outputs
            .map(|(output, preset)| {
                (
                    preset.to_string(),
                    output.size_bytes(),
                    output.plan().bits_per_weight(),
                )
            })
            .collect())
    }

    /// Makes, checks and measures everything; writes the report and the card.
    pub fn run(&self, context: &Context) -> Result<report::Report, Report> {
        let opened = self.open(context)?;
        // The plan finds unknown tensors, types and sizes before anything is written.
        self.job(&opened, self.types, None)?;
        fs::create_dir_all(self.output).map_err(|error| Report::io(self.output, &error))?;
        let mut ledger = Ledger::open(self.output);
        let source_sha256 = files::sha256_of_model(self.source, context)?;
        let base = self.make_base(&opened, &source_sha256, &mut ledger, context)?;
        let model = measure::open(&base.path, context)?;
        let texts = &self.texts;
        let chunks = measure::chunks(&model, &base.path, &texts.text, texts.context, texts.chunks)?;
        let matrix = self.make_importance(&model, &base, &mut ledger, context)?;
        let made = self.make_variants(
            &opened,
            &source_sha256,
            &base,
            matrix.as_ref(),
            &mut ledger,
            context,
        )?;
        let report = self.measure(&model, &base, &made, &chunks, &mut ledger, context)?;
        self.write_report(model.metadata(), &report)?;
        Ok(report)
    }

    fn path_of(&self, ty: &str) -> PathBuf {
        self.output.join(format!("{}-{ty}.gguf", self.name))
    }

    fn open(&self, context: &Context) -> Result<ModelSource, Report> {
        ModelSource::open(self.source, self.pre.as_deref(), context)
    }

    fn job<'s>(
        &self,
        opened: &'s ModelSource,
        types: &[Preset],
        matrix: Option<&'s Matrix>,
    ) -> Result<PlannedJob<'s>, Report> {
        let outputs = types.iter().map(|&preset| Output {
            path: self.path_of(&preset.to_string()),
            target: Target::Quantized(Recipe {
                preset,
                options: PlanOptions::default(),
                effort: self.effort,
            }),
            split: None,
            part: None,
            replace: true,
        });
        let job = Job {
            source: opened.source(),
            base: opened.base_types(),
            importance: matrix.map(|m| NamedImportance {
                matrix: &m.matrix,
                file: &m.file,
            }),
            outputs: outputs.collect(),
        };
        Ok(job.plan()?)
    }

    /// Whether `path` may be written: it is free, or made by an earlier release, or `--force` is given.
    fn claim(&self, path: &Path, ledger: &Ledger) -> Result<(), Report> {
        if ledger.owns(path) {
            Ok(())
        } else {
            measure::refuse_existing(path, self.force)
        }
    }

    fn make_base(
        &self,
        opened: &ModelSource,
        source_sha256: &str,
        ledger: &mut Ledger,
        context: &Context,
    ) -> Result<BaseFile, Report> {
        let ModelSource::Checkpoint(conversion) = opened else {
            return Ok(BaseFile {
                path: self.source.to_owned(),
                sha256: source_sha256.to_owned(),
            });
        };
        let ty = &file_type(conversion.as_ref());
        let path = self.path_of(ty);
        let provenance = provenance(
            source_sha256,
            ty,
            None,
            None,
            self.pre.iter().cloned().collect(),
        );
        if let Some(sha256) = ledger.finished(&path, &provenance, context)? {
            context.note(&format!("{} is there already", path.display()));
            return Ok(BaseFile { path, sha256 });
        }
        self.claim(&path, ledger)?;
        let job = Job {
            source: conversion.as_ref(),
            base: None,
            importance: None,
            outputs: vec![Output {
                path: path.clone(),
                target: Target::Converted(conversion.types().to_vec()),
                split: None,
                part: None,
                replace: true,
            }],
        };
        run_job(&job.plan()?, "convert", context)?;
        let sha256 = ledger.record(&path, provenance, context)?;
        context.note(&format!("wrote {}", path.display()));
        Ok(BaseFile { path, sha256 })
    }

    fn make_importance(
        &self,
        model: &Model,
        base: &BaseFile,
        ledger: &mut Ledger,
        context: &Context,
    ) -> Result<Option<Matrix>, Report> {
        let calibration = match &self.importance {
            ImportanceChoice::None => return Ok(None),
            ImportanceChoice::File(path) => {
                return Matrix::read(path, files::sha256(path, context)?).map(Some);
            }
            ImportanceChoice::Collect => &self.texts.calibration,
        };
        let Some(text) = calibration else {
            context.warn("no calibration text: the variants are made without importance (give --calibration FILE)");
            return Ok(None);
        };
        let path = self.output.join("imatrix.gguf");
        let settings = vec![
            files::sha256(text, context)?,
            self.texts.context.to_string(),
        ];
        // What an interrupted collection is known again by.
        let version = env!("CARGO_PKG_VERSION");
        let identity = format!("{version} {} {}", base.sha256, settings.join(" "));
        let state = State::beside(&path, identity);
        let provenance = provenance(&base.sha256, "imatrix", None, None, settings);
        if let Some(sha256) = ledger.finished(&path, &provenance, context)? {
            context.note(&format!("{} is there already", path.display()));
            return Matrix::read(&path, sha256).map(Some);
        }
        self.claim(&path, ledger)?;
        let chunks = measure::chunks(model, &base.path, text, self.texts.context, None)?;
        let dataset = text.file_name().unwrap_or_default().to_string_lossy();
        let options = gristmill_engine::SessionOptions::default();
        let matrix = ChunkProgress::new("importance", &chunks, context)
            .observe(|observer| {
                importance::collect(model, &options, &chunks, &dataset, Some(&state), observer)
            })
            .map_err(|error| measure::failed(&base.path, error))?;
        matrix.write(&path, true)?;
        state.remove();
        let sha256 = ledger.record(&path, provenance, context)?;
        context.note(&format!("wrote {}", path.display()));
        Matrix::read(&path, sha256).map(Some)
    }

    fn make_variants(
        &self,
        opened: &ModelSource,
        source_sha256: &str,
        base: &BaseFile,
        matrix: Option<&Matrix>,
        ledger: &mut Ledger,
        context: &Context,
    ) -> Result<Vec<Made>, Report> {
        let provenance_of = |preset: Preset| {
            let effort = Some(self.effort.name().to_owned());
            let settings = self.pre.iter().cloned().collect();
            provenance(
                source_sha256,
                &preset.to_string(),
                effort,
                matrix.map(|m| m.sha256.clone()),
                settings,
            )
        };
        let mut made = Vec::new();
        let mut missing = Vec::new();
        for &preset in self.types {
            let path = self.path_of(&preset.to_string());
            if path == base.path {
                made.push(Made {
                    preset,
                    path,
                    sha256: base.sha256.clone(),
                });
                continue;
            }
            match ledger.finished(&path, &provenance_of(preset), context)? {
                Some(sha256) => {
                    context.note(&format!("{} is there already", path.display()));
                    made.push(Made {
                        preset,
                        path,
                        sha256,
                    });
                }
                None => {
                    self.claim(&path, ledger)?;
                    missing.push(preset);
                }
            }
        }
        if !missing.is_empty() {
            run_job(&self.job(opened, &missing, matrix)?, "quantize", context)?;
        }
        for preset in missing {
            let path = self.path_of(&preset.to_string());
            check(&path)?;
            let sha256 = ledger.record(&path, provenance_of(preset), context)?;
            context.note(&format!("wrote and checked {}", path.display()));
            made.push(Made {
                preset,
                path,
                sha256,
            });
        }
        made.sort_by_key(|made| self.types.iter().position(|&preset| preset == made.preset));
        Ok(made)
    }
}

impl Matrix {
    fn read(path: &Path, sha256: String) -> Result<Self, Report> {
        Ok(Self {
            matrix: Importance::read(path)?,
            file: file_name(path),
            sha256,
        })
    }
}

/// The last component of a path.
pub fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn provenance(
    source: &str,
    ty: &str,
    effort: Option<String>,
    imatrix: Option<String>,
    settings: Vec<String>,
) -> Provenance {
    Provenance {
        source: source.to_owned(),
        ty: ty.to_owned(),
        effort,
        imatrix,
        settings,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// Carries a job out under a progress bar.
pub fn run_job(job: &PlannedJob<'_>, label: &str, context: &Context) -> Result<JobReport, Report> {
    let bar = context.byte_bar(label, job.source_bytes());
    let cancel = context.interrupt_flag();
    let progress = |bytes: u64| bar.inc(bytes);
    let result = job.run(&Control {
        progress: &progress,
        cancel: &cancel,
    });
    bar.finish_and_clear();
    let done = result?;
    for tensor in &done.overflowed {
        context.warn(&format!(
            "{tensor}: values beyond the type's range were written as infinite"
        ));
    }
    Ok(done)
}

/// A file that we wrote and that does not hold is our bug.
fn check(path: &Path) -> Result<(), Report> {
    let report = check::check(path, Level::Data)?;
    match report
        .findings
        .iter()
        .find(|finding| finding.severity == Severity::Error)
    {
        Some(finding) => Err(Report::new(
            Exit::Bug,
            format!("{}: {}", path.display(), finding.message),
        )),
        None => Ok(()),
    }
}
