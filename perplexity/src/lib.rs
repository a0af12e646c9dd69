//! Perplexity, KL divergence, benchmarks and reports.
#![forbid(unsafe_code)]

pub mod divergence;
pub mod statistics;
