//! `grist merge`.

use std::path::PathBuf;

use clap::Args;
use gristmill_gguf::{File, Layout, Source as _};

use crate::context::Context;
use crate::output::{self, Output};
use crate::report::Outcome;

/// Arguments of `grist merge`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Any part of the split set
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

/// Writes one file.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let file = File::open(&arguments.file)?;
    let Output { output, how } = &arguments.output;
    output::rewrite(
        &file,
        file.metadata(),
        &Layout::default(),
        output,
        how,
        context,
    )
}
