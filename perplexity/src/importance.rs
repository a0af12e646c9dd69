//! The importance matrix of a model: squared inputs of its matrix products over a text.

use std::sync::atomic::Ordering;

use gristmill_engine::{Model, SessionOptions};
use gristmill_quantize::importance::Importance;

use crate::evaluate::{BATCH_TOKENS, Error, Observer};
use crate::protocol::Chunks;

/// Runs all chunks through the model and collects what its weights are multiplied with. The sums are
/// those of `llama-imatrix` on the same chunks, kept in `f64` until the end. `dataset` is the name
/// under which the text is recorded.
///
/// # Errors
/// If the model cannot be run or the observer interrupts.
pub fn collect(
    model: &Model,
    options: &SessionOptions,
    chunks: &Chunks,
    dataset: &str,
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
    for first in (0..chunks.count()).step_by(at_a_time) {
        if observer.interrupted.load(Ordering::Relaxed) {
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
