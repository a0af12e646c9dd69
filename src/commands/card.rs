//! `grist card`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use gristmill_gguf::{File, Metadata, Source as _};
use gristmill_perplexity::card::{self, Origin};
use gristmill_perplexity::report;

use crate::context::Context;
use crate::files;
use crate::measure;
use crate::model_source::variant_name;
use crate::report::{Exit, Outcome, Report};

/// Arguments of `grist card`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A report.json of `release` or `compare`, or its folder
    report: PathBuf,
    /// The unquantized model, for its name and licence [default: the report's base, beside it]
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Where the card goes [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the output
    #[arg(long)]
    force: bool,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Renders the model card of a report.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let path = match arguments.report.is_dir() {
        true => arguments.report.join("report.json"),
        false => arguments.report.clone(),
    };
    let text = fs::read(&path).map_err(|error| Report::io(&path, &error))?;
    let report: report::Report = serde_json::from_slice(&text).map_err(|error| {
        Report::input(format!("{}: {error}", path.display()))
            .help("give the report.json that `grist release` or `grist compare` wrote")
    })?;
    let beside = path.with_file_name(&report.base.file);
    let base = arguments.base.clone().unwrap_or(beside);
    let metadata = if arguments.base.is_some() || base.exists() {
        File::open(&base)?.metadata().clone()
    } else {
        context.warn(&format!(
            "{} is not there: the card has no licence and no origin (give --base FILE)",
            base.display()
        ));
        Metadata::new()
    };
    let card = card::render(&Origin::new(&metadata, &variant_name(&base)), &report);
    match &arguments.output {
        None => print!("{card}"),
        Some(output) => {
            measure::refuse_existing(output, arguments.force)?;
            files::replace_or_say(output, card.as_bytes(), arguments.dry_run, context)?;
        }
    }
    Ok(Exit::Done)
}
