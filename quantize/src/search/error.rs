//! The error of an encoding, and the choice of the better of two.

use crate::types::Format;

/// The least `Σ w·(x - s·y)²` of any `s` for a block's decoded values `y`; weights are one without
/// importance. The scale that is stored does not matter, since [`super::unshrunk`] has the last word on it.
/// NaN if the block decodes to what is not finite.
#[inline(always)]
pub(crate) fn residual<T, const BYTES: usize, const VALUES: usize>(
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
    let (mut xx, mut xy, mut yy) = ([0.0; PARTS], [0.0; PARTS], [0.0; PARTS]);
    for i in (0..VALUES).step_by(PARTS) {
        for j in 0..PARTS {
            let (x, y) = (f64::from(values[i + j]), f64::from(decoded[i + j]));
            let weight = importance.map_or(1.0, |all| f64::from(all[i + j]));
            xx[j] += weight * (x * x);
            xy[j] += weight * (x * y);
            yy[j] += weight * (y * y);
        }
    }
    let (xx, xy): (f64, f64) = (xx.iter().sum(), xy.iter().sum());
    let yy: f64 = yy.iter().sum();
    if xy > 0.0 {
        xx - xy * (xy / yy)
    } else {
        xx + yy
    }
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
    let before = residual::<T, BYTES, VALUES>(block, values, importance);
    let after = residual::<T, BYTES, VALUES>(candidate, values, importance);
    // Where the reference overflows the format, so it stays: a job then refuses the weights, rather
    // than write some that are smaller by orders of magnitude.
    if after < before {
        *block = *candidate;
    }
}
