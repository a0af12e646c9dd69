//! The GGUF format: metadata, tensor types, sources, reader, writer, splits, checks.
#![forbid(unsafe_code)]

pub mod metadata;
pub mod source;
pub mod tensor_type;
pub mod value;

pub use metadata::Metadata;
pub use source::{ReadError, Source, TensorInfo};
pub use tensor_type::{BlockLayout, TensorType};
pub use value::{Array, Value, ValueType};
