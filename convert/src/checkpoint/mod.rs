//! Checkpoints as they are published: a folder (or a repository of the hub) with a configuration,
//! a tokenizer and weights.

mod files;

pub use files::CheckpointFiles;
