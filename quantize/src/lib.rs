//! Tensor types, presets, recipes, importance and the streaming quantization job.

pub mod budget;
pub mod codebooks;
#[cfg(test)]
#[path = "../../fixtures/golden.rs"]
mod golden;
pub mod half;
pub mod importance;
pub mod isa;
pub mod job;
pub mod nearest;
pub mod plan;
pub mod preset;
pub mod recipe;
pub(crate) mod search;
pub(crate) mod simd;
pub mod types;
pub mod verify;

pub use isa::Isa;
pub use types::Effort;
