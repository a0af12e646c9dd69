//! Stored values as f32 and back.

use gristmill_gguf::{ReadError, TensorType};
use half::{bf16, f16};

use crate::checkpoint::{Dtype, Stored};

/// Appends values of a GGUF float type as f32.
pub(super) fn read(ty: TensorType, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), ReadError> {
    match ty {
        TensorType::F32 => out.extend(chunks(bytes).map(f32::from_le_bytes)),
        TensorType::F16 => out.extend(chunks(bytes).map(|b| f16::from_le_bytes(b).to_f32())),
        TensorType::BF16 => out.extend(chunks(bytes).map(|b| bf16::from_le_bytes(b).to_f32())),
        _ => {
            return Err(ReadError::Data(format!(
                "arithmetic on values of type {ty} is not possible"
            )));
        }
    }
    Ok(())
}

/// Appends f32 values in a type that arithmetic gives (F32 or F16).
pub(super) fn write(ty: TensorType, values: &[f32], out: &mut Vec<u8>) {
    if ty == TensorType::F16 {
        out.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
    } else {
        out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
}

/// Appends values `start..start + count` of a stored tensor as f32.
pub(crate) fn widen(stored: &Stored, start: usize, count: usize, out: &mut Vec<f32>) {
    let size = stored.dtype.size();
    let bytes = &stored.bytes()[start * size..(start + count) * size];
    match stored.dtype {
        Dtype::F64 => out.extend(chunks(bytes).map(|b| f64::from_le_bytes(b) as f32)),
        Dtype::F32 => out.extend(chunks(bytes).map(f32::from_le_bytes)),
        Dtype::F16 => out.extend(chunks(bytes).map(|b| f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => out.extend(chunks(bytes).map(|b| bf16::from_le_bytes(b).to_f32())),
        Dtype::F8E4M3 => out.extend(bytes.iter().map(|&b| f8_e4m3(b))),
        Dtype::F8E5M2 => out.extend(bytes.iter().map(|&b| f8_e5m2(b))),
        Dtype::F8E8M0 => out.extend(bytes.iter().map(|&b| f8_e8m0(b))),
        Dtype::I64 => out.extend(chunks(bytes).map(|b| i64::from_le_bytes(b) as f32)),
        Dtype::I32 => out.extend(chunks(bytes).map(|b| i32::from_le_bytes(b) as f32)),
        Dtype::I16 => out.extend(chunks(bytes).map(|b| f32::from(i16::from_le_bytes(b)))),
        Dtype::I8 => out.extend(bytes.iter().map(|&b| f32::from(b.cast_signed()))),
        Dtype::U64 => out.extend(chunks(bytes).map(|b| u64::from_le_bytes(b) as f32)),
        Dtype::U32 => out.extend(chunks(bytes).map(|b| u32::from_le_bytes(b) as f32)),
        Dtype::U16 => out.extend(chunks(bytes).map(|b| f32::from(u16::from_le_bytes(b)))),
        Dtype::U8 => out.extend(bytes.iter().map(|&b| f32::from(b))),
        Dtype::Bool => out.extend(bytes.iter().map(|&b| f32::from(u8::from(b != 0)))),
    }
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// FP8 with 4 exponent bits (bias 7), no infinities, NaN at all ones (OCP "E4M3FN").
pub(crate) fn f8_e4m3(bits: u8) -> f32 {
    let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 3 & 0xf);
    let mantissa = f32::from(bits & 7);
    let magnitude = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    sign * magnitude
}

/// FP8 with 5 exponent bits: the upper half of an F16.
pub(crate) fn f8_e5m2(bits: u8) -> f32 {
    f16::from_bits(u16::from(bits) << 8).to_f32()
}

/// A power of two: 2^(bits − 127), NaN at all ones.
pub(crate) fn f8_e8m0(bits: u8) -> f32 {
    match bits {
        0xff => f32::NAN,
        0 => f32::from_bits(1 << 22),
        exponent => f32::from_bits(u32::from(exponent) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_floats() {
        assert_eq!(f8_e4m3(0x7e), 448.0);
        assert_eq!(f8_e4m3(0x01), 2f32.powi(-9));
        assert_eq!(f8_e4m3(0xb8), -1.0);
        assert!(f8_e4m3(0xff).is_nan());
        assert_eq!(f8_e5m2(0x3c), 1.0);
        assert_eq!(f8_e8m0(127), 1.0);
        assert_eq!(f8_e8m0(0), 2f32.powi(-127));
    }
}
