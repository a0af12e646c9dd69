//! The record of a resumable output: which tensors are on the disk.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::os;
use crate::plan::Plan;

const DONE: u8 = 1;

/// A small file beside the output: a digest of plan and identity, then a byte per tensor.
#[derive(Debug)]
pub(crate) struct Progress {
    file: fs::File,
    path: PathBuf,
    digest: [u8; 32],
}

impl Progress {
    /// The tensors that a record says are done; `None` if there is no record of this plan and
    /// identity.
    pub fn read(path: &Path, plan: &Plan, identity: &[u8]) -> io::Result<Option<Vec<bool>>> {
        let record = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            record => record?,
        };
        let digest = digest(plan, identity);
        let done = record
            .strip_prefix(&digest)
            .filter(|done| done.len() == plan.tensors().len());
        Ok(done.map(|done| done.iter().map(|&byte| byte == DONE).collect()))
    }

    /// Starts a record, or takes one up that [`Self::read`] found.
    pub fn start(path: &Path, plan: &Plan, identity: &[u8], done: &[bool]) -> io::Result<Self> {
        let digest = digest(plan, identity);
        let mut record = digest.to_vec();
        record.extend(done.iter().map(|&done| u8::from(done) * DONE));
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

    /// Notes that a tensor's data have reached the disk.
    pub fn mark(&self, tensor: usize) -> io::Result<()> {
        let offset = self.digest.len() + tensor;
        os::write_all_at(&self.file, &[DONE], offset as u64)
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
