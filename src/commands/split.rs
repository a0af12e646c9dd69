//! `grist split`.

use std::path::PathBuf;

use clap::Args;
use gristmill_gguf::{File, Layout, Source as _};

use crate::context::Context;
use crate::output::{self, How, Limits};
use crate::report::{Outcome, Report};

/// Arguments of `grist split`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The GGUF file
    file: PathBuf,
    /// Name of the parts: NAME.gguf gives NAME-00001-of-00003.gguf and so on [default: FILE]
    #[arg(short, long, value_name = "NAME")]
    output: Option<PathBuf>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    how: How,
}

/// Writes the parts.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let Some(limit) = arguments.limits.limit() else {
        return Err(Report::usage("where to split is not given")
            .help("give --split-max-size or --split-max-tensors"));
    };
    let file = File::open(&arguments.file)?;
    let layout = Layout {
        split: Some(limit),
        ..Layout::default()
    };
    let output = arguments.output.as_ref().unwrap_or(&arguments.file);
    output::rewrite(
        &file,
        file.metadata(),
        &layout,
        output,
        &arguments.how,
        context,
    )
}
