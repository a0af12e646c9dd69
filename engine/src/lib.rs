//! CPU inference of GGUF models.

pub mod matmul;
pub mod pool;
