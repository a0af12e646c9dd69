//! `grist imatrix merge` and `grist imatrix show`.

use std::path::PathBuf;

use clap::Args;
use gristmill_quantize::importance::{Importance, Statistics};
use serde_json::json;

use super::imatrix::Format;
use crate::context::Context;
use crate::report::{Exit, Outcome, Report};
use crate::table;

/// Arguments of `grist imatrix merge`.
#[derive(Debug, Args)]
pub struct Merge {
    /// Importance matrices of one model, GGUF or .dat
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where the sum goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Container [default: dat for a name that ends so, else gguf]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Replace the output
    #[arg(long)]
    force: bool,
}

/// Adds measurements up; of one file, changes its container.
pub fn merge(arguments: &Merge, context: &Context) -> Outcome {
    let mut sum: Option<Importance> = None;
    for path in &arguments.files {
        let matrix = Importance::read(path)?;
        match &mut sum {
            None => sum = Some(matrix),
            Some(sum) => sum.merge(matrix).map_err(|error| {
                Report::input(format!("{}: {error}", path.display()))
                    .help("only matrices of the same model can be added")
            })?,
        }
    }
    let Some(sum) = sum else {
        return Err(Report::usage("no file given"));
    };
    let output = &arguments.output;
    match arguments.format.unwrap_or_else(|| Format::of(output)) {
        Format::Gguf => sum.write(output, arguments.force)?,
        Format::Dat => sum.write_legacy(output, arguments.force)?,
    }
    context.note(&format!(
        "wrote {}: {} tensors, {} chunks",
        output.display(),
        sum.entries.len(),
        sum.chunks
    ));
    Ok(Exit::Done)
}

/// Arguments of `grist imatrix show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Importance matrix, GGUF or .dat
    file: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Prints the statistics of every entry and layer.
pub fn show(arguments: &Show, context: &Context) -> Outcome {
    let matrix = Importance::read(&arguments.file)?;
    let statistics = matrix.statistics();
    if arguments.json {
        context.print_json(&json_of(&matrix, &statistics))?;
    } else {
        context.print(&text_of(&matrix, &statistics))?;
    }
    Ok(Exit::Done)
}

fn json_of(matrix: &Importance, statistics: &Statistics) -> serde_json::Value {
    let entries = statistics.entries.iter().map(|entry| {
        json!({
            "tensor": entry.tensor.to_string(),
            "columns": entry.columns,
            "tokens_min": entry.tokens.0,
            "tokens_max": entry.tokens.1,
            "sum": entry.sum,
            "min": entry.min,
            "max": entry.max,
            "mean": entry.mean,
            "deviation": entry.deviation,
            "active": entry.active,
            "entropy_bits": entry.entropy,
            "entropy_normalized": entry.normalized_entropy,
            "outliers": entry.outliers,
            "similarity": entry.similarity,
        })
    });
    let layers = statistics.layers.iter().map(|layer| {
        json!({
            "layer": layer.layer,
            "sum": layer.sum,
            "outliers": layer.outliers,
            "similarity": layer.similarity,
        })
    });
    let datasets: Vec<String> = matrix.datasets.iter().map(ToString::to_string).collect();
    json!({
        "datasets": datasets,
        "chunks": matrix.chunks,
        "chunk_tokens": matrix.chunk_size,
        "entries": entries.collect::<Vec<_>>(),
        "layers": layers.collect::<Vec<_>>(),
    })
}

fn text_of(matrix: &Importance, statistics: &Statistics) -> String {
    let header = [
        "tensor",
        "tokens",
        "Σ a",
        "min",
        "max",
        "mean",
        "σ",
        "active %",
        "entropy %",
        "outliers %",
        "similarity",
    ];
    let mut entries = table::plain(&header, 1);
    for entry in &statistics.entries {
        let (least, most) = entry.tokens;
        entries.add_row([
            entry.tensor.to_string(),
            if least == most {
                most.to_string()
            } else {
                format!("{least}–{most}")
            },
            format!("{:.4}", entry.sum),
            format!("{:.4}", entry.min),
            format!("{:.4}", entry.max),
            format!("{:.4}", entry.mean),
            format!("{:.4}", entry.deviation),
            format!("{:.2}", entry.active * 100.0),
            format!("{:.2}", entry.normalized_entropy * 100.0),
            format!("{:.2}", entry.outliers * 100.0),
            format!("{:.4}", entry.similarity),
        ]);
    }
    let mut layers = table::plain(&["layer", "Σ a", "outliers %", "similarity"], 0);
    for layer in &statistics.layers {
        layers.add_row([
            layer.layer.to_string(),
            format!("{:.4}", layer.sum),
            format!("{:.2}", layer.outliers * 100.0),
            format!("{:.4}", layer.similarity),
        ]);
    }
    let datasets: Vec<String> = matrix.datasets.iter().map(ToString::to_string).collect();
    format!(
        "{} entries, {} chunks, measured on {}\n\n{}\n\n{}\n",
        matrix.entries.len(),
        matrix.chunks,
        datasets.join(", "),
        table::trimmed(&entries),
        table::trimmed(&layers)
    )
}
