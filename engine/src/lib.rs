//! CPU inference of GGUF models.

pub mod architecture;
mod attention;
mod cache;
mod error;
mod feed_forward;
mod gemma;
pub mod imatrix;
mod layer;
pub mod matmul;
mod model;
mod ops;
mod parameters;
mod pass;
pub mod pool;
mod recurrent;
mod rope;
mod session;
mod simd;
mod weights;

pub use cache::KvType;
pub use error::Error;
pub use model::{LoadOptions, Model};
pub use session::{Head, Session, SessionOptions};
