//! Continuing a text.

use std::ops::ControlFlow;

use crate::error::Error;
use crate::sampling::Sampler;
use crate::session::Session;

/// Why generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The model ended the text.
    End,
    /// The limit was reached.
    Limit,
    /// The session's context is full.
    Context,
    /// The caller said so.
    Caller,
}

/// What was generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The tokens, without the one that ended the text.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub stop: Stop,
}

/// Tokens of the prompt that go through the model at once.
const BATCH: usize = 512;

/// Extends the session's first sequence by `prompt`, then by up to `limit` drawn tokens, until one
/// of `ends` is drawn. `each` sees every token as it is drawn and may end it.
///
/// # Errors
/// If the prompt is empty, does not fit the session's context, or holds unknown tokens.
pub fn generate(
    session: &mut Session<'_>,
    prompt: &[u32],
    limit: usize,
    sampler: &mut Sampler,
    ends: &[u32],
    mut each: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<Generated, Error> {
    let width = session.model().width();
    let mut hidden = Vec::new();
    for part in prompt.chunks(BATCH) {
        hidden = session.forward(&[part])?;
    }
    if hidden.is_empty() {
        return Err(Error::Usage("the prompt is empty".into()));
    }
    let mut tokens = Vec::new();
    let stop = loop {
        if tokens.len() == limit {
            break Stop::Limit;
        }
        let last = hidden.split_off(hidden.len() - width);
        let token = sampler.sample(&session.logits(last));
        if ends.contains(&token) {
            break Stop::End;
        }
        tokens.push(token);
        if each(token).is_break() {
            break Stop::Caller;
        }
        if tokens.len() == limit {
            break Stop::Limit;
        }
        if session.len(0) == session.context() {
            break Stop::Context;
        }
        hidden = session.forward(&[&[token]])?;
    };
    Ok(Generated { tokens, stop })
}
