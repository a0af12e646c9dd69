//! The GGUF format: metadata, tensor types, sources, reader, writer, splits, checks.
//!
//! * [`File::open`] maps a file or a whole split set, checks everything that makes it safe to
//!   read, and is a [`Source`] of rows.
//! * [`Plan`] lays out a file from metadata and tensor descriptions; [`Writer`] fills it in any
//!   order from any thread and gives it its final name once it is whole.
#![deny(unsafe_code)]

pub mod check;
pub mod copy;
pub mod diff;
pub mod endian;
pub mod error;
pub mod file;
pub mod hash;
mod header;
pub mod map;
pub mod metadata;
pub mod os;
pub mod plan;
mod progress;
mod reader;
pub mod schema;
pub mod source;
pub mod split;
pub mod tensor_type;
mod validity;
pub mod value;
pub mod writer;

pub use endian::Endian;
pub use error::{Error, Fault, Field, Subject};
pub use file::{File, Part, TensorData};
pub use header::Header;
pub use map::Map;
pub use metadata::Metadata;
pub use plan::{Layout, Plan};
pub use source::{ReadError, Source, TensorInfo};
pub use split::{SplitFault, SplitLimit};
pub use tensor_type::{BlockLayout, TensorType};
pub use validity::{f16_scales, invalid_blocks};
pub use value::{Array, Value, ValueType};
pub use writer::{WriteOptions, Writer};
