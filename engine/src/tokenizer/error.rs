//! Why a file's tokenizer cannot be rebuilt.

/// A tokenizer that cannot be rebuilt from metadata.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key that every tokenizer of this kind needs is absent.
    #[error("metadata key `{key}` is missing: {needed}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What it is needed for.
        needed: &'static str,
    },
    /// A key holds something else than it should.
    #[error("metadata key `{key}`: {reason}")]
    Invalid {
        /// The key.
        key: String,
        /// Expected and found.
        reason: String,
    },
    /// `tokenizer.ggml.model` names no known kind.
    #[error("unknown tokenizer model `{0}` (known: gpt2, llama, bert, t5, rwkv, plamo2, gemma4)")]
    UnknownModel(String),
    /// `tokenizer.ggml.pre` names no known pre-tokenizer.
    #[error("unknown pre-tokenizer `{0}`")]
    UnknownPreTokenizer(String),
    /// The model has no text tokenizer at all.
    #[error("the model has no tokenizer")]
    None,
}

impl Error {
    pub(super) fn invalid(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            key: key.into(),
            reason: reason.into(),
        }
    }
}
