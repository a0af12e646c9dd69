//! `grist logits`.

use std::path::{Path, PathBuf};

use clap::Args;
use gristmill_engine::{Model, Pooling, SessionOptions};

use crate::context::Context;
use crate::files::Replacement;
use crate::measure::{self, Arithmetic, KvChoice};
use crate::report::{Exit, Outcome, Report};

/// Arguments of `grist logits`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// GGUF file
    model: PathBuf,
    /// Token ids, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// Ids for the decoder of an encoder-decoder model
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    decoder_tokens: Vec<u32>,
    /// How an encoder's states make one embedding: none, mean, cls, last, rank [default: none]
    #[arg(long)]
    pooling: Option<Pooling>,
    /// Safetensors file: `logits` (tokens × vocabulary), or `embeddings` for an encoder
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    arithmetic: Arithmetic,
    /// Replace the output
    #[arg(long)]
    force: bool,
    /// Evaluate the model, say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the model once and writes what it gives.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    measure::refuse_existing(&arguments.output, arguments.force)?;
    let model = measure::open(&arguments.model, context)?;
    let (name, width, values) = evaluate(arguments, &model)?;
    let done = match arguments.dry_run {
        true => "would write",
        false => {
            write(&arguments.output, name, width, &values)?;
            "wrote"
        }
    };
    context.note(&format!(
        "{done} {}: {name}, {} × {width}",
        arguments.output.display(),
        values.len() / width.max(1)
    ));
    Ok(Exit::Done)
}

fn write(path: &Path, name: &str, width: usize, values: &[f32]) -> Result<(), Report> {
    let header = serde_json::json!({
        name: {"dtype": "F32", "shape": [values.len() / width.max(1), width], "data_offsets": [0, 4 * values.len()]},
    });
    let mut header = header.to_string();
    header.extend(std::iter::repeat_n(
        ' ',
        header.len().next_multiple_of(8) - header.len(),
    ));
    let mut file = Replacement::create(path)?;
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(header.as_bytes())?;
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    file.write(&bytes)?;
    file.finish()
}

/// Name, row length and values of what the model gives.
fn evaluate(
    arguments: &Arguments,
    model: &Model,
) -> Result<(&'static str, usize, Vec<f32>), Report> {
    let decoder = &arguments.decoder_tokens;
    if model.encodes() == decoder.is_empty() {
        return Err(match model.encodes() {
            true => Report::usage("an encoder-decoder model needs --decoder-tokens"),
            false => Report::usage("--decoder-tokens is for encoder-decoder models"),
        });
    }
    let options = SessionOptions {
        context: arguments.tokens.len().max(decoder.len()),
        ..arguments.arithmetic.or_kv(KvChoice::F32).session()
    };
    let failed = |error| Report::from_engine(&arguments.model, error);
    let mut session = model.session(&options).map_err(failed)?;
    if model.encodes() {
        session.encode(&[&arguments.tokens]).map_err(failed)?;
        let hidden = session.forward(&[decoder]).map_err(failed)?;
        return Ok(("logits", model.vocabulary(), session.logits(hidden)));
    }
    let hidden = session.forward(&[&arguments.tokens]).map_err(failed)?;
    if model.predicts() && arguments.pooling.is_none() {
        return Ok(("logits", model.vocabulary(), session.logits(hidden)));
    }
    let pooling = arguments.pooling.unwrap_or_default();
    if pooling == Pooling::None {
        return Ok(("embeddings", model.width(), hidden));
    }
    let pooled = session
        .pool(&[&arguments.tokens], &hidden, pooling)
        .map_err(failed)?
        .concat();
    Ok(("embeddings", pooled.len(), pooled))
}
