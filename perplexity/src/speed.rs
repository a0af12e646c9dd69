//! Speed of a model: prompt processing and generation.

use std::time::Instant;

use gristmill_engine::{Model, SessionOptions};

use crate::evaluate::Error;

/// How speed is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Tokens of the prompt, evaluated at once.
    pub prompt: usize,
    /// Tokens generated one by one.
    pub generated: usize,
    /// Tokens in the cache before the generation starts.
    pub depth: usize,
    /// Runs; the median counts.
    pub runs: usize,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            prompt: 512,
            generated: 32,
            depth: 0,
            runs: 3,
        }
    }
}

/// Tokens a second, medians over the runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Prompt processing.
    pub prompt: f64,
    /// Generation.
    pub generation: f64,
}

/// Measures a model; the tokens are arbitrary, since speed does not depend on them.
///
/// # Errors
/// If the model cannot be run.
pub fn measure(
    model: &Model,
    options: &SessionOptions,
    workload: &Workload,
) -> Result<Speed, Error> {
    let context = workload
        .prompt
        .max(workload.depth + workload.generated)
        .max(1);
    let options = SessionOptions {
        context,
        sequences: 1,
        ..options.clone()
    };
    let mut session = model.session(&options)?;
    let token = |at: usize| ((at * 7919) % model.vocabulary()) as u32;
    let tokens: Vec<u32> = (0..context).map(token).collect();
    let (mut prompt, mut generation) = (Vec::new(), Vec::new());
    // The first run pays for cold pages and is not counted.
    for run in 0..=workload.runs {
        session.reset();
        let start = Instant::now();
        let hidden = session.forward(&[&tokens[..workload.prompt]])?;
        let last = hidden.len().saturating_sub(model.width());
        session.logits(hidden[last..].to_vec());
        let prompt_seconds = start.elapsed().as_secs_f64();
        session.reset();
        session.forward(&[&tokens[..workload.depth]])?;
        let start = Instant::now();
        for at in 0..workload.generated {
            let hidden = session.forward(&[&tokens[workload.depth + at..][..1]])?;
            session.logits(hidden);
        }
        if run > 0 {
            prompt.push(workload.prompt as f64 / prompt_seconds);
            generation.push(workload.generated as f64 / start.elapsed().as_secs_f64());
        }
    }
    Ok(Speed {
        prompt: median(&mut prompt),
        generation: median(&mut generation),
    })
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
