//! `grist compare`.

use std::path::{Path, PathBuf};

use clap::Args;
use gristmill_perplexity::evaluate::Reference;
use gristmill_perplexity::html;
use gristmill_perplexity::protocol::Chunks;
use gristmill_perplexity::report::{self, Base, Text, Variant};
use gristmill_perplexity::speed::{self, Workload};

use crate::commands::release::command_line;
use crate::context::Context;
use crate::files;
use crate::measure::{self, Arithmetic, ChunkProgress};
use crate::release::{bits_per_weight, file_name};
use crate::report::{Exit, Outcome, Report};
use crate::table;

/// Arguments of `grist compare`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The model that all others are held against
    base: PathBuf,
    /// GGUF files
    #[arg(required = true)]
    variants: Vec<PathBuf>,
    /// Text to measure on
    #[arg(
        short = 'f',
        long = "file",
        visible_alias = "text",
        value_name = "TEXT"
    )]
    text: PathBuf,
    /// Tokens a chunk
    #[arg(short, long, default_value_t = 512)]
    context: usize,
    /// Only the first N chunks
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    #[command(flatten)]
    arithmetic: Arithmetic,
    /// Write report.json into this folder
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write the table as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Exit with 1 if a variant's mean KL divergence is above this
    #[arg(long, value_name = "NATS")]
    max_kl: Option<f64>,
    /// Exit with 1 if a variant's perplexity over the base's is above this
    #[arg(long, value_name = "RATIO")]
    max_ppl_ratio: Option<f64>,
    /// Exit with 1 if a variant agrees less often (0..1) with the base's top token
    #[arg(long, value_name = "SHARE")]
    min_same_top: Option<f64>,
    /// Do not measure speed
    #[arg(long)]
    no_speed: bool,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Measures all variants and prints the table.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let report_path = arguments
        .output
        .as_ref()
        .map(|folder| folder.join("report.json"));
    for path in report_path.iter().chain(&arguments.html) {
        measure::refuse_existing(path, arguments.force)?;
    }
    let report = measure(arguments, context)?;
    if let Some(path) = &report_path {
        let text = serde_json::to_vec_pretty(&report)
            .map_err(|error| Report::environment(format!("{}: {error}", path.display())))?;
        if let Some(folder) = &arguments.output {
            std::fs::create_dir_all(folder).map_err(|error| Report::io(folder, &error))?;
        }
        files::replace(path, &text)?;
    }
    if let Some(path) = &arguments.html {
        files::replace(path, html::render(&report).as_bytes())?;
    }
    if arguments.json {
        context.print_json(&report)?;
    } else {
        context.print(&table::variants(&report))?;
    }
    let failures: Vec<String> = report
        .variants
        .iter()
        .flat_map(|variant| arguments.failures(variant))
        .collect();
    for failure in &failures {
        context.warn(failure);
    }
    Ok(if failures.is_empty() {
        Exit::Done
    } else {
        Exit::CheckFailed
    })
}

impl Arguments {
    /// The thresholds that a variant misses.
    fn failures(&self, variant: &Variant) -> Vec<String> {
        let Some(against) = &variant.measured.against else {
            return Vec::new();
        };
        // Written so that a figure that is no number misses its threshold.
        let above =
            |limit: Option<f64>, found: f64| limit.filter(|&limit| found.is_nan() || found > limit);
        let below =
            |limit: Option<f64>, found: f64| limit.filter(|&limit| found.is_nan() || found < limit);
        let file = &variant.file;
        [
            above(self.max_kl, against.kl_mean)
                .map(|limit| format!("{file}: mean KL {:.6} is above {limit}", against.kl_mean)),
            above(self.max_ppl_ratio, against.perplexity_ratio).map(|limit| {
                format!(
                    "{file}: perplexity ratio {:.5} is above {limit}",
                    against.perplexity_ratio
                )
            }),
            below(self.min_same_top, against.same_top)
                .map(|limit| format!("{file}: same top {:.4} is below {limit}", against.same_top)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn measure(arguments: &Arguments, context: &Context) -> Result<report::Report, Report> {
    let base = measure::open(&arguments.base, context)?;
    let chunks = measure::chunks(
        &base,
        &arguments.base,
        &arguments.text,
        arguments.context,
        arguments.chunks,
    )?;
    let options = arguments.arithmetic.session();
    let reference = ChunkProgress::new("base", &chunks, context)
        .observe(|observer| Reference::new(&base, &options, &chunks, observer))
        .map_err(|error| measure::failed(&arguments.base, error))?;
    let variants = arguments
        .variants
        .iter()
        .map(|path| variant(arguments, path, &reference, &chunks, context));
    let variants = variants.collect::<Result<Vec<_>, _>>()?;
    let base_report = reference.report(&chunks);
    Ok(report::Report {
        base: Base {
            file: file_name(&arguments.base),
            size_bytes: base.file().bytes(),
            sha256: files::sha256(&arguments.base, context)?,
            perplexity: base_report.perplexity,
            perplexity_error: base_report.perplexity_error,
        },
        text: Text {
            file: file_name(&arguments.text),
            sha256: files::sha256(&arguments.text, context)?,
            chunks: chunks.count() as u64,
            context: chunks.context() as u64,
        },
        commands: vec![command_line()],
        variants,
    })
}

fn variant(
    arguments: &Arguments,
    path: &Path,
    reference: &Reference<'_>,
    chunks: &Chunks,
    context: &Context,
) -> Result<Variant, Report> {
    context.check_interrupt()?;
    let model = measure::open(path, context)?;
    let options = arguments.arithmetic.session();
    let measured = ChunkProgress::new(&file_name(path), chunks, context)
        .observe(|observer| reference.compare(&model, &options, chunks, observer))
        .map_err(|error| measure::failed(path, error))?;
    let speed = match arguments.no_speed {
        true => None,
        false => Some(
            speed::measure(&model, &options, &Workload::default())
                .map_err(|error| measure::failed(path, error))?,
        ),
    };
    Ok(Variant {
        ty: measure::type_name(&model),
        file: file_name(path),
        size_bytes: model.file().bytes(),
        bits_per_weight: bits_per_weight(model.file()),
        sha256: files::sha256(path, context)?,
        // Who made a file and how is not written in it.
        effort: None,
        imatrix: model
            .metadata()
            .str("quantize.imatrix.file")
            .map(str::to_owned),
        measured,
        prompt_tokens_per_second: speed.and_then(|speed| Some(speed.prompt?.median)),
        generation_tokens_per_second: speed.and_then(|speed| Some(speed.generation?.median)),
    })
}
