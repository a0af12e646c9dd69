//! Perplexity, KL divergence, speed and the reports made of them.
#![forbid(unsafe_code)]

pub mod card;
pub mod divergence;
pub mod evaluate;
pub mod html;
pub mod importance;
pub mod protocol;
pub mod report;
pub mod sensitivity;
pub mod speed;
pub mod statistics;
