//! Half-precision conversions exactly as ggml's, written so that loops over them vectorise.

/// The largest finite binary16.
pub const F16_MAX: f32 = 65504.0;

/// IEEE binary16 to binary32: exact, subnormals kept, signalling NaNs made quiet.
#[inline(always)]
pub const fn f16_to_f32(half: u16) -> f32 {
    let magnitude = (half as u32 & 0x7FFF) << 13;
    // Exponent and mantissa in place; a power of two moves the bias and normalises subnormals.
    let value = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
    let special = if magnitude >= 0x0F80_0000 {
        0x7F80_0000
    } else {
        0
    };
    let quiet = if magnitude > 0x0F80_0000 {
        0x0040_0000
    } else {
        0
    };
    f32::from_bits(value | special | quiet | (half as u32 & 0x8000) << 16)
}

/// binary32 to IEEE binary16: round to nearest even, subnormals kept, overflow to infinity, every
/// NaN to 0x7E00 with its sign.
#[inline(always)]
pub const fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    let normal = magnitude
        .wrapping_add(0xC800_0FFF)
        .wrapping_add((magnitude >> 13) & 1)
        >> 13;
    // Adding 0.5 aligns the mantissa to the subnormal's unit; the addition rounds to nearest even.
    let subnormal = (f32::from_bits(magnitude) + 0.5)
        .to_bits()
        .wrapping_sub(0x3F00_0000);
    let finite = if magnitude < 0x3880_0000 {
        subnormal
    } else {
        normal
    };
    let special = if magnitude > 0x7F80_0000 {
        0x7E00
    } else {
        0x7C00
    };
    let half = if magnitude < 0x477F_F000 {
        finite
    } else {
        special
    };
    (half | (bits >> 16) & 0x8000) as u16
}

/// bfloat16 to binary32: exact.
#[inline(always)]
pub const fn bf16_to_f32(half: u16) -> f32 {
    f32::from_bits((half as u32) << 16)
}

/// binary32 to bfloat16: round to nearest even, subnormals kept, NaNs keep their upper half and
/// become quiet.
#[inline(always)]
pub const fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    let nan = bits >> 16 | 0x40;
    (if bits & 0x7FFF_FFFF > 0x7F80_0000 {
        nan
    } else {
        rounded
    }) as u16
}
