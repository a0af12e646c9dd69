//! Checkpoints that are written by the tests themselves.

mod bad_input;
mod lora;
mod tiny;
