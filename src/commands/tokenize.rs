//! `grist tokenize`.

use std::path::PathBuf;

use clap::Args;
use gristmill_convert::CheckpointFiles;
use gristmill_convert::vocab::CheckpointTokenizer;
use gristmill_engine::Tokenizer;
use serde_json::json;

use crate::context::Context;
use crate::model_source::ModelSource;
use crate::report::{Exit, Outcome, Report};

/// Arguments of `grist tokenize`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// GGUF file, or a checkpoint's folder (whose own tokenizer runs then)
    model: PathBuf,
    /// The text
    #[arg(
        value_name = "TEXT",
        required_unless_present = "file",
        allow_hyphen_values = true
    )]
    text: Option<String>,
    /// Read the text from a file
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Leave out the tokens that are added around a text
    #[arg(long)]
    no_special: bool,
    /// Read the texts of special tokens as plain text
    #[arg(long)]
    no_parse_special: bool,
    /// Print the array of ids
    #[arg(long)]
    json: bool,
}

/// Prints the token ids of a text.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let text = match (&arguments.text, &arguments.file) {
        (_, Some(path)) => std::fs::read(path).map_err(|error| Report::io(path, &error))?,
        (Some(text), None) => text.clone().into_bytes(),
        (None, None) => return Err(Report::usage("no text to tokenize")),
    };
    let (special, parse) = (!arguments.no_special, !arguments.no_parse_special);
    let tokens = match checkpoint_tokenizer(arguments)? {
        Some(mut tokenizer) => {
            let text = std::str::from_utf8(&text).map_err(|error| {
                Report::input(format!("the text is not UTF-8: {error}"))
                    .help("a GGUF file's tokenizer takes any bytes: convert the checkpoint first")
            })?;
            let ids = tokenizer
                .encode(text, special, parse)
                .map_err(gristmill_convert::Error::from)?;
            let text = |id| tokenizer.text(id);
            ids.into_iter().map(|id| (id, text(id))).collect()
        }
        None => from_metadata(arguments, &text, context)?,
    };
    if arguments.json {
        let ids: Vec<u32> = tokens.iter().map(|(id, _)| *id).collect();
        context.print_json(&json!(ids))?;
    } else {
        let lines = tokens
            .iter()
            .map(|(id, text)| format!("{id:>8} {text:?}\n"));
        context.print(&lines.collect::<String>())?;
    }
    Ok(Exit::Done)
}

/// The checkpoint's `tokenizer.json`, if the model is a checkpoint that has one.
fn checkpoint_tokenizer(arguments: &Arguments) -> Result<Option<CheckpointTokenizer>, Report> {
    if arguments.model.is_file() {
        return Ok(None);
    }
    // The weights are not needed for it.
    let files = CheckpointFiles::open(&arguments.model)?;
    let tokenizer = CheckpointTokenizer::open(&files);
    Ok(tokenizer.map_err(gristmill_convert::Error::from)?)
}

/// Ids and texts by the tokenizer that a file's metadata describes, or a checkpoint's would.
fn from_metadata(
    arguments: &Arguments,
    text: &[u8],
    context: &Context,
) -> Result<Vec<(u32, String)>, Report> {
    let source = ModelSource::open(&arguments.model, None, context)?;
    let tokenizer = Tokenizer::from_metadata(source.source().metadata())
        .map_err(|error| Report::input(format!("{}: {error}", arguments.model.display())))?;
    let ids = tokenizer.encode(text, !arguments.no_special, !arguments.no_parse_special);
    let text = |id| String::from_utf8_lossy(&tokenizer.token_bytes(id)).into_owned();
    Ok(ids.into_iter().map(|id| (id, text(id))).collect())
}
