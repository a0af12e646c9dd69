//! The error of an encoding, and the choice of the better of two.

use crate::types::Format;

/// `Σ w·(x - y)²` of a block against its decoded bytes; weights are one without importance. NaN if
/// the block decodes to what is not finite.
#[inline(always)]
pub(crate) fn block_error<T, const BYTES: usize, const VALUES: usize>(
    block: &[u8; BYTES],
    values: &[f32; VALUES],
    importance: Option<&[f32; VALUES]>,
) -> f64
where
    T: Format<BYTES, VALUES>,
{
    const PARTS: usize = 8;
    let mut decoded = [0.0; VALUES];
    T::decode(block, &mut decoded);
    let mut parts = [0.0; PARTS];
    for i in (0..VALUES).step_by(PARTS) {
        for j in 0..PARTS {
            let difference = f64::from(values[i + j]) - f64::from(decoded[i + j]);
            let weight = importance.map_or(1.0, |all| f64::from(all[i + j]));
            parts[j] += weight * (difference * difference);
        }
    }
    parts.iter().sum()
}

/// Replaces `block` by `candidate` if that has the smaller error.
#[inline(always)]
pub(crate) fn keep_better<T, const BYTES: usize, const VALUES: usize>(
    block: &mut [u8; BYTES],
    candidate: &[u8; BYTES],
    values: &[f32; VALUES],
    importance: Option<&[f32; VALUES]>,
) where
    T: Format<BYTES, VALUES>,
{
    let before = block_error::<T, BYTES, VALUES>(block, values, importance);
    let after = block_error::<T, BYTES, VALUES>(candidate, values, importance);
    // Where the reference overflows the format, so it stays: a job then refuses the weights, rather
    // than write some that are smaller by orders of magnitude.
    if after < before {
        *block = *candidate;
    }
}
