//! What models are made of: metadata keys and their types, tensor names, and what each
//! architecture needs. Tables, read by converter, engine and checker alike.

pub mod chat;
pub mod keys;
pub mod pretokenizer;
pub mod required;
pub mod sizes;
pub mod tensors;
