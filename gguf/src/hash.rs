//! Digests of tensors' data, independent of how a file lays them out: a split set, its merged file
//! and its big-endian copy have the same.

use std::ops::ControlFlow;

use bstr::BString;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh64::Xxh64;

use crate::copy::{CHUNK_BYTES, Progress, row_chunks};
use crate::error::Error;
use crate::source::Source;

/// How digests are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// xxHash, 64 bits, seed 0: fast, against accidents.
    Xxh64,
    /// SHA-256: against forgery too.
    Sha256,
}

impl Algorithm {
    /// `xxh64` or `sha256`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xxh64 => "xxh64",
            Self::Sha256 => "sha256",
        }
    }
}

enum Hasher {
    Xxh64(Xxh64),
    Sha256(Sha256),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Xxh64 => Self::Xxh64(Xxh64::new(0)),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Xxh64(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Xxh64(hasher) => format!("{:016x}", hasher.digest()),
            Self::Sha256(hasher) => {
                let digest = hasher.finalize();
                digest.iter().map(|byte| format!("{byte:02x}")).collect()
            }
        }
    }
}

/// The digests of a model, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Of all tensors' data, one after another in order.
    pub model: String,
    /// Of each tensor's data, by name, in order.
    pub tensors: Vec<(BString, String)>,
}

/// Makes the digests of a model's data, little-endian.
///
/// # Errors
/// If rows cannot be read, or if `progress` asks for an end.
pub fn digests(
    source: &dyn Source,
    algorithm: Algorithm,
    progress: Progress<'_>,
) -> Result<Digests, Error> {
    let mut model = Hasher::new(algorithm);
    let mut tensors = Vec::with_capacity(source.tensors().len());
    for (tensor, info) in source.tensors().iter().enumerate() {
        let mut own = Hasher::new(algorithm);
        for rows in row_chunks(info, CHUNK_BYTES) {
            let bytes = source.rows(tensor, rows.clone())?;
            own.update(&bytes);
            model.update(&bytes);
            if progress(bytes.len() as u64) == ControlFlow::Break(()) {
                return Err(Error::Interrupted);
            }
            drop(bytes);
            source.release(tensor, rows);
        }
        tensors.push((info.name.clone(), own.finish()));
    }
    Ok(Digests {
        model: model.finish(),
        tensors,
    })
}
