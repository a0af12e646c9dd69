//! One file a command: its arguments and how its results are printed.

pub mod check;
pub mod completions;
pub mod diff;
pub mod endian;
pub mod extract;
pub mod hash;
pub mod inspect;
pub mod man;
pub mod merge;
pub mod meta;
pub mod quantize;
pub mod split;
