//! `grist imatrix`: collecting. Merging and showing are in a file of their own.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use gristmill_engine::{Model, SessionOptions};
use gristmill_perplexity::importance::{self, State};
use gristmill_perplexity::protocol::Chunks;
use gristmill_quantize::job::digest_source;

use super::imatrix_files;
use crate::context::Context;
use crate::measure::{self, ChunkProgress};
use crate::report::{Exit, Outcome, Report};

/// Arguments of `grist imatrix`: a model, or a subcommand.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    files: Option<Files>,
    #[command(flatten)]
    collect: Option<Collect>,
}

/// What is done with files that exist.
#[derive(Debug, Subcommand)]
enum Files {
    /// Add matrices of one model up, or change a container
    Merge(imatrix_files::Merge),
    /// Print the statistics of a matrix
    Show(imatrix_files::Show),
}

/// Does what is asked for.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    match (&arguments.files, &arguments.collect) {
        (Some(Files::Merge(arguments)), _) => imatrix_files::merge(arguments, context),
        (Some(Files::Show(arguments)), _) => imatrix_files::show(arguments, context),
        (None, Some(arguments)) => collect(arguments, context),
        (None, None) => Err(Report::usage("no model given").help("grist imatrix MODEL -f TEXT")),
    }
}

/// Arguments of `grist imatrix MODEL`.
#[derive(Debug, Args)]
pub struct Collect {
    /// GGUF file
    model: PathBuf,
    /// Calibration text
    #[arg(short = 'f', long = "file", value_name = "TEXT")]
    text: PathBuf,
    /// Where the matrix goes
    #[arg(short, long, value_name = "FILE", default_value = "imatrix.gguf")]
    output: PathBuf,
    /// Tokens a chunk
    #[arg(short, long, default_value_t = 512)]
    context: usize,
    /// Only the first N chunks
    #[arg(long, value_name = "N")]
    chunks: Option<usize>,
    /// Container [default: dat for a name that ends so, else gguf]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Replace the output
    #[arg(long)]
    force: bool,
    /// Say what would be collected, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Containers of importance matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// GGUF, as llama-imatrix writes it
    Gguf,
    /// The legacy format
    Dat,
}

impl Format {
    /// What a file's name asks for.
    pub fn of(path: &std::path::Path) -> Self {
        match path.extension().is_some_and(|extension| extension == "dat") {
            true => Self::Dat,
            false => Self::Gguf,
        }
    }
}

impl Collect {
    /// Where an interrupted run keeps what it has.
    fn state(&self, model: &Model, chunks: &Chunks, context: &Context) -> Result<State, Report> {
        let source =
            digest_source(model.file()).map_err(|error| Report::input(error.to_string()))?;
        let identity = format!(
            "{} {source} {} {} {}",
            env!("CARGO_PKG_VERSION"),
            crate::files::sha256(&self.text, context)?,
            chunks.context(),
            chunks.count(),
        );
        Ok(State::beside(&self.output, identity))
    }
}

/// Collects and writes.
fn collect(arguments: &Collect, context: &Context) -> Outcome {
    measure::refuse_existing(&arguments.output, arguments.force)?;
    let model = measure::open(&arguments.model, context)?;
    let chunks = measure::chunks(
        &model,
        &arguments.model,
        &arguments.text,
        arguments.context,
        arguments.chunks,
    )?;
    if arguments.dry_run {
        context.note(&format!(
            "would write {}: {} chunks of {} tokens",
            arguments.output.display(),
            chunks.count(),
            chunks.context()
        ));
        return Ok(Exit::Done);
    }
    let dataset = arguments.text.to_string_lossy();
    let state = arguments.state(&model, &chunks, context)?;
    let matrix = ChunkProgress::new("importance", &chunks, context)
        .observe(|observer| {
            importance::collect(
                &model,
                &SessionOptions::default(),
                &chunks,
                &dataset,
                Some(&state),
                observer,
            )
        })
        .map_err(|error| measure::failed(&arguments.model, error))?;
    match arguments
        .format
        .unwrap_or_else(|| Format::of(&arguments.output))
    {
        Format::Gguf => matrix.write(&arguments.output, arguments.force)?,
        Format::Dat => matrix.write_legacy(&arguments.output, arguments.force)?,
    }
    state.remove();
    context.note(&format!(
        "wrote {}: {} tensors, {} chunks of {} tokens",
        arguments.output.display(),
        matrix.entries.len(),
        chunks.count(),
        chunks.context()
    ));
    Ok(Exit::Done)
}
