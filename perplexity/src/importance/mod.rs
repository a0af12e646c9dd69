//! The importance matrix of a model: squared inputs of its matrix products over a text.

mod state;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gristmill_engine::{Model, SessionOptions};
use gristmill_quantize::importance::Importance;

use crate::evaluate::{BATCH_TOKENS, Error, Observer};
use crate::protocol::Chunks;

pub use state::State;

/// How often a running collection is kept.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// Runs all chunks through the model and collects what its weights are multiplied with. The sums are
/// those of `llama-imatrix` on the same chunks, kept in `f64` until the end. `dataset` is the name
/// under which the text is recorded. With a `state`, what an interrupted collection has kept there is
/// not collected again; the matrix is the same, bit for bit.
///
/// # Errors
/// If the model cannot be run, the state cannot be written, or the observer interrupts.
pub fn collect(
    model: &Model,
    options: &SessionOptions,
    chunks: &Chunks,
    dataset: &str,
    state: Option<&State>,
    observer: &Observer<'_>,
) -> Result<Importance, Error> {
    let at_a_time = (BATCH_TOKENS / chunks.context()).clamp(1, chunks.count());
    let options = SessionOptions {
        context: chunks.context(),
        sequences: at_a_time,
        collect: true,
        ..options.clone()
    };
    let mut session = model.session(&options)?;
    let mut done = 0;
    if let Some((chunks, collector)) = state.and_then(State::load) {
        session.set_importance(collector);
        (observer.progress)(chunks);
        done = chunks;
    }
    let mut saved = Instant::now();
    for first in (done..chunks.count()).step_by(at_a_time) {
        let interrupted = observer.interrupted.load(Ordering::Relaxed);
        if let Some(state) = state.filter(|_| first > done)
            && (interrupted || saved.elapsed() > SAVE_EVERY)
            && let Some(collector) = session.importance()
        {
            state
                .save(first, collector)
                .map_err(|error| Error::State(Box::new(error)))?;
            saved = Instant::now();
        }
        if interrupted {
            return Err(Error::Interrupted);
        }
        let batch = first..chunks.count().min(first + at_a_time);
        let tokens: Vec<Vec<u32>> = batch.clone().map(|chunk| chunks.evaluated(chunk)).collect();
        session.reset();
        session.forward(&tokens.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        (observer.progress)(batch.len());
    }
    let collector = session.take_importance().unwrap_or_default();
    let mut importance = collector.importance(chunks.count() as u32, chunks.context() as u32);
    importance.datasets.push(dataset.into());
    Ok(importance)
}
