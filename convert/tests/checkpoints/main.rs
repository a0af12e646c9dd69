//! Checkpoints that are written by the tests themselves.

mod bad_input;
mod damage;
mod lora;
mod pickles;
mod tiny;
