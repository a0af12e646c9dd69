//! Speed of a model: prompt processing and generation, and the memory they take.

use std::time::Instant;

use gristmill_engine::{Model, Session, SessionOptions};

use crate::evaluate::Error;

/// How speed is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    /// Tokens of the prompt, evaluated at once; 0: no prompt is measured.
    pub prompt: usize,
    /// Tokens generated one by one; 0: no generation is measured.
    pub generated: usize,
    /// Tokens in the cache before either starts.
    pub depth: usize,
    /// Runs; one more goes before them and is not counted.
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

/// Tokens a second over all runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// The median.
    pub median: f64,
    /// The slowest run's.
    pub lowest: f64,
    /// The fastest run's.
    pub highest: f64,
}

impl Rate {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: *values.get(values.len() / 2)?,
            lowest: *values.first()?,
            highest: *values.last()?,
        })
    }
}

/// What was measured; nothing for what the workload leaves out or the model does not do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Prompt processing, up to the logits of the last token.
    pub prompt: Option<Rate>,
    /// Generation, logits of every token included.
    pub generation: Option<Rate>,
    /// Anonymous memory of the process at the end of the runs, KV cache included: what the mapped
    /// weights do not explain. Known on Linux.
    pub anonymous_bytes: Option<u64>,
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
    let generated = match model.predicts() {
        true => workload.generated,
        false => 0,
    };
    let options = SessionOptions {
        // A decoder begins with a token of its own.
        context: workload.depth + workload.prompt.max(generated) + 1,
        sequences: 1,
        ..options.clone()
    };
    let mut runs = Runs {
        tokens: (0..options.context)
            .map(|at| ((at * 7919) % model.vocabulary()) as u32)
            .collect(),
        session: model.session(&options)?,
        depth: workload.depth,
    };
    let (mut prompt, mut generation) = (Vec::new(), Vec::new());
    // The first run pays for cold pages and is not counted.
    for run in 0..=workload.runs {
        if workload.prompt > 0 {
            let seconds = runs.prompt(workload.prompt)?;
            if run > 0 {
                prompt.push(workload.prompt as f64 / seconds);
            }
        }
        if generated > 0 {
            let seconds = runs.generation(generated)?;
            if run > 0 {
                generation.push(generated as f64 / seconds);
            }
        }
    }
    Ok(Speed {
        prompt: Rate::of(prompt),
        generation: Rate::of(generation),
        anonymous_bytes: anonymous_bytes(),
    })
}

struct Runs<'m> {
    session: Session<'m>,
    tokens: Vec<u32>,
    depth: usize,
}

impl Runs<'_> {
    /// Seconds that a prompt takes.
    fn prompt(&mut self, count: usize) -> Result<f64, Error> {
        self.session.reset();
        let encodes = self.session.model().encodes();
        if !encodes {
            self.session.forward(&[&self.tokens[..self.depth]])?;
        }
        let tokens = &self.tokens[self.depth..self.depth + count];
        let start = Instant::now();
        let hidden = match encodes {
            true => self.session.encode(&[tokens])?,
            false => self.session.forward(&[tokens])?,
        };
        if self.session.model().predicts() && !encodes {
            let last = hidden.len().saturating_sub(self.session.model().width());
            self.session.logits(hidden[last..].to_vec());
        }
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds that generation takes.
    fn generation(&mut self, count: usize) -> Result<f64, Error> {
        self.session.reset();
        if self.session.model().encodes() {
            self.session.encode(&[&self.tokens[..=self.depth]])?;
        } else {
            self.session.forward(&[&self.tokens[..self.depth]])?;
        }
        let start = Instant::now();
        for token in &self.tokens[self.depth..self.depth + count] {
            let hidden = self.session.forward(&[&[*token]])?;
            self.session.logits(hidden);
        }
        Ok(start.elapsed().as_secs_f64())
    }
}

/// Anonymous resident memory of this process.
fn anonymous_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
