//! `grist extract`.

use std::path::{Path, PathBuf};

use clap::Args;
use gristmill_gguf::{File, Source as _, Value};
use gristmill_quantize::types;

use crate::context::Context;
use crate::report::{Exit, Outcome, Report};
use crate::{files, measure, values};

/// Arguments of `grist extract`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The GGUF file, or any part of a split set
    file: PathBuf,
    #[command(flatten)]
    what: What,
    /// Where to: for a tensor a .npy file of f32 numbers, or any other name for its bytes as
    /// stored; for a key a text file [default for a key: print it]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a file that exists
    #[arg(long)]
    force: bool,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What is taken out.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// A metadata key, for example tokenizer.chat_template
    #[arg(long)]
    key: Option<String>,
    /// A tensor
    #[arg(long)]
    tensor: Option<String>,
}

/// Takes one thing out of the file.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let file = File::open(&arguments.file)?;
    let bytes = match (&arguments.what.key, &arguments.what.tensor) {
        (Some(key), _) => {
            let value = file
                .metadata()
                .get(key)
                .ok_or_else(|| missing("key", key))?;
            let text = text_of(value);
            if arguments.output.is_none() {
                context.print(&text)?;
                return Ok(Exit::Done);
            }
            text.into_bytes()
        }
        (None, Some(name)) => {
            let tensor = file.find(name).ok_or_else(|| missing("tensor", name))?;
            match &arguments.output {
                Some(output) => tensor_bytes(&file, tensor, output)?,
                None => {
                    return Err(Report::usage("where to write the tensor is not given")
                        .help("name a file with -o"));
                }
            }
        }
        (None, None) => return Err(Report::usage("neither --key nor --tensor is given")),
    };
    if let Some(output) = &arguments.output {
        measure::refuse_existing(output, arguments.force)?;
        files::replace_or_say(output, &bytes, arguments.dry_run, context)?;
    }
    Ok(Exit::Done)
}

fn missing(what: &str, name: &str) -> Report {
    Report::input(format!("no {what} `{name}` in the file"))
        .help("`grist inspect` lists what there is")
}

/// A text as it is, an array an element a line, anything else as JSON.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::Array(array) => (0..array.len())
            .filter_map(|index| array.get(index))
            .map(|value| text_of(&value) + "\n")
            .collect(),
        value => values::to_json(value).to_string(),
    }
}

fn tensor_bytes(file: &File, tensor: usize, output: &Path) -> Result<Vec<u8>, Report> {
    let info = &file.tensors()[tensor];
    let data = file.tensor_data(tensor)?;
    if output
        .extension()
        .is_none_or(|extension| extension != "npy")
    {
        return Ok(data.to_vec());
    }
    let mut numbers = vec![0f32; info.elements() as usize];
    types::decode(info.ty, &data, &mut numbers)
        .map_err(|error| Report::input(error.to_string()))?;
    // NumPy counts dimensions from the slowest.
    let shape: Vec<String> = info
        .shape
        .iter()
        .rev()
        .map(|dim| format!("{dim},"))
        .collect();
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}",
        shape.concat()
    );
    // Magic, version and length take ten bytes; the whole ends with a newline at a multiple of 64.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.push_str(&" ".repeat(length - header.len() - 1));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    Ok(bytes)
}
