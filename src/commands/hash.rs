//! `grist hash`.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gristmill_gguf::error::Shown;
use gristmill_gguf::hash::{self, Algorithm};
use gristmill_gguf::{File, Source as _};
use serde_json::json;

use crate::context::Context;
use crate::report::{Exit, Outcome, Report};

/// Arguments of `grist hash`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The GGUF file, or any part of a split set
    file: PathBuf,
    /// How digests are made
    #[arg(long, value_enum, default_value_t)]
    algorithm: AlgorithmArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// How digests are made.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum AlgorithmArgument {
    /// Fast, against accidents
    Xxh64,
    /// Against forgery too
    #[default]
    Sha256,
}

/// Prints the digests of the tensors' data, which do not depend on split, padding or byte order.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let file = File::open(&arguments.file)?;
    let algorithm = match arguments.algorithm {
        AlgorithmArgument::Xxh64 => Algorithm::Xxh64,
        AlgorithmArgument::Sha256 => Algorithm::Sha256,
    };
    let total = file
        .tensors()
        .iter()
        .filter_map(gristmill_gguf::TensorInfo::bytes)
        .sum();
    let bar = context.byte_bar("hashing", total);
    let digests = hash::digests(&file, algorithm, &mut |bytes| {
        bar.inc(bytes);
        match context.check_interrupt() {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    })
    .map_err(|error| match error {
        gristmill_gguf::Error::Interrupted => Report::interrupted(),
        error => error.into(),
    })?;
    bar.finish_and_clear();
    if arguments.json {
        let tensors: Vec<_> = digests
            .tensors
            .iter()
            .map(|(name, digest)| json!({"name": name.to_string(), "digest": digest}))
            .collect();
        context.print_json(&json!({
            "file": arguments.file,
            "algorithm": algorithm.name(),
            "model": digests.model,
            "tensors": tensors,
        }))?;
    } else {
        let (name, file) = (algorithm.name(), arguments.file.display());
        let mut text = String::new();
        for (tensor, digest) in &digests.tensors {
            text.push_str(&format!("{name}  {digest}  {file}:{}\n", Shown(tensor)));
        }
        text.push_str(&format!("{name}  {}  {file}\n", digests.model));
        context.print(&text)?;
    }
    Ok(Exit::Done)
}
