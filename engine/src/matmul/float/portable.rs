//! The plain form of the float product.

/// Sums of values whose indices are equal modulo this are formed apart, then added in order.
const STRANDS: usize = 32;

/// The product of two vectors of equal length.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut strands = [0.0f32; STRANDS];
    let (a, a_rest) = a.as_chunks::<STRANDS>();
    let (b, b_rest) = b.as_chunks::<STRANDS>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..STRANDS {
            strands[i] += a[i] * b[i];
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        strands[i] += a * b;
    }
    strands.iter().sum()
}
