//! `grist endian`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gristmill_gguf::{Endian, File, Layout, Source as _};

use crate::context::Context;
use crate::output::{self, Output};
use crate::report::Outcome;

/// Arguments of `grist endian`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The GGUF file, or any part of a split set
    file: PathBuf,
    /// Byte order to write
    #[arg(long, value_enum, default_value_t)]
    to: Order,
    #[command(flatten)]
    output: Output,
}

/// A byte order.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Order {
    /// Least significant byte first: what nearly every program reads
    #[default]
    Little,
    /// Most significant byte first
    Big,
}

/// Writes the file in that byte order.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let file = File::open(&arguments.file)?;
    let layout = Layout {
        endian: match arguments.to {
            Order::Little => Endian::Little,
            Order::Big => Endian::Big,
        },
        ..Layout::default()
    };
    let Output { output, how } = &arguments.output;
    output::rewrite(&file, file.metadata(), &layout, output, how, context)
}
