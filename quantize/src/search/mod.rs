//! Searches that several tensor types share.

pub(crate) mod error;
pub(crate) mod fp4;
pub(crate) mod scale;

/// ggml's `nearest_int`: adds 1.5·2^23 and reads the low bits. Ties to even within ±2^22; beyond
/// that it wraps, and NaN gives 0, which encoders of ggml's bytes must reproduce.
#[inline(always)]
pub(crate) fn nearest_int(value: f32) -> i32 {
    ((value + 12_582_912.0).to_bits() & 0x007F_FFFF) as i32 - 0x0040_0000
}
