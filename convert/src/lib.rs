//! Checkpoints (safetensors, PyTorch, hub) as GGUF sources.
#![forbid(unsafe_code)]

pub mod checkpoint;
mod error;
pub mod vocab;

pub use checkpoint::CheckpointFiles;
pub use error::Error;
