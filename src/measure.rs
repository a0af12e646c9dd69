//! What `perplexity`, `compare` and `release` share: opening models, cutting texts, the options of a
//! measurement.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, ValueEnum};
use gristmill_engine::tokenizer::Tokenizer;
use gristmill_engine::{KvType, LoadOptions, Model, SessionOptions};
use gristmill_gguf::{Source as _, TensorType};
use gristmill_perplexity::evaluate::{self, Observer};
use gristmill_perplexity::protocol::Chunks;
use gristmill_quantize::types::Effort;
use indicatif::ProgressBar;

use crate::context::Context;
use crate::model_source::file_type;
use crate::report::Report;

/// How a model is run for a measurement.
#[derive(Debug, Clone, Copy, Args)]
pub struct Arithmetic {
    /// Keep activations in f32 on decoded weights: the damage of the weights alone
    #[arg(long)]
    pub exact: bool,
    /// Type of the KV cache [default: f16, but f32 with --exact and for logits]
    #[arg(long, value_enum)]
    pub kv_type: Option<KvChoice>,
}

/// Types a KV cache can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KvChoice {
    F32,
    F16,
    #[value(name = "q8_0")]
    Q8_0,
}

impl Arithmetic {
    /// The same, with this KV cache where the user named none.
    pub fn or_kv(self, default: KvChoice) -> Self {
        Self {
            kv_type: self.kv_type.or(Some(default)),
            ..self
        }
    }

    fn kv(self) -> KvChoice {
        self.kv_type.unwrap_or(match self.exact {
            true => KvChoice::F32,
            false => KvChoice::F16,
        })
    }

    /// The KV cache's type by name.
    pub fn kv_name(self) -> String {
        self.kv()
            .to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// As the engine takes it.
    pub fn session(self) -> SessionOptions {
        SessionOptions {
            exact: self.exact,
            kv_type: match self.kv() {
                KvChoice::F32 => KvType::F32,
                KvChoice::F16 => KvType::F16,
                KvChoice::Q8_0 => KvType::Q8_0,
            },
            ..SessionOptions::default()
        }
    }
}

/// Opens a model to run it.
pub fn open(path: &Path, context: &Context) -> Result<Model, Report> {
    let options = LoadOptions {
        threads: Some(context.threads()),
    };
    Model::open(path, &options).map_err(|error| Report::from_engine(path, error))
}

/// The model's tokenizer.
pub fn tokenizer(model: &Model, path: &Path) -> Result<Tokenizer, Report> {
    Tokenizer::from_metadata(model.metadata())
        .map_err(|error| Report::input(format!("{}: {error}", path.display())))
}

/// Reads a text and cuts it into chunks for a model.
pub fn chunks(
    model: &Model,
    model_path: &Path,
    text: &Path,
    context_length: usize,
    limit: Option<usize>,
) -> Result<Chunks, Report> {
    let bytes = fs::read(text).map_err(|error| Report::io(text, &error))?;
    let tokenizer = tokenizer(model, model_path)?;
    let tokens = tokenizer.encode(&bytes, true, false);
    Chunks::new(
        tokens,
        context_length,
        limit,
        tokenizer.special().bos.filter(|_| tokenizer.adds_bos()),
    )
    .map_err(|error| {
        Report::input(format!("{}: {error}", text.display()))
            .help("give a longer text, or a smaller context with -c")
    })
}

/// The preset that a file says it was made with, else the type that most of its weights have.
pub fn type_name(model: &Model) -> String {
    if model.metadata().contains("general.file_type") {
        return file_type(model.file());
    }
    let mut weights: HashMap<TensorType, u64> = HashMap::new();
    for tensor in model.file().tensors() {
        *weights.entry(tensor.ty).or_default() += tensor.elements();
    }
    let most = weights
        .into_iter()
        .max_by_key(|&(ty, weights)| (weights, ty));
    most.map_or_else(|| "?".to_owned(), |(ty, _)| ty.to_string())
}

/// How hard the encoders search.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum EffortChoice {
    /// ggml's choices, byte for byte
    Reference,
    /// A better search in the same format
    #[default]
    Best,
}

impl From<EffortChoice> for Effort {
    fn from(choice: EffortChoice) -> Self {
        match choice {
            EffortChoice::Reference => Self::Reference,
            EffortChoice::Best => Self::Best,
        }
    }
}

/// An observer that moves `bar` by chunks.
pub struct ChunkProgress {
    bar: ProgressBar,
    interrupted: Arc<AtomicBool>,
}

impl ChunkProgress {
    /// A bar over the chunks.
    pub fn new(label: &str, chunks: &Chunks, context: &Context) -> Self {
        Self {
            bar: context.count_bar(label, chunks.count() as u64),
            interrupted: context.interrupt_flag(),
        }
    }

    /// Runs `f` under this observer.
    pub fn observe<T>(&self, f: impl FnOnce(&Observer<'_>) -> T) -> T {
        let progress = |chunks: usize| self.bar.inc(chunks as u64);
        let result = f(&Observer {
            progress: &progress,
            interrupted: &self.interrupted,
        });
        self.bar.finish_and_clear();
        result
    }
}

/// What went wrong when `path` was measured.
pub fn failed(path: &Path, error: evaluate::Error) -> Report {
    match error {
        evaluate::Error::Interrupted => Report::interrupted(),
        evaluate::Error::Engine(error) => Report::from_engine(path, error),
        evaluate::Error::State(error) => (*error).into(),
        evaluate::Error::Vocabulary { .. } => Report::input(format!("{}: {error}", path.display()))
            .help("compare only variants of one model"),
        _ => Report::input(format!("{}: {error}", path.display())),
    }
}

/// Refuses to overwrite.
pub fn refuse_existing(path: &Path, force: bool) -> Result<(), Report> {
    if path.exists() && !force {
        return Err(
            Report::usage(format!("{} exists", path.display())).help("give --force to replace it")
        );
    }
    Ok(())
}
