//! Which blocks of rows are valid: those whose scales (or values) are finite.

use crate::tensor_type::TensorType;

/// What of a block must be finite. Offsets are bytes from the block's start.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// Integers, and formats in which every bit pattern is a number.
    Nothing,
    /// f16 numbers at these offsets.
    Half(&'static [usize]),
    /// An f32 number at the start.
    Single,
    /// An f64 number at the start, which must also fit f32.
    Double,
    /// A bf16 number at the start.
    Brain,
    /// A power of two at the start, as one byte whose highest value means NaN.
    Exponent,
    /// An f16 number in the top four bits of each of four words at this offset.
    Scattered(usize),
}

fn rule(ty: TensorType) -> Rule {
    use TensorType as T;
    match ty {
        T::F32 | T::Q8_K => Rule::Single,
        T::F64 => Rule::Double,
        T::BF16 => Rule::Brain,
        T::MXFP4 => Rule::Exponent,
        T::IQ1_M => Rule::Scattered(48),
        T::I8 | T::I16 | T::I32 | T::I64 | T::NVFP4 => Rule::Nothing,
        T::Q4_1 | T::Q5_1 | T::Q8_1 | T::Q4_K | T::Q5_K => Rule::Half(&[0, 2]),
        T::Q2_K => Rule::Half(&[80, 82]),
        T::Q3_K => Rule::Half(&[108]),
        T::Q6_K => Rule::Half(&[208]),
        T::TQ1_0 => Rule::Half(&[52]),
        T::TQ2_0 => Rule::Half(&[64]),
        T::F16
        | T::Q1_0
        | T::Q2_0
        | T::Q4_0
        | T::Q5_0
        | T::Q8_0
        | T::IQ1_S
        | T::IQ2_XXS
        | T::IQ2_XS
        | T::IQ2_S
        | T::IQ3_XXS
        | T::IQ3_S
        | T::IQ4_NL
        | T::IQ4_XS => Rule::Half(&[0]),
    }
}

/// Little-endian word of a block; the offset is inside it.
fn word(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn half_is_finite(bits: u16) -> bool {
    bits & 0x7C00 != 0x7C00
}

impl Rule {
    fn holds(self, block: &[u8]) -> bool {
        match self {
            Self::Nothing => true,
            Self::Half(offsets) => offsets.iter().all(|&at| half_is_finite(word(block, at))),
            Self::Single => word(block, 2) & 0x7F80 != 0x7F80,
            Self::Double => block
                .try_into()
                .is_ok_and(|bytes| (f64::from_le_bytes(bytes) as f32).is_finite()),
            Self::Brain => word(block, 0) & 0x7F80 != 0x7F80,
            Self::Exponent => block[0] != u8::MAX,
            Self::Scattered(at) => {
                let bits = (0..4).fold(0, |bits, i| {
                    bits | (word(block, at + 2 * i) >> 12) << (4 * i)
                });
                half_is_finite(bits)
            }
        }
    }
}

/// Offsets in a block of the f16 numbers that all of its values are proportional to: the scale, or the
/// scale and the minimum. None where the scale has another form.
pub fn f16_scales(ty: TensorType) -> &'static [usize] {
    match rule(ty) {
        Rule::Half(offsets) => offsets,
        _ => &[],
    }
}

/// The blocks, by index, that hold a scale or a value that is not finite, as ggml refuses them when it
/// loads or writes rows. Codes are not looked at: every bit pattern of them is legal. Bytes after the
/// last whole block count for nothing.
pub fn invalid_blocks(ty: TensorType, bytes: &[u8]) -> impl Iterator<Item = usize> {
    let rule = rule(ty);
    let blocks = match rule {
        Rule::Nothing => &[],
        _ => bytes,
    };
    let blocks = blocks.chunks_exact(ty.layout().bytes).enumerate();
    blocks.filter_map(move |(number, block)| (!rule.holds(block)).then_some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_scale_is_found_in_every_type_that_has_one() {
        for ty in TensorType::all() {
            let size = ty.layout().bytes;
            let mut bytes = vec![0u8; size * 5];
            assert_eq!(invalid_blocks(ty, &bytes).next(), None, "{ty}");
            // All bits set is a NaN in every floating format.
            bytes[3 * size..4 * size].fill(0xFF);
            let expected = match rule(ty) {
                Rule::Nothing => vec![],
                _ => vec![3],
            };
            let found: Vec<usize> = invalid_blocks(ty, &bytes).collect();
            assert_eq!(found, expected, "{ty}");
        }
    }

    #[test]
    fn every_scale_counts() {
        for ty in TensorType::all() {
            if let Rule::Half(offsets) = rule(ty) {
                for &at in offsets {
                    let mut block = vec![0u8; ty.layout().bytes];
                    // +infinity
                    block[at + 1] = 0x7C;
                    assert_eq!(invalid_blocks(ty, &block).count(), 1, "{ty} at {at}");
                    // the largest finite number
                    block[at..at + 2].copy_from_slice(&0x7BFFu16.to_le_bytes());
                    assert_eq!(invalid_blocks(ty, &block).count(), 0, "{ty} at {at}");
                }
            }
        }
        let mut f64s = f64::from(f32::MAX).to_le_bytes().to_vec();
        f64s.extend(1e39f64.to_le_bytes());
        assert_eq!(invalid_blocks(TensorType::F64, &f64s).next(), Some(1));
    }
}
