//! `grist perplexity`.

use std::path::{Path, PathBuf};

use clap::Args;
use gristmill_engine::Model;
use gristmill_perplexity::evaluate::{self, Reference};
use gristmill_perplexity::protocol::Chunks;
use gristmill_perplexity::report::PerplexityReport;

use crate::context::Context;
use crate::files::Replacement;
use crate::measure::{self, Arithmetic, ChunkProgress};
use crate::report::{Exit, Outcome, Report};

/// Arguments of `grist perplexity`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// GGUF file
    model: PathBuf,
    /// Text to measure on
    #[arg(short = 'f', long = "file", value_name = "TEXT")]
    text: PathBuf,
    /// Tokens a chunk
    #[arg(short, long, default_value_t = 512)]
    context: usize,
    /// Only the first N chunks
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// Also measure the KL divergence from this model
    #[arg(long, value_name = "BASE")]
    against: Option<PathBuf>,
    #[command(flatten)]
    arithmetic: Arithmetic,
    /// Write the logits of all scored positions as safetensors (`logits`, f32)
    #[arg(long, value_name = "FILE", conflicts_with = "against")]
    save_logits: Option<PathBuf>,
    /// Replace the file of --save-logits
    #[arg(long)]
    force: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let model = measure::open(&arguments.model, context)?;
    let chunks = measure::chunks(
        &model,
        &arguments.model,
        &arguments.text,
        arguments.context,
        arguments.chunks,
    )?;
    let report = match &arguments.against {
        Some(base) => against(arguments, &model, base, &chunks, context)?,
        None => alone(arguments, &model, &chunks, context)?,
    };
    if arguments.json {
        context.print_json(&report)?;
    } else {
        context.print(&text(&report))?;
    }
    Ok(Exit::Done)
}

fn against(
    arguments: &Arguments,
    model: &Model,
    base_path: &Path,
    chunks: &Chunks,
    context: &Context,
) -> Result<PerplexityReport, Report> {
    let base = measure::open(base_path, context)?;
    let options = arguments.arithmetic.session();
    let reference = ChunkProgress::new("base", chunks, context)
        .observe(|observer| Reference::new(&base, &options, chunks, observer))
        .map_err(|error| measure::failed(base_path, error))?;
    ChunkProgress::new("variant", chunks, context)
        .observe(|observer| reference.compare(model, &options, chunks, observer))
        .map_err(|error| measure::failed(&arguments.model, error))
}

fn alone(
    arguments: &Arguments,
    model: &Model,
    chunks: &Chunks,
    context: &Context,
) -> Result<PerplexityReport, Report> {
    let mut logits = match &arguments.save_logits {
        Some(path) => Some(logits_file(path, arguments.force, model, chunks)?),
        None => None,
    };
    let options = arguments.arithmetic.session();
    let report = ChunkProgress::new("perplexity", chunks, context).observe(|observer| {
        evaluate::perplexity(
            model,
            &options,
            chunks,
            observer,
            |block| match &mut logits {
                Some(file) => {
                    let bytes: Vec<u8> =
                        block.iter().flat_map(|logit| logit.to_le_bytes()).collect();
                    file.write(&bytes).map_err(Failure::Report)
                }
                None => Ok(()),
            },
        )
    });
    let report = report.map_err(|failure| match failure {
        Failure::Measure(error) => measure::failed(&arguments.model, error),
        Failure::Report(report) => report,
    })?;
    if let Some(file) = logits {
        file.finish()?;
    }
    Ok(report)
}

enum Failure {
    Measure(evaluate::Error),
    Report(Report),
}

impl From<evaluate::Error> for Failure {
    fn from(error: evaluate::Error) -> Self {
        Self::Measure(error)
    }
}

/// A safetensors file of logits that are written as they come.
fn logits_file(
    path: &Path,
    force: bool,
    model: &Model,
    chunks: &Chunks,
) -> Result<Replacement, Report> {
    measure::refuse_existing(path, force)?;
    let rows = chunks.count() * chunks.scored_per_chunk();
    let bytes = 4 * rows as u64 * model.vocabulary() as u64;
    let header = serde_json::json!({
        "logits": {"dtype": "F32", "shape": [rows, model.vocabulary()], "data_offsets": [0, bytes]},
    });
    let mut header = header.to_string();
    header.extend(std::iter::repeat_n(
        ' ',
        header.len().next_multiple_of(8) - header.len(),
    ));
    let mut file = Replacement::create(path)?;
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(header.as_bytes())?;
    Ok(file)
}

fn text(report: &PerplexityReport) -> String {
    let mut lines = vec![format!(
        "perplexity      {:.4} ± {:.4}   ({} predictions, {} chunks of {} tokens{})",
        report.perplexity,
        report.perplexity_error,
        report.tokens,
        report.chunks,
        report.context,
        if report.exact { ", exact" } else { "" },
    )];
    if let Some(d) = &report.against {
        lines.push(format!(
            "perplexity/base {:.5} ± {:.5}",
            d.perplexity_ratio, d.perplexity_ratio_error
        ));
        lines.push(format!(
            "KL mean         {:.6} ± {:.6}",
            d.kl_mean, d.kl_error
        ));
        lines.push(format!(
            "KL quantiles    50 % {:.6}   90 % {:.6}   95 % {:.6}   99 % {:.6}   99.9 % {:.6}   max {:.6}",
            d.kl_median, d.kl_p90, d.kl_p95, d.kl_p99, d.kl_p999, d.kl_max
        ));
        lines.push(format!(
            "Δp              mean {:+.5}   rms {:.5}",
            d.delta_p_mean, d.delta_p_rms
        ));
        lines.push(format!(
            "same top token  {:.4} ± {:.4}",
            d.same_top, d.same_top_error
        ));
    }
    lines.push(String::new());
    lines.join("\n")
}
