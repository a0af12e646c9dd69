//! Tokenizer files as `tokenizer.*` metadata.

use gristmill_gguf::Value;
use serde_json::Value as Json;

use crate::checkpoint::CheckpointFiles;

/// What the vocabulary needs to know of the model.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The checkpoint's files.
    pub files: &'a CheckpointFiles,
    /// The configuration, `text_config` merged over the root.
    pub config: &'a Json,
    /// GGUF name of the architecture.
    pub architecture: &'a str,
    /// The model class that the configuration names.
    pub class: &'a str,
    /// Length that the token list is padded to, if the configuration states one.
    pub vocab_size: Option<u64>,
    /// Rows of the token embedding, if it is stored.
    pub embedding_rows: Option<u64>,
    /// The pre-tokenizer's name that the user states.
    pub pre: Option<&'a str>,
}

/// `tokenizer.*` keys in the order in which they are written.
#[derive(Debug, Clone, Default)]
pub struct VocabMetadata {
    /// Keys and values.
    pub entries: Vec<(String, Value)>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Why a tokenizer does not convert.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No tokenizer file is there.
    #[error("no tokenizer file found (tokenizer.json, tokenizer.model, …)")]
    Missing,
}

impl Error {
    /// What the user can do, where there is something.
    pub fn help(&self) -> Option<String> {
        None
    }
}

/// The tokenizer's metadata.
///
/// # Errors
/// If there is no tokenizer, or it is not understood.
pub fn metadata(request: &Request<'_>) -> Result<VocabMetadata, Error> {
    let _ = request;
    Err(Error::Missing)
}
