//! `grist generate`.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use gristmill_engine::tokenizer::Message;
use gristmill_engine::{Sampler, Sampling, SessionOptions, generate};

use crate::context::Context;
use crate::measure::{self, Arithmetic};
use crate::report::{Exit, Outcome, Report};

/// Arguments of `grist generate`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// GGUF file
    model: PathBuf,
    /// The text to go on from
    #[arg(short, long)]
    prompt: String,
    /// Take the prompt as a message of a user, in the model's chat template
    #[arg(long)]
    chat: bool,
    /// Tokens to generate at most
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value_t = 128)]
    limit: usize,
    /// Tokens the context holds [default: prompt and -n]
    #[arg(short, long, value_name = "N")]
    context: Option<usize>,
    /// 0 takes the most probable token always
    #[arg(long, default_value_t = Sampling::default().temperature)]
    temp: f32,
    #[arg(long, default_value_t = Sampling::default().top_k)]
    top_k: usize,
    #[arg(long, default_value_t = Sampling::default().top_p)]
    top_p: f32,
    #[arg(long, default_value_t = Sampling::default().min_p)]
    min_p: f32,
    /// The same seed draws the same tokens
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    arithmetic: Arithmetic,
}

/// Generates, and prints as it goes.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let model = measure::open(&arguments.model, context)?;
    let tokenizer = measure::tokenizer(&model, &arguments.model)?;
    let prompt = if arguments.chat {
        let message = Message::new("user", arguments.prompt.as_str());
        let text = tokenizer
            .chat_template(None)
            .and_then(|template| template.render(&[message], true))
            .map_err(|error| {
                Report::input(format!("{}: {error}", arguments.model.display()))
                    .help("leave --chat out and give the prompt as the model expects it")
            })?;
        tokenizer.encode(&text, false, true)
    } else {
        tokenizer.encode(&arguments.prompt, true, false)
    };
    let failed = |error| Report::from_engine(&arguments.model, error);
    if !model.predicts() {
        let problem = format!("a {} model does not generate text", model.architecture());
        return Err(Report::usage(problem).help("`grist logits` writes its embeddings"));
    }
    let options = SessionOptions {
        context: arguments.context.unwrap_or(prompt.len() + arguments.limit),
        ..arguments.arithmetic.session()
    };
    let mut session = model.session(&options).map_err(failed)?;
    let prompt = if model.encodes() {
        session.encode(&[&prompt]).map_err(failed)?;
        vec![model.decoder_start()]
    } else {
        prompt
    };
    let mut sampler = Sampler::new(Sampling {
        temperature: arguments.temp,
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        min_p: arguments.min_p,
        seed: arguments.seed,
    });
    let ends: Vec<u32> = (0..tokenizer.len() as u32)
        .filter(|&id| tokenizer.is_end(id))
        .collect();
    if !arguments.chat {
        context.print(&arguments.prompt)?;
    }
    // A token can end inside a character: what is whole is printed, the rest waits.
    let mut pending = Vec::new();
    let mut result = Ok(());
    generate(
        &mut session,
        &prompt,
        arguments.limit,
        &mut sampler,
        &ends,
        |token| {
            pending.extend(tokenizer.token_bytes(token));
            result = print_whole(&mut pending, context).and_then(|()| context.check_interrupt());
            if result.is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        },
    )
    .map_err(failed)?;
    result?;
    context.print(&format!("{}\n", String::from_utf8_lossy(&pending)))?;
    Ok(Exit::Done)
}

/// Prints the whole characters at the start of `pending` and takes them out.
fn print_whole(pending: &mut Vec<u8>, context: &Context) -> Result<(), Report> {
    let whole = match std::str::from_utf8(pending) {
        Ok(text) => text.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        // Bytes that no later token can mend.
        Err(_) => pending.len(),
    };
    let text: Vec<u8> = pending.drain(..whole).collect();
    context.print(&String::from_utf8_lossy(&text))
}
