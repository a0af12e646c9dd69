//! Carrying out a planned job.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use bstr::BString;
use gristmill_gguf::{WriteOptions, Writer, os};

use super::chunks::{TensorDigest, chunk, chunk_count, source_digest};
use super::work::{Buffers, Coding, Lane, Sink, Work};
use super::{JobError, PlannedJob, PlannedOutput};
use crate::types;

/// How a running job is watched and stopped.
#[derive(Clone, Copy)]
pub struct Control<'a> {
    /// Told how many more of [`PlannedJob::source_bytes`] are dealt with; called from all threads.
    pub progress: &'a (dyn Fn(u64) + Sync),
    /// Set to stop the job: it ends with [`JobError::Cancelled`] and what is done is kept.
    pub cancel: &'a AtomicBool,
}

/// What a job did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The files written, output by output.
    pub files: Vec<Vec<PathBuf>>,
    /// Stored bytes read from the source.
    pub source_bytes: u64,
    /// Values decoded to f32.
    pub decoded_values: u64,
    /// Values encoded, once for each type and effort that some output wanted.
    pub encoded_values: u64,
    /// Tensors of outputs that an earlier, interrupted job had finished.
    pub resumed_tensors: usize,
    /// Tensors that a conversion wrote with infinite values, since the type cannot hold them.
    pub overflowed: Vec<BString>,
    /// A digest of the source, see [`super::digest_source`]; `None` if the job read only some of
    /// its tensors.
    pub source_digest: Option<String>,
}

#[derive(Default)]
struct Counters {
    source_bytes: AtomicU64,
    decoded_values: AtomicU64,
    encoded_values: AtomicU64,
    overflowed: Mutex<BTreeMap<usize, BString>>,
}

impl PlannedJob<'_> {
    /// Carries the job out, on all threads of the current rayon pool.
    ///
    /// Outputs get their final names when all of them are whole. An interrupted job (cancelled or
    /// killed) leaves what it has under temporary names, and the same job continues there: tensors
    /// that are done are recognised by a digest of their source, not made again.
    ///
    /// # Errors
    /// If an output is refused or exists, the disk has no room, the source is damaged, or the
    /// system fails. Nothing stands under a final name then.
    pub fn run(&self, control: &Control<'_>) -> Result<Report, JobError> {
        if let Some(refusal) = self.outputs.iter().find_map(PlannedOutput::refusal) {
            return Err(refusal);
        }
        let writers = self
            .outputs
            .iter()
            .map(|output| self.writer(output))
            .collect::<Result<Vec<_>, _>>()?;
        match self.write_and_flush(&writers, control) {
            Ok(mut report) => {
                for writer in writers {
                    report.files.push(writer.finish()?);
                }
                Ok(report)
            }
            Err(JobError::Cancelled) => Err(JobError::Cancelled),
            Err(error) => {
                writers.into_iter().for_each(Writer::discard);
                Err(error)
            }
        }
    }

    /// Writes, and meanwhile has the system put on the disk what is written: the end need not wait for
    /// all of it.
    fn write_and_flush(
        &self,
        writers: &[Writer],
        control: &Control<'_>,
    ) -> Result<Report, JobError> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let flusher = scope.spawn(|| flush(writers, &done));
            let written = self.write(writers, control);
            done.store(true, Ordering::Release);
            flusher.thread().unpark();
            let flushed = flusher.join().unwrap_or_else(|panic| resume_unwind(panic));
            let report = written?;
            flushed?;
            Ok(report)
        })
    }

    fn writer(&self, output: &PlannedOutput) -> Result<Writer, JobError> {
        let importance = match self.importance {
            Some(matrix) if !output.converted => matrix.digest(),
            _ => 0,
        };
        let effort = output.effort.name();
        let version = env!("CARGO_PKG_VERSION");
        let options = WriteOptions {
            replace: output.replace,
            resume: Some(format!("gristmill {version} {effort} {importance:032x}").into_bytes()),
        };
        Ok(Writer::create(
            &output.path,
            output.layout.clone(),
            &options,
        )?)
    }

    fn write(&self, writers: &[Writer], control: &Control<'_>) -> Result<Report, JobError> {
        let tensors = self.source.tensors();
        let digests: Vec<TensorDigest> = tensors.iter().map(TensorDigest::new).collect();
        let counters = Counters::default();
        let resumed_tensors = self.verify_resumed(writers, &digests, &counters, control)?;
        self.check_space(|output, tensor| writers[output].note(tensor).is_none())?;
        let works = self.works(writers, &digests);
        let items: Vec<(usize, usize)> = works
            .iter()
            .enumerate()
            .flat_map(|(at, work)| (0..chunk_count(work.info)).map(move |chunk| (at, chunk)))
            .collect();
        for_each(items.len(), control, |item, buffers| {
            let (work, chunk) = items[item];
            self.process(&works[work], chunk, writers, buffers, &counters, control)
        })?;
        let digests = tensors.iter().zip(&digests);
        Ok(Report {
            files: Vec::new(),
            source_bytes: counters.source_bytes.into_inner(),
            decoded_values: counters.decoded_values.into_inner(),
            encoded_values: counters.encoded_values.into_inner(),
            resumed_tensors,
            overflowed: counters
                .overflowed
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner)
                .into_values()
                .collect(),
            source_digest: source_digest(
                self.source.metadata(),
                digests.map(|(info, digest)| (info, digest.get())),
            ),
        })
    }

    /// Compares the tensors that an earlier job left with their source, and has those made again
    /// whose source has changed. Returns how many stay.
    fn verify_resumed(
        &self,
        writers: &[Writer],
        digests: &[TensorDigest],
        counters: &Counters,
        control: &Control<'_>,
    ) -> Result<usize, JobError> {
        let tensors = self.source.tensors();
        let mut sources: BTreeMap<usize, Vec<Sink>> = BTreeMap::new();
        for (output, (planned, writer)) in self.outputs.iter().zip(writers).enumerate() {
            for (tensor, info) in planned.layout_tensors() {
                if writer.note(tensor).is_some() {
                    let sinks = sources.entry(info.source).or_default();
                    sinks.push(Sink { output, tensor });
                }
            }
        }
        let items: Vec<(usize, usize)> = sources
            .keys()
            .flat_map(|&tensor| (0..chunk_count(&tensors[tensor])).map(move |at| (tensor, at)))
            .collect();
        for_each(items.len(), control, |item, _| {
            let (tensor, at) = items[item];
            let rows = chunk(&tensors[tensor], at);
            let bytes = self.read(tensor, rows.clone(), counters)?;
            digests[tensor].add(at, &bytes);
            self.source.release(tensor, rows);
            Ok(())
        })?;
        let mut kept = 0;
        for (source, sinks) in sources {
            let digest = digests[source].get().map(note);
            for sink in sinks {
                let writer = &writers[sink.output];
                if writer.note(sink.tensor) == digest {
                    kept += 1;
                } else {
                    writer.restart(sink.tensor)?;
                }
            }
        }
        Ok(kept)
    }

    /// Whether the outputs have room on their disks as they are now.
    ///
    /// # Errors
    /// If they have not.
    pub fn room(&self) -> Result<(), JobError> {
        self.check_space(|_, _| true)
    }

    /// The room for the tensors of an output that are still to be written.
    fn check_space(&self, open: impl Fn(usize, usize) -> bool) -> Result<(), JobError> {
        let mut folders: BTreeMap<&Path, u64> = BTreeMap::new();
        for (at, output) in self.outputs.iter().enumerate() {
            let folder = match output.path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let left = output
                .layout_tensors()
                .filter(|&(tensor, _)| open(at, tensor))
                .map(|(_, tensor)| tensor.info.bytes().unwrap_or(0));
            *folders.entry(folder).or_default() += left.sum::<u64>();
        }
        for (folder, needed) in folders {
            // Where the system does not tell, the write itself will.
            if let Ok(Some(available)) = os::available_space(folder)
                && available < needed
            {
                return Err(JobError::Space {
                    folder: folder.to_owned(),
                    needed,
                    available,
                });
            }
        }
        Ok(())
    }

    /// What is left to do, in the source's order.
    fn works<'b>(&'b self, writers: &[Writer], digests: &'b [TensorDigest]) -> Vec<Work<'b>> {
        let tensors = self.source.tensors();
        let mut works: BTreeMap<usize, Vec<Lane>> = BTreeMap::new();
        for (output, (planned, writer)) in self.outputs.iter().zip(writers).enumerate() {
            for (tensor, info) in planned.layout_tensors() {
                if writer.note(tensor).is_some() {
                    continue;
                }
                let coding = if tensors[info.source].ty == info.info.ty {
                    Coding::Copy
                } else {
                    Coding::Encode {
                        ty: info.info.ty,
                        effort: planned.effort,
                        weighted: !planned.converted,
                        overflow: planned.converted,
                    }
                };
                let sink = Sink { output, tensor };
                let lanes = works.entry(info.source).or_default();
                match lanes.iter_mut().find(|lane| lane.coding == coding) {
                    Some(lane) => lane.sinks.push(sink),
                    None => lanes.push(Lane {
                        coding,
                        sinks: vec![sink],
                    }),
                }
            }
        }
        works
            .into_iter()
            .map(|(tensor, lanes)| {
                let info = &tensors[tensor];
                let entry = self.importance.and_then(|matrix| matrix.fitting(info));
                Work {
                    tensor,
                    info,
                    digest: &digests[tensor],
                    lanes,
                    entry: entry.map(|entry| (entry, entry.pooled())),
                    source: self.source,
                    estimate: OnceLock::new(),
                }
            })
            .collect()
    }

    fn read(
        &self,
        tensor: usize,
        rows: Range<u64>,
        counters: &Counters,
    ) -> Result<std::borrow::Cow<'_, [u8]>, JobError> {
        let info = &self.source.tensors()[tensor];
        let bytes = self
            .source
            .rows(tensor, rows)
            .map_err(|error| JobError::Source {
                tensor: info.name.clone(),
                error,
            })?;
        counters
            .source_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Deals with one chunk: reads, decodes once, encodes for every lane, writes to every sink.
    fn process(
        &self,
        work: &Work<'_>,
        at: usize,
        writers: &[Writer],
        buffers: &mut Buffers,
        counters: &Counters,
        control: &Control<'_>,
    ) -> Result<(), JobError> {
        let rows = chunk(work.info, at);
        let bytes = self.read(work.tensor, rows.clone(), counters)?;
        work.digest.add(at, &bytes);
        if work.lanes.iter().any(|lane| lane.coding != Coding::Copy) {
            work.decode(&bytes, rows.start, &mut buffers.values)?;
            counters
                .decoded_values
                .fetch_add(buffers.values.len() as u64, Ordering::Relaxed);
        } else {
            work.validate_copy(&bytes, rows.start)?;
        }
        for lane in &work.lanes {
            let encoded = match lane.coding {
                Coding::Copy => &bytes[..],
                Coding::Encode {
                    ty,
                    effort,
                    weighted,
                    overflow,
                } => {
                    work.encode(ty, effort, weighted, rows.start, buffers)?;
                    counters
                        .encoded_values
                        .fetch_add(buffers.values.len() as u64, Ordering::Relaxed);
                    match types::validate(ty, &buffers.bytes) {
                        Ok(()) => {}
                        Err(_) if overflow => {
                            counters
                                .overflowed
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .insert(work.tensor, work.info.name.clone());
                        }
                        Err(error) => {
                            return Err(JobError::Overflow {
                                tensor: work.info.name.clone(),
                                row: rows.start + work.row_of(&error, ty),
                                ty,
                            });
                        }
                    }
                    &buffers.bytes
                }
            };
            for sink in &lane.sinks {
                writers[sink.output].write_rows(sink.tensor, rows.start, encoded)?;
            }
        }
        let read = bytes.len() as u64;
        drop(bytes);
        self.source.release(work.tensor, rows);
        if work.digest.finish() {
            let digest = work.digest.get().map_or(0, note);
            for sink in work.lanes.iter().flat_map(|lane| &lane.sinks) {
                writers[sink.output].complete(sink.tensor, digest)?;
            }
        }
        (control.progress)(read);
        Ok(())
    }
}

/// Notes again and again which tensors are completed, and flushes them, until all is done.
fn flush(writers: &[Writer], done: &AtomicBool) -> Result<(), gristmill_gguf::Error> {
    const PAUSE: Duration = Duration::from_millis(300);
    loop {
        thread::park_timeout(PAUSE);
        if done.load(Ordering::Acquire) {
            return Ok(());
        }
        for writer in writers {
            writer.checkpoint()?;
        }
    }
}

/// What stands in the record of a resumable output for a tensor made from a source of this digest.
fn note(digest: u128) -> u64 {
    (digest as u64).max(1)
}

/// Runs `work` on items `0..count`, begun in order, on all threads; stops at the first failure in
/// that order, or when cancelled.
fn for_each(
    count: usize,
    control: &Control<'_>,
    work: impl Fn(usize, &mut Buffers) -> Result<(), JobError> + Sync,
) -> Result<(), JobError> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<(usize, JobError)>> = Mutex::new(None);
    rayon::broadcast(|_| {
        let mut buffers = Buffers::default();
        loop {
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= count {
                break;
            }
            let result = if control.cancel.load(Ordering::Relaxed) {
                Err(JobError::Cancelled)
            } else {
                work(item, &mut buffers)
            };
            if let Err(error) = result {
                // Items before this one have begun; they may still fail, and then are the first.
                next.store(count, Ordering::Relaxed);
                let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                if failure.as_ref().is_none_or(|(first, _)| item < *first) {
                    *failure = Some((item, error));
                }
                break;
            }
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}
