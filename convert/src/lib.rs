//! Checkpoints (safetensors, PyTorch, hub) as GGUF sources.
//!
//! [`Checkpoint::open`] maps a published model and checks its files; [`Conversion::new`] plans its
//! GGUF form: metadata, and every tensor as a small expression over the stored ones that is
//! evaluated row by row.
#![forbid(unsafe_code)]

mod adapter;
pub mod architectures;
mod audit;
pub mod checkpoint;
mod config;
mod conversion;
mod error;
pub mod expr;
mod general;
mod output;
mod preflight;
mod storage;
pub mod vocab;

pub use checkpoint::{Checkpoint, CheckpointFiles};
pub use config::Config;
pub use conversion::{Conversion, Options};
pub use error::Error;
use expr::Expr;
pub use output::{Output, UnknownOutput};
