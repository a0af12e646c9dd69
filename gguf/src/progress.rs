//! The record of a resumable output: which tensors are on the disk.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::os;
use crate::plan::Plan;

/// Bytes of a tensor's entry: its note, or zeros while it is not done.
const ENTRY: usize = size_of::<u64>();

/// A small file beside the output: a digest of plan and identity, then an entry per tensor.
#[derive(Debug)]
pub(crate) struct Progress {
    file: fs::File,
    path: PathBuf,
    digest: [u8; 32],
}

impl Progress {
    /// The notes of the tensors that a record says are done, 0 for the others; `None` if there is
    /// no record of this plan and identity.
    pub fn read(path: &Path, plan: &Plan, identity: &[u8]) -> io::Result<Option<Vec<u64>>> {
        let record = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            record => record?,
        };
        let digest = digest(plan, identity);
        let entries = record
            .strip_prefix(&digest)
            .map(|entries| entries.as_chunks::<ENTRY>().0)
            .filter(|entries| entries.len() == plan.tensors().len());
        Ok(entries.map(|entries| entries.iter().copied().map(u64::from_le_bytes).collect()))
    }

    /// Starts a record, or takes one up that [`Self::read`] found.
    pub fn start(path: &Path, plan: &Plan, identity: &[u8], notes: &[u64]) -> io::Result<Self> {
        let digest = digest(plan, identity);
        let mut record = digest.to_vec();
        record.extend(notes.iter().flat_map(|note| note.to_le_bytes()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        os::write_all_at(&file, &record, 0)?;
        Ok(Self {
            file,
            path: path.to_owned(),
            digest,
        })
    }

    /// Notes that a tensor's data have reached the disk, or with 0 that they are not valid.
    pub fn mark(&self, tensor: usize, note: u64) -> io::Result<()> {
        let offset = self.digest.len() + tensor * ENTRY;
        os::write_all_at(&self.file, &note.to_le_bytes(), offset as u64)
    }

    pub fn remove(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

fn digest(plan: &Plan, identity: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in plan.parts() {
        hash.update((part.header.len() as u64).to_le_bytes());
        hash.update(&part.header);
    }
    hash.update(identity);
    hash.finalize().into()
}
