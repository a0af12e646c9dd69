//! Whether an importance matrix fits a model, before any work is done with it.

use bstr::{BStr, BString};
use gristmill_gguf::TensorInfo;

use super::{Entry, Importance};

/// Experts that saw fewer tokens than this are reported.
const FEW_TOKENS: u64 = 64;

/// Why an importance matrix cannot be used for a model.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Misfit {
    /// A value that is not finite.
    #[error("importance of {tensor}: value {index} is {value}")]
    NotFinite {
        /// The entry.
        tensor: BString,
        /// Which value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A negative value: sums of squares cannot be.
    #[error("importance of {tensor}: value {index} is {value}, sums of squares are not negative")]
    Negative {
        /// The entry.
        tensor: BString,
        /// Which value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// Nothing but zeros, although tokens were counted.
    #[error("importance of {tensor}: all {values} values are zero over {tokens} tokens")]
    AllZero {
        /// The entry.
        tensor: BString,
        /// Number of values.
        values: usize,
        /// Number of tokens.
        tokens: u64,
    },
    /// Another number of values than the tensor has columns.
    #[error(
        "importance of {tensor}: {found} values, but the tensor has {columns} columns × {matrices} matrices"
    )]
    Length {
        /// The entry.
        tensor: BString,
        /// Columns of the tensor.
        columns: u64,
        /// Matrices of the tensor.
        matrices: u64,
        /// Values of the entry.
        found: usize,
    },
    /// No entry is of a tensor of this model.
    #[error(
        "the importance matrix is of another model: none of its {entries} entries (first: {first}) is of a tensor here"
    )]
    Foreign {
        /// Number of entries.
        entries: usize,
        /// The first entry.
        first: BString,
    },
}

/// What is to be known about an importance matrix that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Check {
    /// Entries of no tensor of the model; they are not used.
    pub foreign: Vec<BString>,
    /// Stacks of experts of which some saw few tokens.
    pub sparse: Vec<SparseExperts>,
}

/// Experts that saw few tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseExperts {
    /// The tensor.
    pub tensor: BString,
    /// Experts that saw no token at all.
    pub unseen: usize,
    /// Experts that saw fewer than 64 tokens, the unseen among them.
    pub seldom: usize,
    /// All experts.
    pub experts: usize,
}

impl Importance {
    /// Checks every entry that a tensor of the model will use.
    ///
    /// # Errors
    /// If a value cannot be one, an entry has the wrong length (token embeddings excepted, which
    /// then go without), or no entry is of this model.
    pub fn check(&self, tensors: &[TensorInfo]) -> Result<Check, Misfit> {
        let mut check = Check::default();
        let find = |name: &BString| tensors.iter().find(|tensor| tensor.name == *name);
        let mut used = 0;
        for (name, entry) in &self.entries {
            let Some(tensor) = find(name) else {
                check.foreign.push(name.clone());
                continue;
            };
            used += 1;
            if !entry.fits(tensor) {
                if is_embedding(name.as_ref()) {
                    continue;
                }
                return Err(Misfit::Length {
                    tensor: name.clone(),
                    columns: tensor.row_len(),
                    matrices: matrices(tensor),
                    found: entry.sums.len(),
                });
            }
            entry.check_values(name.as_ref())?;
            check.sparse.extend(entry.sparse(name.as_ref()));
        }
        match self.entries.keys().next() {
            Some(first) if used == 0 => Err(Misfit::Foreign {
                entries: self.entries.len(),
                first: first.clone(),
            }),
            _ => Ok(check),
        }
    }

    /// The entry of a tensor, if it has one of the right length.
    pub fn fitting(&self, tensor: &TensorInfo) -> Option<&Entry> {
        self.get(&tensor.name).filter(|entry| entry.fits(tensor))
    }
}

/// Matrices of a tensor: the product of the dimensions after the second.
pub(crate) fn matrices(tensor: &TensorInfo) -> u64 {
    tensor.shape.iter().skip(2).product()
}

fn is_embedding(name: &BStr) -> bool {
    name == "token_embd.weight" || name == "per_layer_token_embd.weight"
}

impl Entry {
    fn fits(&self, tensor: &TensorInfo) -> bool {
        let matrices = matrices(tensor);
        self.sums.len() as u64 == tensor.row_len() * matrices
            && (self.counts.len() == 1 || self.counts.len() as u64 == matrices)
    }

    fn check_values(&self, name: &BStr) -> Result<(), Misfit> {
        for (index, &value) in self.sums.iter().enumerate() {
            let tensor = || name.to_owned();
            if !value.is_finite() {
                let tensor = tensor();
                return Err(Misfit::NotFinite {
                    tensor,
                    index,
                    value,
                });
            }
            if value < 0.0 {
                let tensor = tensor();
                return Err(Misfit::Negative {
                    tensor,
                    index,
                    value,
                });
            }
        }
        let tokens = self
            .counts
            .iter()
            .fold(0u64, |sum, &n| sum.saturating_add(n));
        if tokens > 0 && self.sums.iter().all(|&sum| sum == 0.0) {
            return Err(Misfit::AllZero {
                tensor: name.to_owned(),
                values: self.sums.len(),
                tokens,
            });
        }
        Ok(())
    }

    fn sparse(&self, name: &BStr) -> Option<SparseExperts> {
        let below = |limit| self.counts.iter().filter(|&&count| count < limit).count();
        let seldom = below(FEW_TOKENS);
        (self.counts.len() > 1 && seldom > 0).then(|| SparseExperts {
            tensor: name.to_owned(),
            unseen: below(1),
            seldom,
            experts: self.counts.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use gristmill_gguf::TensorType;

    use super::*;

    fn importance(name: &str, sums: &[f32], counts: &[u64]) -> Importance {
        let entry = Entry {
            sums: sums.to_vec(),
            counts: counts.to_vec(),
        };
        Importance {
            entries: [(name.into(), entry)].into(),
            ..Importance::default()
        }
    }

    fn tensor(name: &str, shape: &[u64]) -> TensorInfo {
        TensorInfo {
            name: name.into(),
            shape: shape.to_vec(),
            ty: TensorType::F16,
        }
    }

    #[test]
    fn bad_values_are_named() {
        let model = [tensor("a.weight", &[2, 5])];
        let error = |sums: &[f32]| {
            importance("a.weight", sums, &[4])
                .check(&model)
                .unwrap_err()
        };
        assert!(matches!(
            error(&[1.0, f32::NAN]),
            Misfit::NotFinite { index: 1, .. }
        ));
        assert!(matches!(
            error(&[-1.0, 1.0]),
            Misfit::Negative { index: 0, .. }
        ));
        assert!(matches!(
            error(&[0.0, 0.0]),
            Misfit::AllZero { tokens: 4, .. }
        ));
        assert!(matches!(
            error(&[1.0]),
            Misfit::Length {
                found: 1,
                columns: 2,
                ..
            }
        ));
        let foreign = importance("b.weight", &[1.0, 1.0], &[4]).check(&model);
        assert!(matches!(foreign, Err(Misfit::Foreign { entries: 1, .. })));
        assert_eq!(
            importance("a.weight", &[0.0, 1.0], &[4]).check(&model),
            Ok(Check::default())
        );
    }

    #[test]
    fn seldom_experts_are_reported() {
        let model = [tensor("e.weight", &[1, 7, 3])];
        let check = importance("e.weight", &[1.0, 0.0, 2.0], &[640, 0, 9])
            .check(&model)
            .unwrap();
        let [sparse] = check.sparse.as_slice() else {
            panic!("{check:?}");
        };
        assert_eq!((sparse.unseen, sparse.seldom, sparse.experts), (1, 2, 3));
    }
}
