//! One file a command: its arguments and how its results are printed.

pub mod check;
pub mod completions;
pub mod inspect;
pub mod man;
