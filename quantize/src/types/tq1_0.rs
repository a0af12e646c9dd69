//! TQ1_0: 256 ternary values in base three, five to a byte, one half-precision scale.

use std::array::from_fn;

use gristmill_gguf::TensorType;

use super::format::f16_at;
use super::packing::part;
use super::ternary::{self, Ternary};
use super::{Effort, Format, ImportanceUse, Rows};
use crate::simd::{Bytes, Float, Simd};

/// Block of 54 bytes: 48 bytes of five digits, four bytes of four digits, scale `d`. Bytes 0..32
/// hold values 0..160 (byte `m`, digit `k`: value `32k + m`), bytes 32..48 values 160..240 (`16k + m`
/// onwards), bytes 48..52 the last 16 (`4k + m` onwards). A byte is the digits' number, first digit
/// most significant, scaled from 3^5 to 256 and rounded up, so that multiplying by three carries the
/// digits out one after the other. `value = (digit - 1) * d`.
pub(crate) struct Tq1_0;

impl Format<54, 256> for Tq1_0 {
    const TYPE: TensorType = TensorType::TQ1_0;
    const IMPORTANCE: ImportanceUse = ImportanceUse::Ignored;

    #[inline(always)]
    fn decode<S: Simd>(simd: S, block: &[u8; 54], out: &mut [f32; 256]) {
        let d = simd.splat(f16_at(block, 52));
        let out = out.as_chunks_mut().0;
        for (group, bytes) in part::<0, 48, _>(block).as_chunks().0.iter().enumerate() {
            let mut bytes = simd.bytes(bytes);
            for k in 0..5 {
                // Two groups of sixteen bytes side by side, then one by itself.
                let place = if group < 2 { 2 * k + group } else { 10 + k };
                (first_digits(simd, bytes) * d).store(&mut out[place]);
                bytes = bytes.triple();
            }
        }
        let last = from_fn(|i| block[48 + i % 4].wrapping_mul(POWERS[i / 4]));
        (first_digits(simd, simd.bytes(&last)) * d).store(&mut out[15]);
    }

    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; 54]]) {
        ternary::encode::<Self, 54>(rows, effort, blocks);
    }
}

/// Powers of three, which bring a digit to the top.
const POWERS: [u8; 4] = [1, 3, 9, 27];

/// The first digits of sixteen bytes, less one: a byte is the fraction of 256 that its digits say.
#[inline(always)]
fn first_digits<S: Simd>(simd: S, bytes: S::B) -> S::F {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let bytes = simd.widen(bytes);
    let digits = zero.select(bytes.lt(simd.splat(256.0 / 3.0)), one);
    digits - one.select(bytes.lt(simd.splat(512.0 / 3.0)), zero)
}

/// First byte, bytes and digits per byte of the three runs of a block.
const RUNS: [(usize, usize, usize); 3] = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];

impl Ternary<54> for Tq1_0 {
    #[inline(always)]
    fn pack(d: u16, digits: &[u8; 256]) -> [u8; 54] {
        let mut block = [0; 54];
        let mut rest = &digits[..];
        for (start, bytes, count) in RUNS {
            let (now, later) = rest.split_at(bytes * count);
            for (m, byte) in block[start..start + bytes].iter_mut().enumerate() {
                // A missing fifth digit is zero, that is code 0.
                let number = (0..5).fold(0, |number, k| {
                    let code = if k < count { now[k * bytes + m] } else { 0 };
                    3 * number + u32::from(code)
                });
                *byte = (number * 256).div_ceil(243) as u8;
            }
            rest = later;
        }
        block[52..].copy_from_slice(&d.to_le_bytes());
        block
    }
}
