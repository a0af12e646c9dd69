//! `grist release`.

use std::path::PathBuf;

use clap::Args;
use gristmill_quantize::preset::Preset;
use gristmill_quantize::types::Effort;
use serde_json::json;

use crate::context::Context;
use crate::measure::{Arithmetic, EffortChoice};
use crate::model_source::{checkpoint_folder, variant_name};
use crate::release::{Asked, ImportanceChoice, Release, Texts};
use crate::report::{Exit, Outcome, Report};
use crate::table;

/// Arguments of `grist release`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Checkpoint folder, the id of a repository on the hub (organisation/name), or GGUF file
    source: PathBuf,
    /// Revision of a repository on the hub
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Folder for everything made
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Variants, separated by commas
    #[arg(long, value_name = "TYPES", value_delimiter = ',', required = true)]
    types: Vec<String>,
    /// Text to measure on [default: what the model's fixture.json names]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Text for the importance matrix [default: what the model's fixture.json names]
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Tokens a chunk [default: 512]
    #[arg(short, long)]
    context: Option<usize>,
    /// Measure on the first N chunks only
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// Use this importance matrix
    #[arg(long, value_name = "FILE", conflicts_with = "no_imatrix")]
    imatrix: Option<PathBuf>,
    /// Quantize without importance
    #[arg(long)]
    no_imatrix: bool,
    /// How hard the encoders search
    #[arg(long, value_enum, default_value_t)]
    effort: EffortChoice,
    #[command(flatten)]
    arithmetic: Arithmetic,
    /// Name of the pre-tokenizer, if it is not found out
    #[arg(long, value_name = "NAME")]
    pre: Option<String>,
    /// Replace files that are there and that no release made
    #[arg(long)]
    force: bool,
    /// Print what would be made, and make nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Makes the release and prints its table.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let types = presets(&arguments.types)?;
    let importance = match &arguments.imatrix {
        _ if arguments.no_imatrix => ImportanceChoice::None,
        Some(path) => ImportanceChoice::File(path.clone()),
        None => ImportanceChoice::Collect,
    };
    let asked = Asked {
        text: arguments.text.clone(),
        calibration: arguments.calibration.clone(),
        context: arguments.context,
        chunks: arguments.chunks,
    };
    let source = checkpoint_folder(&arguments.source, arguments.revision.as_deref(), context)?;
    let release = Release {
        source: &source,
        name: variant_name(&arguments.source),
        output: &arguments.output,
        types: &types,
        effort: Effort::from(arguments.effort),
        texts: Texts::resolve(asked, &source)?,
        importance,
        arithmetic: arguments.arithmetic,
        pre: arguments.pre.clone(),
        force: arguments.force,
        command: command_line(),
    };
    if arguments.dry_run {
        return dry_run(&release, arguments.json, context);
    }
    let report = release.run(context)?;
    if arguments.json {
        context.print_json(&report)?;
    } else {
        context.print(&table::variants(&report))?;
    }
    Ok(Exit::Done)
}

fn dry_run(release: &Release<'_>, json: bool, context: &Context) -> Outcome {
    let plan = release.plan(context)?;
    if json {
        let outputs = plan.iter().map(|(ty, size_bytes, bits_per_weight)| {
            json!({"type": ty, "size_bytes": size_bytes, "bits_per_weight": bits_per_weight})
        });
        context.print_json(&outputs.collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    }
    let mut table = table::plain(&["type", "size", "bytes", "bpw"], 1);
    for (ty, bytes, bits) in &plan {
        table.add_row([
            ty.clone(),
            table::gib(*bytes),
            bytes.to_string(),
            format!("{bits:.3}"),
        ]);
    }
    context.print(&format!("{}\n", table::trimmed(&table)))?;
    Ok(Exit::Done)
}

/// Presets by name, each once.
pub fn presets(names: &[String]) -> Result<Vec<Preset>, Report> {
    let mut presets = Vec::new();
    for name in names
        .iter()
        .map(|name| name.trim())
        .filter(|name| !name.is_empty())
    {
        let preset: Preset = name
            .parse()
            .map_err(|error| Report::usage(format!("{error}")))?;
        if !presets.contains(&preset) {
            presets.push(preset);
        }
    }
    if presets.is_empty() {
        return Err(Report::usage("no type given").help("for example --types Q8_0,Q4_K_M"));
    }
    Ok(presets)
}

/// The command as it was typed, quoted for a shell where it must be.
pub fn command_line() -> String {
    let quote = |word: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    let words = std::env::args().skip(1).map(quote);
    std::iter::once("grist".to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}
