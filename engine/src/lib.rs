//! CPU inference of GGUF models.
