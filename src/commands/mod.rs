//! One file a command: its arguments and how its results are printed.

pub mod bench;
pub mod card;
pub mod check;
pub mod compare;
pub mod completions;
pub mod convert;
pub mod diff;
pub mod endian;
pub mod extract;
pub mod generate;
pub mod hash;
pub mod imatrix;
pub mod imatrix_files;
pub mod inspect;
pub mod logits;
pub mod man;
pub mod merge;
pub mod meta;
pub mod perplexity;
pub mod quantize;
pub mod release;
pub mod split;
pub mod tokenize;
