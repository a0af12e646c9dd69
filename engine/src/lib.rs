//! CPU inference of GGUF models.

pub mod architecture;
mod attention;
mod cache;
mod error;
mod feed_forward;
mod gemma;
mod generate;
#[cfg(test)]
#[path = "../../fixtures/golden.rs"]
mod golden;
pub mod imatrix;
mod layer;
pub mod matmul;
mod model;
mod ops;
mod parameters;
mod pass;
pub mod pool;
mod pooling;
mod recurrent;
mod rope;
mod sampling;
mod session;
mod simd;
mod t5;
pub mod tokenizer;
mod weights;

pub use cache::KvType;
pub use error::Error;
pub use generate::{Generated, Stop, generate};
pub use model::{LoadOptions, Model};
pub use pooling::Pooling;
pub use sampling::{Sampler, Sampling};
pub use session::{Head, Session, SessionOptions};
pub use tokenizer::Tokenizer;
