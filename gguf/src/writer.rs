//! Writing a planned output: in any order, from any thread, under a temporary name.

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::endian::{self, Endian};
use crate::error::Error;
use crate::os;
use crate::plan::Plan;
use crate::progress::Progress;

/// A resumable output notes what it has about as often as this many bytes are written.
const CHECKPOINT_BYTES: u64 = 1 << 30;

/// How an output is written.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Whether a file that stands under a final name is replaced.
    pub replace: bool,
    /// Makes the output resumable: a writer that is dropped unfinished, or whose process is
    /// killed, leaves what it has, and the next one with the same plan and the same identity
    /// continues there. The identity names everything that the rows depend on besides the plan:
    /// the source's hash, effort, the importance's hash, the program's version.
    pub resume: Option<Vec<u8>>,
}

/// Writes the files of a [`Plan`].
///
/// Each file is written under `.NAME.partial` beside its final name. [`Writer::finish`] checks
/// that every row is there, flushes the files to the disk and renames them, the first part of a
/// set last. The same rows give the same bytes, whatever their order and number of threads. An
/// output is locked, so that two processes cannot write it at once.
///
/// Dropped unfinished, a writer removes its temporary files, unless it is resumable and some
/// tensor was completed.
#[derive(Debug)]
pub struct Writer {
    plan: Plan,
    parts: Vec<PartFile>,
    /// Bytes of each tensor that were written.
    written: Vec<AtomicU64>,
    /// What stands in the record of a completed tensor; 0 while it is not completed.
    notes: Vec<AtomicU64>,
    /// Bytes written since the last checkpoint.
    unsaved: AtomicU64,
    progress: Option<Mutex<Saved>>,
    replace: bool,
    /// Whether nothing is left to do when dropped.
    settled: bool,
}

/// The record of a resumable output and what stands in it.
#[derive(Debug)]
struct Saved {
    progress: Progress,
    notes: Vec<u64>,
}

#[derive(Debug)]
struct PartFile {
    file: fs::File,
    temporary: PathBuf,
    path: PathBuf,
}

impl Writer {
    /// Creates the files of an output, at their full length and with their headers, under
    /// temporary names; or continues with those that are there, if [`WriteOptions::resume`] says
    /// so and they are of the same plan and identity.
    ///
    /// # Errors
    /// If an output exists and is not to be replaced, if another process writes it, or if a file
    /// cannot be made.
    pub fn create(output: &Path, plan: Plan, options: &WriteOptions) -> Result<Self, Error> {
        let paths = plan.paths(output);
        let record = temporary_path(&paths[0], "progress");
        if !options.replace {
            refuse_existing(&paths)?;
        }
        let parts: Vec<PartFile> = paths
            .into_iter()
            .map(PartFile::open)
            .collect::<Result<_, _>>()?;
        let tensors = plan.tensors().len();
        let mut writer = Self {
            plan,
            parts,
            written: (0..tensors).map(|_| AtomicU64::new(0)).collect(),
            notes: (0..tensors).map(|_| AtomicU64::new(0)).collect(),
            unsaved: AtomicU64::new(0),
            progress: None,
            replace: options.replace,
            settled: false,
        };
        match &options.resume {
            None => {
                remove_if_there(&record).map_err(Error::io("remove", &record))?;
                writer.lay_out()?;
            }
            Some(identity) => {
                // Files that a failure from here on leaves behind are of use to the next try.
                writer.settled = true;
                let notes = writer.resume(&record, identity)?;
                let progress = Progress::start(&record, &writer.plan, identity, &notes)
                    .map_err(Error::io("write", &record))?;
                writer.progress = Some(Mutex::new(Saved { progress, notes }));
                writer.settled = false;
            }
        }
        Ok(writer)
    }

    /// Gives empty files their length and headers; everything else reads as zeros.
    fn lay_out(&self) -> Result<(), Error> {
        for (part, plan) in self.parts.iter().zip(self.plan.parts()) {
            let write = || -> io::Result<()> {
                part.file.set_len(0)?;
                part.file.set_len(plan.bytes)?;
                os::write_all_at(&part.file, &plan.header, 0)
            };
            write().map_err(Error::io("write", &part.temporary))?;
        }
        Ok(())
    }

    /// Takes up what an earlier writer left, or starts anew; returns the tensors' notes.
    fn resume(&self, record: &Path, identity: &[u8]) -> Result<Vec<u64>, Error> {
        let notes =
            Progress::read(record, &self.plan, identity).map_err(Error::io("read", record))?;
        let whole = self
            .parts
            .iter()
            .zip(self.plan.parts())
            .all(|(part, plan)| part.file.metadata().is_ok_and(|m| m.len() == plan.bytes));
        if let Some(notes) = notes.filter(|_| whole) {
            for (tensor, &note) in notes.iter().enumerate().filter(|&(_, &note)| note != 0) {
                let bytes = self.plan.place(tensor).bytes;
                self.written[tensor].store(bytes, Ordering::Relaxed);
                self.notes[tensor].store(note, Ordering::Relaxed);
            }
            return Ok(notes);
        }
        remove_if_there(record).map_err(Error::io("remove", record))?;
        self.lay_out()?;
        Ok(vec![0; self.plan.tensors().len()])
    }

    /// The plan that is carried out.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether all rows of a tensor have been written, by this writer or an earlier one.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn is_done(&self, tensor: usize) -> bool {
        self.written[tensor].load(Ordering::Acquire) == self.plan.place(tensor).bytes
    }

    /// Writes whole rows of a tensor, given little-endian in the tensor's type. Every row is to be
    /// written once; rows of different ranges may come in any order and from several threads.
    ///
    /// # Errors
    /// If the bytes are not whole rows inside the tensor, or cannot be written.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn write_rows(&self, tensor: usize, first_row: u64, bytes: &[u8]) -> Result<(), Error> {
        let place = self.plan.place(tensor);
        let part = &self.parts[place.part];
        let info = &self.plan.tensors()[tensor];
        let count = bytes.len() as u64;
        let at = first_row.saturating_mul(place.row);
        let whole = count == 0 || (place.row > 0 && count.is_multiple_of(place.row));
        if !whole || at.saturating_add(count) > place.bytes {
            return Err(Error::Rows {
                path: part.path.clone(),
                name: info.name.clone(),
                at,
                count,
                size: place.bytes,
            });
        }
        let write = |bytes: &[u8]| {
            os::write_all_at(&part.file, bytes, place.start + at)
                .map_err(Error::io("write", &part.temporary))
        };
        if self.plan.endian() == Endian::Big && endian::depends_on_order(info.ty) {
            let mut swapped = bytes.to_vec();
            // The plan has refused types that cannot be swapped.
            endian::swap_rows(info.ty, &mut swapped);
            write(&swapped)?;
        } else {
            write(bytes)?;
        }
        self.written[tensor].fetch_add(count, Ordering::AcqRel);
        self.unsaved.fetch_add(count, Ordering::Relaxed);
        Ok(())
    }

    /// Says that all rows of a tensor have been written, with a note for the record of a resumable
    /// output: a digest of what the rows were made from, for example. 0 counts as 1.
    ///
    /// # Errors
    /// As [`Writer::checkpoint`], which happens here by itself every GiB.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn complete(&self, tensor: usize, note: u64) -> Result<(), Error> {
        self.notes[tensor].store(note.max(1), Ordering::Release);
        if self.unsaved.load(Ordering::Relaxed) >= CHECKPOINT_BYTES {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// The note of a completed tensor.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn note(&self, tensor: usize) -> Option<u64> {
        let note = self.notes[tensor].load(Ordering::Acquire);
        (note != 0).then_some(note)
    }

    /// Forgets that a tensor was written, so that it is written anew.
    ///
    /// # Errors
    /// If the record cannot be written.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn restart(&self, tensor: usize) -> Result<(), Error> {
        self.notes[tensor].store(0, Ordering::Release);
        self.written[tensor].store(0, Ordering::Release);
        let Some(saved) = &self.progress else {
            return Ok(());
        };
        let mut saved = saved
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        saved.notes[tensor] = 0;
        self.mark(&saved.progress, tensor, 0)
    }

    fn mark(&self, progress: &Progress, tensor: usize, note: u64) -> Result<(), Error> {
        let mark = progress.mark(tensor, note);
        mark.map_err(Error::io("note the progress of", &self.parts[0].path))
    }

    /// Flushes a resumable output to the disk and notes which tensors are completed. Happens by
    /// itself when a writer is dropped.
    ///
    /// # Errors
    /// If flushing or writing the record fails.
    pub fn checkpoint(&self) -> Result<(), Error> {
        let Some(saved) = &self.progress else {
            return Ok(());
        };
        let mut saved = saved
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        self.unsaved.store(0, Ordering::Relaxed);
        let fresh: Vec<(usize, u64)> = (0..self.notes.len())
            .filter(|&tensor| saved.notes[tensor] == 0 && self.is_done(tensor))
            .filter_map(|tensor| Some((tensor, self.note(tensor)?)))
            .collect();
        if fresh.is_empty() {
            return Ok(());
        }
        self.sync()?;
        for (tensor, note) in fresh {
            self.mark(&saved.progress, tensor, note)?;
            saved.notes[tensor] = note;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        for part in &self.parts {
            part.file
                .sync_all()
                .map_err(Error::io("flush", &part.temporary))?;
        }
        Ok(())
    }

    /// Flushes the files and gives them their final names; returns these, in order.
    ///
    /// # Errors
    /// If a row was not written, if a final name was taken meanwhile, or if the system fails. In
    /// all cases nothing new stands under a final name.
    pub fn finish(mut self) -> Result<Vec<PathBuf>, Error> {
        if let Some(tensor) = (0..self.written.len()).find(|&tensor| !self.is_done(tensor)) {
            let place = self.plan.place(tensor);
            return Err(Error::Incomplete {
                path: self.parts[place.part].path.clone(),
                name: self.plan.tensors()[tensor].name.clone(),
                expected: place.bytes,
                found: self.written[tensor].load(Ordering::Acquire),
            });
        }
        self.sync()?;
        let paths: Vec<PathBuf> = self.parts.iter().map(|part| part.path.clone()).collect();
        if !self.replace {
            refuse_existing(&paths)?;
        }
        for (at, part) in self.parts.iter().enumerate().rev() {
            if let Err(error) = fs::rename(&part.temporary, &part.path) {
                for renamed in &self.parts[at + 1..] {
                    // What cannot be taken back is at least no set that can be opened.
                    drop(fs::rename(&renamed.path, &renamed.temporary));
                }
                return Err(Error::io("rename to", &part.path)(error));
            }
        }
        self.settled = true;
        if let Some(folder) = paths[0].parent() {
            os::sync_folder(folder).map_err(Error::io("flush", folder))?;
        }
        if let Some(saved) = &self.progress {
            let saved = saved
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            // A record without files is harmless: the next writer overwrites it.
            drop(saved.progress.remove());
        }
        Ok(paths)
    }

    /// Removes the temporary files, also those of a resumable output.
    pub fn discard(mut self) {
        self.remove_files();
    }

    fn remove_files(&mut self) {
        self.settled = true;
        // Nobody is left to report a failure to; the files carry names that say what they are.
        if let Some(saved) = self
            .progress
            .take()
            .and_then(|saved| saved.into_inner().ok())
        {
            drop(saved.progress.remove());
        }
        for part in &self.parts {
            drop(fs::remove_file(&part.temporary));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let worth_keeping = (0..self.notes.len()).any(|tensor| self.note(tensor).is_some());
        if self.progress.is_some() && worth_keeping {
            // Failing to note progress costs time at the next start, nothing else.
            drop(self.checkpoint());
        } else {
            self.remove_files();
        }
    }
}

impl PartFile {
    /// Opens or makes the temporary file of an output and locks it.
    fn open(path: PathBuf) -> Result<Self, Error> {
        let temporary = temporary_path(&path, "partial");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&temporary)
            .map_err(Error::io("create", &path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::Busy { path }),
            // File systems without locks exist; writing there unlocked beats not writing.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // Its former owner may have finished, and renamed it, between opening and locking.
        match os::is_at(&file, &temporary) {
            Ok(true) => {}
            Ok(false) => return Err(Error::Busy { path }),
            Err(error) => return Err(Error::io("examine", &temporary)(error)),
        }
        Ok(Self {
            file,
            temporary,
            path,
        })
    }
}

/// `.NAME.KIND` beside the output.
fn temporary_path(output: &Path, kind: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(".");
    name.push(kind);
    output.with_file_name(name)
}

fn refuse_existing(paths: &[PathBuf]) -> Result<(), Error> {
    match paths.iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(Error::Exists { path: path.clone() }),
        None => Ok(()),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
