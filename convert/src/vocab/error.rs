//! Why a tokenizer does not convert.

/// A tokenizer that cannot be written as metadata.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No tokenizer file is there.
    #[error("no tokenizer file found (tokenizer.json, tokenizer.model, …)")]
    Missing,
    /// A file could not be read.
    #[error(transparent)]
    Checkpoint(Box<crate::Error>),
    /// A tokenizer file does not hold what its name promises.
    #[error("{file}: {reason}")]
    File {
        /// The file's name in the checkpoint.
        file: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// A token's id lies beyond the vocabulary that the configuration states.
    #[error(
        "{file}: token `{token}` has id {id}, but the model's vocabulary has {size} entries only"
    )]
    BeyondVocabulary {
        /// The file's name in the checkpoint.
        file: String,
        /// The token.
        token: String,
        /// Its id.
        id: u64,
        /// Entries of the vocabulary.
        size: u64,
    },
    /// More tokens than the embedding has rows.
    #[error("the tokenizer has {tokens} tokens, but the embedding has {rows} rows")]
    BeyondEmbedding {
        /// Tokens.
        tokens: usize,
        /// Rows of the token embedding.
        rows: u64,
    },
    /// Two ids with the same text.
    #[error("{file}: tokens {first} and {second} have the same text `{token}`")]
    Duplicate {
        /// The file's name in the checkpoint.
        file: String,
        /// The text.
        token: String,
        /// The first id.
        first: usize,
        /// The second id.
        second: usize,
    },
    /// The pre-tokenizer has no name.
    #[error(
        "tokenizer.json: its way of splitting text is none of the known ones; `{nearest}` is nearest, but splits `{sample}` into {theirs} where the tokenizer has {ours}"
    )]
    PreTokenizer {
        /// The known pre-tokenizer that agrees most.
        nearest: &'static str,
        /// A text on which they differ.
        sample: String,
        /// The pieces of the known one.
        theirs: String,
        /// The pieces of the checkpoint's.
        ours: String,
    },
    /// The name the user gave is no pre-tokenizer.
    #[error("`{name}` is no known pre-tokenizer")]
    UnknownPreTokenizer {
        /// The name given.
        name: String,
        /// The most similar known one.
        nearest: &'static str,
    },
}

impl Error {
    /// What the user can do, where there is something.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Missing => Some(
                "add the tokenizer's files to the checkpoint's folder; they are published beside the weights"
                    .into(),
            ),
            Self::Checkpoint(error) => error.help(),
            Self::File { .. } => Some(
                "download the file again, or take the one published with the weights".into(),
            ),
            Self::BeyondVocabulary { .. } | Self::BeyondEmbedding { .. } | Self::Duplicate { .. } => Some(
                "the tokenizer may belong to another model; take the files published with these weights"
                    .into(),
            ),
            Self::PreTokenizer { nearest, .. } => Some(format!(
                "if you know that another one is right, name it: --pre {nearest}"
            )),
            Self::UnknownPreTokenizer { nearest, .. } => Some(format!("did you mean `{nearest}`?")),
        }
    }

    pub(super) fn file(file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::File {
            file: file.into(),
            reason: reason.into(),
        }
    }
}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        Self::Checkpoint(Box::new(error))
    }
}
