//! Models over chunks: predictions of one model, and a variant beside its base.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gristmill_engine::{Model, Session, SessionOptions};
use rayon::prelude::*;

use crate::divergence::{self, Divergence, Prediction};
use crate::protocol::Chunks;
use crate::report::{DivergenceReport, PerplexityReport};
use crate::statistics::{Moments, covariance_of_means, percentile};

/// Why a measurement ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be run.
    #[error(transparent)]
    Engine(#[from] gristmill_engine::Error),
    /// Base and variant do not predict over the same vocabulary.
    #[error("the vocabularies differ: {variant} tokens in the variant, {base} in the base")]
    Vocabulary {
        /// Tokens of the base.
        base: usize,
        /// Tokens of the variant.
        variant: usize,
    },
    /// A token of the text is outside the vocabulary.
    #[error("token {token} of the text is outside the model's vocabulary of {vocabulary}")]
    Token {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocabulary: usize,
    },
    /// The model does not predict tokens.
    #[error("the model is an encoder: it gives embeddings, no predictions")]
    Encoder,
    /// What is done cannot be kept.
    #[error(transparent)]
    State(Box<gristmill_gguf::Error>),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Where a measurement reports to and what may end it.
pub struct Observer<'a> {
    /// Called after each batch with the number of chunks it had.
    pub progress: &'a (dyn Fn(usize) + Sync),
    /// Set to end the measurement early.
    pub interrupted: &'a AtomicBool,
}

/// Tokens that run through the layers together: enough to use each unpacked weight many times.
pub(crate) const BATCH_TOKENS: usize = 2048;

/// Bytes of logits that are alive at a time, for base and variant each.
const LOGIT_BYTES: usize = 16 << 20;

/// The final states of a base model at the scored positions. Its logits are computed from them again
/// for every variant: a state takes a hundredth of the memory of a row of logits.
pub struct Reference<'m> {
    session: Session<'m>,
    exact: bool,
    hidden: Vec<f32>,
    predictions: Vec<Prediction>,
    seconds: f64,
}

impl<'m> Reference<'m> {
    /// Runs the base over all chunks.
    ///
    /// # Errors
    /// If the model fails, a token is outside its vocabulary, or the observer interrupts.
    pub fn new(
        model: &'m Model,
        options: &SessionOptions,
        chunks: &Chunks,
        observer: &Observer<'_>,
    ) -> Result<Self, Error> {
        let start = Instant::now();
        let (mut hidden, mut predictions) = (Vec::new(), Vec::new());
        let session = run(
            model,
            options,
            chunks,
            observer,
            |session, states, targets| {
                for rows in blocks(model.vocabulary(), targets.len()) {
                    predict(
                        &logits(session, states, rows.clone()),
                        &targets[rows],
                        &mut predictions,
                    );
                }
                hidden.extend_from_slice(states);
                Ok::<_, Error>(())
            },
        )?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Self {
            session,
            exact: options.exact,
            hidden,
            predictions,
            seconds,
        })
    }

    /// Runs a variant beside the base over the same chunks.
    ///
    /// # Errors
    /// If the variant fails, its vocabulary is another one, or the observer interrupts.
    pub fn compare(
        &self,
        variant: &Model,
        options: &SessionOptions,
        chunks: &Chunks,
        observer: &Observer<'_>,
    ) -> Result<PerplexityReport, Error> {
        let start = Instant::now();
        let base = self.session.model();
        if base.vocabulary() != variant.vocabulary() {
            return Err(Error::Vocabulary {
                base: base.vocabulary(),
                variant: variant.vocabulary(),
            });
        }
        let mut divergences: Vec<Divergence> = Vec::with_capacity(self.predictions.len());
        run(
            variant,
            options,
            chunks,
            observer,
            |session, states, targets| {
                let done = divergences.len();
                for rows in blocks(variant.vocabulary(), targets.len()) {
                    let base_rows = done + rows.start..done + rows.end;
                    let base_logits = logits(&self.session, &self.hidden, base_rows);
                    let logits = logits(session, states, rows.clone());
                    let vocabulary = variant.vocabulary();
                    let pairs = base_logits
                        .par_chunks(vocabulary)
                        .zip(logits.par_chunks(vocabulary));
                    let scored = pairs.zip(&targets[rows]);
                    divergences.par_extend(scored.map(|((base, variant), &target)| {
                        divergence::compare(base, variant, target)
                    }));
                }
                Ok::<_, Error>(())
            },
        )?;
        let predictions: Vec<Prediction> = divergences.iter().map(|d| d.variant).collect();
        let seconds = start.elapsed().as_secs_f64();
        Ok(report(
            &predictions,
            options.exact,
            chunks,
            seconds,
            Some(summarize(&divergences)),
        ))
    }

    /// The base's own perplexity.
    pub fn report(&self, chunks: &Chunks) -> PerplexityReport {
        report(&self.predictions, self.exact, chunks, self.seconds, None)
    }
}

/// Perplexity of one model. `sink` is given the logits of each block of scored positions, in order.
///
/// # Errors
/// If the model fails, a token is outside its vocabulary, `sink` fails, or the observer interrupts.
pub fn perplexity<E: From<Error>>(
    model: &Model,
    options: &SessionOptions,
    chunks: &Chunks,
    observer: &Observer<'_>,
    mut sink: impl FnMut(&[f32]) -> Result<(), E>,
) -> Result<PerplexityReport, E> {
    let start = Instant::now();
    let mut predictions = Vec::new();
    run(
        model,
        options,
        chunks,
        observer,
        |session, states, targets| {
            blocks(model.vocabulary(), targets.len()).try_for_each(|rows| {
                let logits = logits(session, states, rows.clone());
                predict(&logits, &targets[rows], &mut predictions);
                sink(&logits)
            })
        },
    )?;
    Ok(report(
        &predictions,
        options.exact,
        chunks,
        start.elapsed().as_secs_f64(),
        None,
    ))
}

/// Runs all chunks, some at a time, and gives `score` the states and targets of scored positions.
fn run<'m, E: From<Error>>(
    model: &'m Model,
    options: &SessionOptions,
    chunks: &Chunks,
    observer: &Observer<'_>,
    mut score: impl FnMut(&Session<'_>, &[f32], &[u32]) -> Result<(), E>,
) -> Result<Session<'m>, E> {
    if !model.predicts() {
        return Err(Error::Encoder.into());
    }
    let at_a_time = (BATCH_TOKENS / chunks.context()).clamp(1, chunks.count());
    let options = SessionOptions {
        context: chunks.context(),
        sequences: at_a_time,
        ..options.clone()
    };
    let mut session = model.session(&options).map_err(Error::from)?;
    let (scored, width) = (chunks.scored(), model.width());
    for first in (0..chunks.count()).step_by(at_a_time) {
        if observer.interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted.into());
        }
        let batch = first..chunks.count().min(first + at_a_time);
        let tokens: Vec<Vec<u32>> = batch.clone().map(|chunk| chunks.evaluated(chunk)).collect();
        let targets: Vec<u32> = batch
            .clone()
            .flat_map(|chunk| chunks.targets(chunk))
            .copied()
            .collect();
        // Tokens that are only predicted, never evaluated, are not checked by the engine.
        if let Some(&token) = targets
            .iter()
            .find(|&&token| token as usize >= model.vocabulary())
        {
            return Err(Error::Token {
                token,
                vocabulary: model.vocabulary(),
            }
            .into());
        }
        session.reset();
        let sequences: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        let hidden = session.forward(&sequences).map_err(Error::from)?;
        let states: Vec<f32> = hidden
            .chunks_exact(chunks.context() * width)
            .flat_map(|chunk| &chunk[scored.start * width..scored.end * width])
            .copied()
            .collect();
        score(&session, &states, &targets)?;
        (observer.progress)(batch.len());
    }
    Ok(session)
}

/// Ranges of rows whose logits are not too large to hold.
fn blocks(vocabulary: usize, rows: usize) -> impl Iterator<Item = Range<usize>> {
    let block = (LOGIT_BYTES / (4 * vocabulary)).max(1);
    (0..rows)
        .step_by(block)
        .map(move |first| first..rows.min(first + block))
}

/// Logits of some of the states.
fn logits(session: &Session<'_>, states: &[f32], rows: Range<usize>) -> Vec<f32> {
    let width = session.model().width();
    session.logits(states[rows.start * width..rows.end * width].to_vec())
}

/// Scores each row of logits by its target.
fn predict(logits: &[f32], targets: &[u32], predictions: &mut Vec<Prediction>) {
    let vocabulary = logits.len() / targets.len().max(1);
    let scored = logits.par_chunks(vocabulary.max(1)).zip(targets);
    predictions.par_extend(scored.map(|(row, &target)| divergence::predict(row, target)));
}

fn report(
    predictions: &[Prediction],
    exact: bool,
    chunks: &Chunks,
    seconds: f64,
    against: Option<DivergenceReport>,
) -> PerplexityReport {
    let loss: Moments = predictions.iter().map(|p| -p.log_probability).collect();
    let perplexity = loss.mean().exp();
    PerplexityReport {
        exact,
        perplexity,
        perplexity_error: loss.error() * perplexity,
        tokens: loss.count(),
        chunks: chunks.count() as u64,
        context: chunks.context() as u64,
        seconds,
        against,
    }
}

fn summarize(divergences: &[Divergence]) -> DivergenceReport {
    let kl: Moments = divergences.iter().map(|d| d.kl).collect();
    let mut sorted: Vec<f64> = divergences.iter().map(|d| d.kl).collect();
    sorted.sort_by(f64::total_cmp);
    let quantile = |fraction| percentile(&sorted, fraction).unwrap_or_default();
    let probability = |p: &Prediction| p.log_probability.exp();
    let delta: Moments = divergences
        .iter()
        .map(|d| probability(&d.variant) - probability(&d.base))
        .collect();
    let same: Moments = divergences
        .iter()
        .map(|d| f64::from(u8::from(d.base.top == d.variant.top)))
        .collect();
    let losses = |of: fn(&Divergence) -> &Prediction| -> Vec<f64> {
        divergences.iter().map(|d| -of(d).log_probability).collect()
    };
    let (base, variant) = (losses(|d| &d.base), losses(|d| &d.variant));
    let moments = |series: &[f64]| series.iter().copied().collect::<Moments>();
    let (base_loss, variant_loss) = (moments(&base), moments(&variant));
    let perplexity_ratio = (variant_loss.mean() - base_loss.mean()).exp();
    // Both models see the same tokens: their losses are correlated, and the error of the difference is
    // smaller than the errors of either.
    let variance = base_loss.error().powi(2) + variant_loss.error().powi(2)
        - 2.0 * covariance_of_means(&base, &variant);
    DivergenceReport {
        kl_mean: kl.mean(),
        kl_error: kl.error(),
        kl_median: quantile(0.5),
        kl_p90: quantile(0.9),
        kl_p95: quantile(0.95),
        kl_p99: quantile(0.99),
        kl_p999: quantile(0.999),
        kl_max: quantile(1.0),
        delta_p_mean: delta.mean(),
        delta_p_rms: delta.root_mean_square(),
        same_top: same.mean(),
        same_top_error: same.error(),
        perplexity_ratio,
        perplexity_ratio_error: perplexity_ratio * variance.max(0.0).sqrt(),
    }
}
