//! What can go wrong when a model is opened or run.

use gristmill_gguf::TensorType;
use gristmill_quantize::isa::IsaError;

/// An engine failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read as GGUF.
    #[error(transparent)]
    Gguf(#[from] gristmill_gguf::Error),
    /// `GRIST_CPU` cannot be followed.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// The file names an architecture that the engine has no table row for.
    #[error("architecture `{found}` is not supported{}", nearest(found))]
    Architecture {
        /// What `general.architecture` says.
        found: String,
    },
    /// A key that the architecture needs is absent or has the wrong type.
    #[error("metadata key `{key}`: {problem}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor that the architecture needs is absent.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor's shape contradicts the metadata or the other tensors.
    #[error("tensor `{name}`: expected {expected}, found shape {found:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// What the model needs.
        expected: String,
        /// What the file has, fastest dimension first.
        found: Vec<u64>,
    },
    /// A tensor's type cannot be used where it stands.
    #[error("tensor `{name}` has type {ty}, which {problem}")]
    Type {
        /// The tensor.
        name: String,
        /// Its type.
        ty: TensorType,
        /// Why it cannot be used.
        problem: &'static str,
    },
    /// A token id outside the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    Token {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// More tokens than the session was made for.
    #[error("sequence {sequence} would hold {needed} tokens, the session's context is {context}")]
    Context {
        /// Index of the sequence.
        sequence: usize,
        /// Tokens it would hold.
        needed: usize,
        /// The session's limit.
        context: usize,
    },
    /// A call that does not fit the model or the session.
    #[error("{0}")]
    Usage(String),
}

fn nearest(found: &str) -> String {
    match crate::architecture::nearest(found) {
        Some(name) => format!("; the nearest that is: `{name}`"),
        None => String::new(),
    }
}
