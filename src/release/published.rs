//! What a release says of itself: measurements, `report.json`, the model card.

use std::fs;

use gristmill_engine::Model;
use gristmill_gguf::{File, Metadata, Source};
use gristmill_perplexity::card;
use gristmill_perplexity::evaluate::Reference;
use gristmill_perplexity::protocol::Chunks;
use gristmill_perplexity::report::{self, Base, PerplexityReport, Text, Variant};
use gristmill_perplexity::speed::{self, Workload};

use super::ledger::{Ledger, Measured, Protocol};
use super::{BaseFile, Made, Release, file_name};
use crate::context::Context;
use crate::files;
use crate::measure::{self, ChunkProgress};
use crate::report::Report;

impl Release<'_> {
    /// Measures what was made, so far as an earlier run has not.
    pub(super) fn measure(
        &self,
        model: &Model,
        base: &BaseFile,
        made: &[Made],
        chunks: &Chunks,
        ledger: &mut Ledger,
        context: &Context,
    ) -> Result<report::Report, Report> {
        let text_sha256 = files::sha256(&self.texts.text, context)?;
        let protocol = Protocol {
            base: base.sha256.clone(),
            text: text_sha256.clone(),
            context: chunks.context() as u64,
            chunks: chunks.count() as u64,
            exact: self.arithmetic.exact,
            kv_type: self.arithmetic.kv_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let options = self.arithmetic.session();
        let reference = ChunkProgress::new("base", chunks, context)
            .observe(|observer| Reference::new(model, &options, chunks, observer))
            .map_err(|error| measure::failed(&base.path, error))?;
        let mut variants = Vec::new();
        for made in made {
            context.check_interrupt()?;
            let variant = measure::open(&made.path, context)?;
            let measured = match ledger.measured(&made.path, &protocol) {
                Some(measured) => measured.clone(),
                None => {
                    let report = ChunkProgress::new(made.preset.name(), chunks, context)
                        .observe(|observer| reference.compare(&variant, &options, chunks, observer))
                        .map_err(|error| measure::failed(&made.path, error))?;
                    let speed = speed::measure(&variant, &options, &Workload::default())
                        .map_err(|error| measure::failed(&made.path, error))?;
                    let measured = Measured {
                        protocol: protocol.clone(),
                        report,
                        prompt: speed.prompt.map(|rate| rate.median),
                        generation: speed.generation.map(|rate| rate.median),
                    };
                    ledger.record_measured(&made.path, measured.clone())?;
                    measured
                }
            };
            variants.push(self.variant(made, &variant, measured)?);
        }
        let base_report: PerplexityReport = reference.report(chunks);
        Ok(report::Report {
            base: Base {
                file: file_name(&base.path),
                size_bytes: model.file().bytes(),
                sha256: base.sha256.clone(),
                perplexity: base_report.perplexity,
                perplexity_error: base_report.perplexity_error,
            },
            text: Text {
                file: file_name(&self.texts.text),
                sha256: text_sha256,
                chunks: chunks.count() as u64,
                context: chunks.context() as u64,
            },
            commands: vec![self.command.clone()],
            variants,
        })
    }

    fn variant(&self, made: &Made, model: &Model, measured: Measured) -> Result<Variant, Report> {
        Ok(Variant {
            ty: made.preset.to_string(),
            file: file_name(&made.path),
            size_bytes: fs::metadata(&made.path)
                .map_err(|error| Report::io(&made.path, &error))?
                .len(),
            bits_per_weight: bits_per_weight(model.file()),
            sha256: made.sha256.clone(),
            effort: Some(self.effort.name().to_owned()),
            imatrix: model
                .metadata()
                .str("quantize.imatrix.file")
                .map(str::to_owned),
            measured: measured.report,
            prompt_tokens_per_second: measured.prompt,
            generation_tokens_per_second: measured.generation,
        })
    }

    /// Writes `report.json` and the model card.
    pub(super) fn write_report(
        &self,
        metadata: &Metadata,
        report: &report::Report,
    ) -> Result<(), Report> {
        let text = serde_json::to_string_pretty(report)
            .map_err(|error| Report::environment(format!("cannot write JSON: {error}")))?;
        files::replace(&self.output.join("report.json"), text.as_bytes())?;
        let card = card::render(&card::Origin::new(metadata, &self.name), report);
        files::replace(&self.output.join("README.md"), card.as_bytes())
    }
}

/// Bits of tensor data per weight.
pub fn bits_per_weight(file: &File) -> f64 {
    let (bytes, weights) = file
        .tensors()
        .iter()
        .fold((0, 0), |(bytes, weights), tensor| {
            (
                bytes + tensor.bytes().unwrap_or(0),
                weights + tensor.elements(),
            )
        });
    8.0 * bytes as f64 / (weights as f64).max(1.0)
}
