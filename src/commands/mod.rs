//! One file a command: its arguments and how its results are printed.

pub mod completions;
pub mod man;
