//! What the commands that write a GGUF file anew have in common.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use gristmill_gguf::{Layout, Metadata, Plan, Source, SplitLimit, WriteOptions, copy};
use serde_json::json;

use crate::context::Context;
use crate::report::{Exit, Outcome, Report};

/// Where a file is written, and how.
#[derive(Debug, Args)]
pub struct Output {
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub how: How,
}

/// How a file is written.
#[derive(Debug, Args)]
pub struct How {
    /// Replace a file that exists
    #[arg(long)]
    pub force: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Reads a size such as `4G`: a number, and K, M, G or T for powers of 1000.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1_000),
        Some((at, 'M' | 'm')) => (&text[..at], 1_000_000),
        Some((at, 'G' | 'g')) => (&text[..at], 1_000_000_000),
        Some((at, 'T' | 't')) => (&text[..at], 1_000_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "expected a whole number, with K, M, G or T after it".to_owned())?;
    match number.checked_mul(unit) {
        Some(0) => Err("expected more than 0".to_owned()),
        Some(bytes) => Ok(bytes),
        None => Err("too large".to_owned()),
    }
}

/// When a new part of a split set starts.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct Limits {
    /// Start a new file where this size would be exceeded, for example 4G (powers of 1000)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub split_max_size: Option<u64>,
    /// Start a new file after this many tensors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub split_max_tensors: Option<u64>,
}

impl Limits {
    /// The limit that was given, if one was.
    pub fn limit(&self) -> Option<SplitLimit> {
        let tensors = self.split_max_tensors.map(SplitLimit::Tensors);
        self.split_max_size.map(SplitLimit::Bytes).or(tensors)
    }
}

/// Writes a source's tensors with these metadata and this layout, and says what was written.
pub fn rewrite(
    source: &dyn Source,
    metadata: &Metadata,
    layout: &Layout,
    output: &Path,
    how: &How,
    context: &Context,
) -> Outcome {
    let plan = Plan::new(metadata, source.tensors(), layout)?;
    let sizes: Vec<u64> = plan.parts().iter().map(|part| part.bytes).collect();
    let counts: Vec<usize> = plan.parts().iter().map(|part| part.tensors.len()).collect();
    let paths = plan.paths(output);
    if !how.dry_run {
        let bar = context.byte_bar("writing", plan.bytes());
        let options = WriteOptions {
            replace: how.force,
            ..WriteOptions::default()
        };
        copy::write(source, plan, output, &options, &mut |bytes| {
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
    }
    if how.json {
        let files: Vec<_> = paths
            .iter()
            .zip(sizes)
            .zip(counts)
            .map(|((path, size), tensors)| {
                json!({"file": path, "size_bytes": size, "tensors": tensors})
            })
            .collect();
        context.print_json(&json!({"written": !how.dry_run, "files": files}))?;
    } else {
        for ((path, size), tensors) in paths.iter().zip(sizes).zip(counts) {
            context.print(&format!(
                "{}  {tensors} tensors, {size} bytes\n",
                path.display()
            ))?;
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_are_powers_of_1000() {
        assert_eq!(parse_size("4G"), Ok(4_000_000_000));
        assert_eq!(parse_size("512"), Ok(512));
        for bad in ["", "G", "-1", "1.5G", "0", "99999999999999999T", "4Gi", "ż"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
