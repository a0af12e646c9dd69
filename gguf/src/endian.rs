//! Byte order of files, and of the fields inside tensor blocks.

use crate::tensor_type::TensorType;

/// Byte order of everything after the magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Endian {
    /// Least significant byte first: nearly every file.
    #[default]
    Little,
    /// Most significant byte first: version 3 on request.
    Big,
}

impl Endian {
    /// `little` or `big`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Little => "little",
            Self::Big => "big",
        }
    }
}

/// A run of multi-byte scalars inside a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    /// First byte in the block.
    at: usize,
    /// Bytes of one scalar.
    width: usize,
    /// Scalars, back to back.
    count: usize,
}

/// The multi-byte scalars of a type's block, as ggml's structures declare them; single bytes do
/// not depend on the byte order. `None` where ggml's own code disagrees with itself on a
/// big-endian machine: IQ2_XXS stores grid indices through 32-bit words when encoding and reads
/// them as bytes when decoding.
fn fields(ty: TensorType) -> Option<&'static [Field]> {
    const fn field(at: usize, width: usize, count: usize) -> Field {
        Field { at, width, count }
    }
    use TensorType as T;
    Some(match ty {
        T::I8 | T::MXFP4 | T::NVFP4 => &[],
        T::F16 | T::BF16 | T::I16 => const { &[field(0, 2, 1)] },
        T::F32 | T::I32 => const { &[field(0, 4, 1)] },
        T::F64 | T::I64 => const { &[field(0, 8, 1)] },
        T::Q1_0 | T::Q2_0 | T::Q4_0 | T::Q8_0 | T::IQ4_NL | T::IQ2_S | T::IQ3_S => {
            const { &[field(0, 2, 1)] }
        }
        // d and m; d and the sum; d and dmin; d and the high bits of the scales
        T::Q4_1 | T::Q8_1 | T::Q4_K | T::Q5_K | T::IQ4_XS => const { &[field(0, 2, 2)] },
        // d, high bits as one word
        T::Q5_0 => const { &[field(0, 2, 1), field(2, 4, 1)] },
        T::Q5_1 => const { &[field(0, 2, 2), field(4, 4, 1)] },
        T::Q2_K => const { &[field(80, 2, 2)] },
        T::Q3_K => const { &[field(108, 2, 1)] },
        T::Q6_K => const { &[field(208, 2, 1)] },
        T::Q8_K => const { &[field(0, 4, 1), field(260, 2, 16)] },
        T::TQ1_0 => const { &[field(52, 2, 1)] },
        T::TQ2_0 => const { &[field(64, 2, 1)] },
        // d, then grid and sign indices in 16-bit words
        T::IQ2_XS => const { &[field(0, 2, 33)] },
        // d, then signs and scales in 32-bit words
        T::IQ3_XXS => const { &[field(0, 2, 1), field(66, 4, 8)] },
        T::IQ1_S => const { &[field(0, 2, 1), field(34, 2, 8)] },
        T::IQ1_M => const { &[field(48, 2, 4)] },
        T::IQ2_XXS => return None,
    })
}

/// Whether blocks of the type can be brought to the other byte order.
pub fn can_swap(ty: TensorType) -> bool {
    fields(ty).is_some()
}

/// Whether the type's bytes depend on the byte order at all.
pub fn depends_on_order(ty: TensorType) -> bool {
    fields(ty).is_none_or(|fields| !fields.is_empty())
}

/// Reverses every multi-byte scalar in whole blocks of the type. The operation is its own inverse.
///
/// Returns `false`, and leaves the bytes alone, for a type whose layout has no defined order.
pub fn swap_rows(ty: TensorType, bytes: &mut [u8]) -> bool {
    let Some(fields) = fields(ty) else {
        return false;
    };
    if !fields.is_empty() {
        for block in bytes.chunks_exact_mut(ty.layout().bytes) {
            for field in fields {
                block[field.at..field.at + field.width * field.count]
                    .chunks_exact_mut(field.width)
                    .for_each(<[u8]>::reverse);
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_inside_their_blocks_and_do_not_overlap() {
        for ty in TensorType::all() {
            let mut end = 0;
            for field in fields(ty).unwrap_or_default() {
                assert!(field.at >= end, "{ty}");
                end = field.at + field.width * field.count;
            }
            assert!(end <= ty.layout().bytes, "{ty}");
        }
    }

    #[test]
    fn swapping_twice_is_nothing() {
        for ty in TensorType::all().filter(|&ty| can_swap(ty)) {
            let bytes: Vec<u8> = (0..ty.layout().bytes * 3)
                .map(|i| (i * 7 + i / 256) as u8)
                .collect();
            let mut swapped = bytes.clone();
            assert!(swap_rows(ty, &mut swapped));
            assert_eq!(swapped != bytes, depends_on_order(ty), "{ty}");
            assert!(swap_rows(ty, &mut swapped));
            assert_eq!(swapped, bytes, "{ty}");
        }
    }
}
