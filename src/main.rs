//! `grist`: the command line over the Gristmill libraries.
#![forbid(unsafe_code)]

fn main() {}
