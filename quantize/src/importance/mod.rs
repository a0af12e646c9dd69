//! Importance matrices: how much each input column of a weight matters, measured as the mean of
//! its squared activations over a calibration text.

mod check;
mod estimate;
mod gguf;
mod legacy;
mod statistics;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bstr::{BStr, BString, ByteSlice};
use xxhash_rust::xxh3::Xxh3;

pub(crate) use check::matrices;
pub use check::{Check, Misfit, SparseExperts};
pub(crate) use estimate::estimate;
pub use statistics::{EntryStatistics, LayerStatistics, Statistics};

use crate::types::Effort;

/// Tokens that an expert's own mean must outweigh: an expert that saw this many counts half by
/// itself and half as the mean of all experts of its tensor. Squared activations are heavy-tailed
/// (their relative variance is a few units), while experts of one layer, which read the same
/// stream, differ by a fraction of it: the ratio of the two is the number.
const PRIOR_TOKENS: f32 = 16.0;

/// What was measured for one weight tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Sums of squared activations, a value for each column; matrix after matrix for a stack.
    pub sums: Vec<f32>,
    /// Tokens summed over: one number, or one for each matrix of a stack of experts.
    pub counts: Vec<u64>,
}

/// Importance for a model, by tensor name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Importance {
    /// The measurements.
    pub entries: BTreeMap<BString, Entry>,
    /// The texts it was measured on.
    pub datasets: Vec<BString>,
    /// How many chunks of text.
    pub chunks: u32,
    /// Tokens in a chunk. `None` for a legacy file, which counts in chunks of unknown size.
    pub chunk_size: Option<u32>,
}

/// Why an importance matrix cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum ImportanceError {
    /// The file is no GGUF file that can be read, or cannot be written.
    #[error(transparent)]
    Gguf(#[from] gristmill_gguf::Error),
    /// The operating system failed.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: std::io::Error,
    },
    /// The file is no importance matrix.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// Two files that do not fit together.
    #[error(
        "{tensor}: one file has {first} values, another {second}: they are of different models"
    )]
    Merge {
        /// The entry.
        tensor: BString,
        /// Values in the first.
        first: usize,
        /// Values in the second.
        second: usize,
    },
}

impl Entry {
    /// Columns of one matrix, if there are `matrices` of them in the tensor.
    fn columns(&self, matrices: usize) -> usize {
        self.sums.len() / matrices.max(1)
    }

    /// Tokens that matrix `at` was measured on: a single number holds for all.
    fn count(&self, at: usize) -> u64 {
        match self.counts.as_slice() {
            [one] => *one,
            all => all.get(at).copied().unwrap_or(0),
        }
    }

    /// Weights for the columns of matrix `at` of `matrices`.
    ///
    /// At effort `reference` as `llama-quantize` has them: the mean, or 1 for a matrix that saw no
    /// token. At effort `best` the matrices of a stack are shrunk towards their common mean, the
    /// more the fewer tokens they saw.
    pub fn weights(&self, at: usize, matrices: usize, effort: Effort, pooled: &Pooled) -> Vec<f32> {
        let columns = self.columns(matrices);
        let sums = &self.sums[at * columns..(at + 1) * columns];
        let count = self.count(at) as f32;
        match &pooled.0 {
            Some(pooled) if effort == Effort::Best => sums
                .iter()
                .zip(pooled)
                .map(|(sum, mean)| (sum + PRIOR_TOKENS * mean) / (count + PRIOR_TOKENS))
                .collect(),
            _ if count > 0.0 => sums.iter().map(|sum| sum / count).collect(),
            _ => vec![1.0; columns],
        }
    }

    /// The mean over all matrices of a stack that have counts of their own.
    pub fn pooled(&self) -> Pooled {
        let total: u64 = self.counts.iter().sum();
        if self.counts.len() < 2 || total == 0 {
            return Pooled(None);
        }
        let columns = self.columns(self.counts.len());
        let mut sums = vec![0.0f64; columns];
        for matrix in self.sums.chunks_exact(columns) {
            for (sum, &value) in sums.iter_mut().zip(matrix) {
                *sum += f64::from(value);
            }
        }
        let mean = |sum: f64| (sum / total as f64) as f32;
        Pooled(Some(sums.into_iter().map(mean).collect()))
    }

    /// Adds another measurement of the same tensor.
    fn add(&mut self, tensor: &BStr, other: &Self) -> Result<(), ImportanceError> {
        let fits = self.sums.len() == other.sums.len()
            && (self.counts.len() == other.counts.len()
                || self.counts.len() == 1
                || other.counts.len() == 1);
        if !fits {
            return Err(ImportanceError::Merge {
                tensor: tensor.to_owned(),
                first: self.sums.len(),
                second: other.sums.len(),
            });
        }
        for (sum, more) in self.sums.iter_mut().zip(&other.sums) {
            *sum += more;
        }
        let matrices = self.counts.len().max(other.counts.len());
        self.counts = (0..matrices)
            .map(|at| self.count(at).saturating_add(other.count(at)))
            .collect();
        Ok(())
    }
}

/// The common mean of a stack of experts, see [`Entry::pooled`].
#[derive(Debug, Clone, Default)]
pub struct Pooled(Option<Vec<f32>>);

impl Importance {
    /// Reads a file in either format: GGUF as `llama-imatrix` writes it, or legacy `.dat`.
    ///
    /// # Errors
    /// If the file cannot be read or is no importance matrix.
    pub fn read(path: &Path) -> Result<Self, ImportanceError> {
        let io = |error| ImportanceError::Io {
            action: "read",
            path: path.to_owned(),
            error,
        };
        let mut magic = [0; 4];
        let mut file = std::fs::File::open(path).map_err(io)?;
        let found = std::io::Read::read(&mut file, &mut magic).map_err(io)?;
        if magic[..found] == *b"GGUF" {
            return gguf::read(path);
        }
        let bytes = std::fs::read(path).map_err(io)?;
        legacy::parse(&bytes).map_err(|reason| ImportanceError::Format {
            path: path.to_owned(),
            reason,
        })
    }

    /// Writes the GGUF format that `llama-imatrix` writes, byte for byte.
    ///
    /// # Errors
    /// If the file exists and is not to be replaced, or cannot be written.
    pub fn write(&self, path: &Path, replace: bool) -> Result<(), ImportanceError> {
        gguf::write(self, path, replace)
    }

    /// Writes the legacy `.dat` format, byte for byte as `llama-imatrix` does.
    ///
    /// # Errors
    /// As [`Importance::write`].
    pub fn write_legacy(&self, path: &Path, replace: bool) -> Result<(), ImportanceError> {
        legacy::write(self, path, replace)
    }

    /// The measurements for a tensor.
    pub fn get(&self, tensor: impl AsRef<[u8]>) -> Option<&Entry> {
        self.entries.get(tensor.as_ref().as_bstr())
    }

    /// Keeps only the entries whose name contains one of these words.
    pub fn include(&mut self, words: &[String]) {
        self.entries
            .retain(|name, _| words.iter().any(|word| name.contains_str(word)));
    }

    /// Drops the entries whose name contains one of these words.
    pub fn exclude(&mut self, words: &[String]) {
        self.entries
            .retain(|name, _| !words.iter().any(|word| name.contains_str(word)));
    }

    /// Adds another matrix of the same model: measurements of both texts together. Legacy files
    /// are taken to be measured in chunks of the other's size (512 tokens among themselves).
    ///
    /// # Errors
    /// If an entry has different sizes in the two.
    pub fn merge(&mut self, mut other: Self) -> Result<(), ImportanceError> {
        if self.chunk_size != other.chunk_size {
            let size = self.chunk_size.or(other.chunk_size);
            self.set_chunk_size(size);
            other.set_chunk_size(size);
        }
        for (name, entry) in other.entries {
            match self.entries.get_mut(&name) {
                Some(known) => known.add(name.as_ref(), &entry)?,
                None => {
                    self.entries.insert(name, entry);
                }
            }
        }
        self.datasets.extend(other.datasets);
        self.chunks = self.chunks.saturating_add(other.chunks);
        Ok(())
    }

    /// Gives a legacy matrix, whose counts are chunks, counts of tokens.
    fn set_chunk_size(&mut self, size: Option<u32>) {
        let (None, Some(size)) = (self.chunk_size, size) else {
            return;
        };
        for entry in self.entries.values_mut() {
            entry.sums.iter_mut().for_each(|sum| *sum *= size as f32);
            for count in &mut entry.counts {
                *count = count.saturating_mul(size.into());
            }
        }
        self.chunk_size = Some(size);
    }

    /// A digest of the entries, which is all that encoded bytes depend on: the same for the same
    /// measurements in either format's container only if they agree to the last bit.
    pub fn digest(&self) -> u128 {
        let mut hash = Xxh3::new();
        for (name, entry) in &self.entries {
            for part in [name.len(), entry.sums.len(), entry.counts.len()] {
                hash.update(&(part as u64).to_le_bytes());
            }
            hash.update(name);
            for sum in &entry.sums {
                hash.update(&sum.to_le_bytes());
            }
            for count in &entry.counts {
                hash.update(&count.to_le_bytes());
            }
        }
        hash.digest128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(sums: &[f32], counts: &[u64]) -> Entry {
        Entry {
            sums: sums.to_vec(),
            counts: counts.to_vec(),
        }
    }

    fn one(name: &str, entry: Entry, chunk_size: Option<u32>) -> Importance {
        Importance {
            entries: [(name.into(), entry)].into(),
            datasets: vec!["text".into()],
            chunks: 2,
            chunk_size,
        }
    }

    #[test]
    fn weights_are_means_and_few_tokens_lean_on_the_others() {
        let stack = entry(&[8.0, 16.0, 0.0, 0.0, 1.0, 3.0], &[8, 0, 1]);
        let pooled = stack.pooled();
        let of = |at, effort| stack.weights(at, 3, effort, &pooled);
        assert_eq!(of(0, Effort::Reference), [1.0, 2.0]);
        assert_eq!(of(1, Effort::Reference), [1.0, 1.0]);
        let mean = [1.0, 19.0 / 9.0];
        assert_eq!(of(1, Effort::Best), mean);
        let seldom = of(2, Effort::Best);
        assert!(seldom[1] > mean[1] && seldom[1] < 3.0);
        let dense = entry(&[8.0, 16.0], &[8]);
        let weights = dense.weights(0, 1, Effort::Best, &dense.pooled());
        assert_eq!(weights, [1.0, 2.0]);
    }

    #[test]
    fn merging_adds_and_scales_legacy() {
        let mut a = one("x", entry(&[4.0], &[2]), Some(512));
        a.merge(one("x", entry(&[1.0], &[3]), None)).unwrap();
        assert_eq!(a.entries[BStr::new("x")], entry(&[516.0], &[1538]));
        assert_eq!((a.chunks, a.datasets.len()), (4, 2));
        let wrong = one("x", entry(&[1.0, 2.0], &[3]), Some(512));
        assert!(matches!(a.merge(wrong), Err(ImportanceError::Merge { .. })));
        let mut broadcast = one("x", entry(&[1.0, 2.0], &[3]), None);
        broadcast
            .merge(one("x", entry(&[1.0, 2.0], &[5, 6]), None))
            .unwrap();
        assert_eq!(broadcast.entries[BStr::new("x")].counts, [8, 9]);
    }

    #[test]
    fn digests_tell_entries_apart() {
        let a = one("x", entry(&[4.0], &[2]), Some(512));
        let mut b = a.clone();
        b.datasets.clear();
        assert_eq!(a.digest(), b.digest());
        b.exclude(&["x".into()]);
        assert_ne!(a.digest(), b.digest());
    }
}
