//! Why a checkpoint does not convert.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::vocab;

/// A failed conversion: the file, the place in it and the reason; [`Error::help`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system failed.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A file does not hold what its name promises.
    #[error("{file}: {reason}", file = file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        reason: String,
        /// What to do about it.
        help: Option<String>,
    },
    /// A stored tensor contradicts its file, the configuration, or what is supported.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// Its name in the checkpoint.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Tensors that no rule of the architecture accounts for.
    #[error("{architecture} has no place for {} of the checkpoint's tensors: {}", names.len(), Listed(names))]
    UnknownTensors {
        /// The architecture's GGUF name.
        architecture: &'static str,
        /// The tensors' names in the checkpoint.
        names: Vec<String>,
        /// What left them there, where that is recognisable.
        help: Option<String>,
    },
    /// The configuration misses a field or has one that cannot be.
    #[error("config.json: `{field}` {reason}")]
    Config {
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration asks for what no graph of GGUF computes.
    #[error(
        "config.json: `{field}` is `{value}`, which the {architecture} graph of GGUF does not compute (known: {known})"
    )]
    Unsupported {
        /// The architecture's GGUF name.
        architecture: &'static str,
        /// The field.
        field: String,
        /// Its value.
        value: String,
        /// Values that are understood.
        known: String,
    },
    /// What the configuration says and what is stored exclude each other.
    #[error("config.json contradicts the weights: {first}{}", and_more(*further))]
    Contradiction {
        /// The first contradiction.
        first: String,
        /// How many more there are.
        further: usize,
    },
    /// The output shares the embedding's weights, and both are stored and differ.
    #[error(
        "`{head}` and `{embedding}` differ (first in row {row}), though config.json ties them (`tie_word_embeddings`)"
    )]
    UntiedHead {
        /// The output's name in the checkpoint.
        head: String,
        /// The embedding's.
        embedding: String,
        /// The first row that differs.
        row: u64,
    },
    /// No architecture is registered for the model's class.
    #[error("the model class `{class}` is not supported")]
    UnknownArchitecture {
        /// The class that the configuration names.
        class: String,
        /// What is known, and which is nearest.
        help: String,
    },
    /// The folder is no model checkpoint.
    #[error("{}: {reason}", path.display())]
    NotACheckpoint {
        /// The folder.
        path: PathBuf,
        /// What is missing.
        reason: String,
        /// What to do.
        help: String,
    },
    /// The hub could not deliver.
    #[error("hub: {repository}: {reason}")]
    Hub {
        /// The repository's id.
        repository: String,
        /// What failed.
        reason: String,
        /// What to do.
        help: Option<String>,
    },
    /// The tokenizer does not convert.
    #[error(transparent)]
    Vocab(#[from] vocab::Error),
}

impl Error {
    /// What the user can do.
    pub fn help(&self) -> Option<String> {
        let own = match self {
            Self::File { help, .. }
            | Self::UnknownTensors { help, .. }
            | Self::Hub { help, .. } => help.clone(),
            Self::UnknownArchitecture { help, .. } | Self::NotACheckpoint { help, .. } => {
                return Some(help.clone());
            }
            Self::Vocab(error) => return error.help(),
            Self::Io { .. }
            | Self::Tensor { .. }
            | Self::Config { .. }
            | Self::Unsupported { .. }
            | Self::Contradiction { .. }
            | Self::UntiedHead { .. } => None,
        };
        let general = match self {
            Self::UnknownTensors { .. } => {
                "the class in config.json (`architectures`) may be another than that of the weights"
            }
            Self::File { .. } | Self::Tensor { .. } => {
                "download the file again, or take the one that is published with the other files"
            }
            Self::Unsupported { .. } => {
                "the file would load and compute something else than the model; correct config.json \
                 if the model means one of the known values"
            }
            Self::UntiedHead { .. } => {
                "set `tie_word_embeddings` to false in config.json if the stored output is right, \
                 else remove it from the weights"
            }
            Self::Io { .. } => "check that the path is right and may be read",
            _ => "take config.json and weights that were published together",
        };
        own.or_else(|| Some(general.to_owned()))
    }

    /// Whether the environment failed (disk, permission, network) rather than the input.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Io { error, .. } => error.kind() != io::ErrorKind::NotFound,
            Self::Hub { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { path, error }
    }

    pub(crate) fn file(file: &Path, reason: impl Into<String>) -> Self {
        Self::File {
            file: file.to_owned(),
            reason: reason.into(),
            help: None,
        }
    }

    pub(crate) fn config(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config {
            field: field.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn tensor(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Tensor {
            name: name.into(),
            reason: reason.into(),
        }
    }
}

/// How a list of which one is shown goes on.
fn and_more(further: usize) -> String {
    match further {
        0 => String::new(),
        further => format!("; and {further} more"),
    }
}

/// The first names of a list, and how many more there are.
struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        let shown = self.0.iter().take(SHOWN);
        for (at, name) in shown.enumerate() {
            write!(f, "{}`{name}`", if at == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
