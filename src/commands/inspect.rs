//! `grist inspect`.

use std::path::PathBuf;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use gristmill_gguf::error::Shown;
use gristmill_gguf::{Array, File, Source as _, TensorInfo};
use serde_json::{Value as Json, json};

use crate::context::Context;
use crate::report::{Exit, Outcome};
use crate::values;

/// Arguments of `grist inspect`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The GGUF file, or any part of a split set
    file: PathBuf,
    /// Leave out the list of tensors
    #[arg(long)]
    no_tensors: bool,
    /// Print one JSON document, arrays in full
    #[arg(long)]
    json: bool,
}

/// Prints what is in the file.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let file = File::open(&arguments.file)?;
    if arguments.json {
        context.print_json(&json_of(&file, !arguments.no_tensors))?;
    } else {
        context.print(&text_of(&file, !arguments.no_tensors))?;
    }
    Ok(Exit::Done)
}

/// Elements and bytes of all tensors.
fn totals(file: &File) -> (u64, u64) {
    file.tensors()
        .iter()
        .fold((0, 0), |(elements, bytes), info| {
            (
                elements + info.elements(),
                bytes + info.bytes().unwrap_or(0),
            )
        })
}

fn bits_per_weight(elements: u64, bytes: u64) -> Option<f64> {
    (elements > 0).then(|| bytes as f64 * 8.0 / elements as f64)
}

fn json_of(file: &File, tensors: bool) -> Json {
    let (elements, bytes) = totals(file);
    let files: Vec<Json> = file
        .parts()
        .iter()
        .map(|part| {
            json!({
                "file": part.path,
                "size_bytes": part.bytes,
                "version": part.version,
                "endian": part.endian.name(),
                "alignment_bytes": part.alignment,
                "tensors": part.tensors,
            })
        })
        .collect();
    let types: Vec<Json> = by_type(file)
        .into_iter()
        .map(|(name, count, elements, bytes)| {
            json!({"type": name, "tensors": count, "elements": elements, "size_bytes": bytes})
        })
        .collect();
    let metadata: Vec<Json> = file
        .metadata()
        .iter()
        .map(|(key, value)| {
            let element = value.as_array().map(|array| array.element_type().name());
            json!({
                "key": key.to_string(),
                "type": value.value_type().name(),
                "element_type": element,
                "length": value.as_array().map(Array::len),
                "value": values::to_json(value),
            })
        })
        .collect();
    let mut document = json!({
        "files": files,
        "architecture": file.metadata().str("general.architecture"),
        "name": file.metadata().str("general.name"),
        "size_bytes": file.bytes(),
        "parameters": elements,
        "bits_per_weight": bits_per_weight(elements, bytes),
        "types": types,
        "metadata": metadata,
    });
    if tensors {
        document["tensors"] = file
            .tensors()
            .iter()
            .enumerate()
            .map(|(index, info)| {
                let (part, range) = file.tensor_place(index);
                json!({
                    "name": info.name.to_string(),
                    "shape": info.shape,
                    "type": info.ty.name(),
                    "elements": info.elements(),
                    "size_bytes": info.bytes(),
                    "offset": range.start,
                    "file": part.path,
                })
            })
            .collect();
    }
    document
}

/// Name, tensors, elements and bytes of every tensor type in the file.
fn by_type(file: &File) -> Vec<(&'static str, usize, u64, u64)> {
    file.type_counts()
        .into_iter()
        .map(|(ty, count)| {
            let of_type = file.tensors().iter().filter(|info| info.ty == ty);
            let (elements, bytes) = of_type.fold((0, 0), |(elements, bytes), info| {
                (
                    elements + info.elements(),
                    bytes + info.bytes().unwrap_or(0),
                )
            });
            (ty.name(), count, elements, bytes)
        })
        .collect()
}

fn text_of(file: &File, tensors: bool) -> String {
    let (elements, bytes) = totals(file);
    let mut text = String::new();
    let mut line = |label: &str, value: String| text.push_str(&format!("{label:<16}{value}\n"));
    for part in file.parts() {
        line("file", part.path.display().to_string());
        line(
            "",
            format!(
                "GGUF {}, {} endian, alignment {}, {} tensors, {} bytes",
                part.version,
                part.endian.name(),
                part.alignment,
                part.tensors,
                part.bytes,
            ),
        );
    }
    for key in ["general.architecture", "general.name"] {
        if let Some(value) = file.metadata().get(key) {
            line(key.trim_start_matches("general."), values::show(value));
        }
    }
    let gib = file.bytes() as f64 / f64::from(1 << 30);
    line("size", format!("{} bytes ({gib:.3} GiB)", file.bytes()));
    line("parameters", elements.to_string());
    if let Some(bits) = bits_per_weight(elements, bytes) {
        line("bits per weight", format!("{bits:.3}"));
    }
    let mut types = table(&["type", "tensors", "elements", "bytes"], 1);
    for (name, count, elements, bytes) in by_type(file) {
        types.add_row([
            name.to_owned(),
            count.to_string(),
            elements.to_string(),
            bytes.to_string(),
        ]);
    }
    let mut entries = table(&["key", "type", "value"], 3);
    for (key, value) in file.metadata().iter() {
        entries.add_row([
            Shown(key).to_string(),
            values::type_name(value),
            values::show(value),
        ]);
    }
    for table in [types, entries] {
        text.push('\n');
        push_table(&mut text, &table);
    }
    if tensors {
        let mut list = table(&["tensor", "type", "shape", "bytes", "offset"], 3);
        for (index, info) in file.tensors().iter().enumerate() {
            let (_, range) = file.tensor_place(index);
            list.add_row([
                Shown(&info.name).to_string(),
                info.ty.to_string(),
                shape(info),
                info.bytes().unwrap_or(0).to_string(),
                range.start.to_string(),
            ]);
        }
        text.push('\n');
        push_table(&mut text, &list);
    }
    text
}

fn shape(info: &TensorInfo) -> String {
    let dims: Vec<_> = info.shape.iter().map(u64::to_string).collect();
    dims.join(" × ")
}

/// A table without borders, its first `left` columns left-aligned, the others right-aligned.
fn table(header: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn push_table(text: &mut String, table: &Table) {
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
}
