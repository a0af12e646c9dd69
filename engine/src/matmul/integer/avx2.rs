//! AVX2 without VNNI.
//!
//! `vpmaddubsw` multiplies unsigned and signed bytes and adds pairs with saturation to 16 bits, so
//! that full-range unsigned codes would overflow. Two ways around:
//!
//! - Most types have few codes. Counted from the least one they are small and unsigned; 16 bits hold
//!   the sum of up to eight pairs ([`pairs`]), and what the offset takes away is put back by the
//!   activations' sums, from which the accumulator starts.
//! - For the others the sign of a weight is moved to the activation: |w| <= 128 times |x| <= 127, twice,
//!   is 32512.
//!
//! The tile kernel keeps 8 rows x 6 tokens; it reads the same tiles as AVX-512, and panels of the
//! same form.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::activations::{A32Token, SuperCodes};
use super::super::codes::{Codes, Cpu, Minima, Scales, Shape, SuperScales, each_super};
use super::super::lanes::{prefetch, transpose_8x8};
use super::super::{BLOCK, PANEL_ROWS, RowSums, SUPER};
use super::panel::{self, Panel};
use super::tiles::{TILE_TOKENS, Tile, Tiles};
use super::{Blocked, Kernels, ROW_TOKENS};

/// The kernels of a type. The CPU must have AVX2.
pub(super) fn kernels<T: Codes>() -> Kernels {
    Kernels {
        // SAFETY: `super::kernels` asserts that the CPU has AVX2, FMA and F16C.
        row: |row, x, out| unsafe { row_of_any_width::<T>(row, x, out) },
        blocked: Some(Blocked {
            // SAFETY: `super::kernels` asserts that the CPU has AVX2, FMA and F16C.
            pack: |bytes, row_bytes, panel| unsafe { pack::<T>(bytes, row_bytes, panel) },
            // SAFETY: `super::kernels` asserts that the CPU has AVX2, FMA and F16C.
            tile: |panel, tiles, i, strands, sums| unsafe {
                tile::<T>(panel, tiles, i, strands, sums);
            },
        }),
    }
}

/// Exists only in functions that are compiled for AVX2.
#[derive(Clone, Copy)]
struct Avx2(());

impl Cpu for Avx2 {
    #[inline(always)]
    fn half(self, bytes: &[u8]) -> f32 {
        let bits = i32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        // SAFETY: the CPU has F16C, which `self` proves.
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))) }
    }

    #[inline(always)]
    fn look_up(self, bytes: &[u8], codes: &mut [u8], table: &[u8; 16]) {
        let mut padded = [0; 16];
        padded[..bytes.len()].copy_from_slice(bytes);
        let (low, high) = codes.split_at_mut(bytes.len());
        let (mut low_values, mut high_values) = ([0; 16], [0; 16]);
        // SAFETY: the CPU has AVX2, which `self` proves; 16 bytes are readable and writable.
        unsafe {
            let (bytes, table) = (
                _mm_loadu_si128(padded.as_ptr().cast()),
                _mm_loadu_si128(table.as_ptr().cast()),
            );
            let nibble = _mm_set1_epi8(15);
            let values = |nibbles| _mm_shuffle_epi8(table, _mm_and_si128(nibbles, nibble));
            _mm_storeu_si128(low_values.as_mut_ptr().cast(), values(bytes));
            let bytes = _mm_srli_epi16::<4>(bytes);
            _mm_storeu_si128(high_values.as_mut_ptr().cast(), values(bytes));
        }
        low.copy_from_slice(&low_values[..low.len()]);
        high[..low.len()].copy_from_slice(&high_values[..low.len()]);
    }
}

/// Products of pairs that 16 bits hold the sum of, if codes count from the least one; 0 if they do
/// not hold even one.
const fn pairs<T: Codes>() -> usize {
    let [least, greatest] = T::RANGE;
    match i16::MAX as i32 / (2 * 127 * (greatest - least)) {
        0 => 0,
        1 => 1,
        2..=3 => 2,
        4..=7 => 4,
        _ => 8,
    }
}

/// What kernels take away from a code: they count from the least one, or if [`pairs`] is 0 from zero.
const fn zero<T: Codes>() -> i8 {
    let zero = if pairs::<T>() == 0 { 0 } else { T::RANGE[0] };
    (zero + 128) as i8
}

#[target_feature(enable = "avx2,fma,f16c")]
fn pack<T: Codes>(bytes: &[u8], row_bytes: usize, panel: &mut Panel) {
    let zero = _mm256_set1_epi8(zero::<T>());
    let interleave = |rows: &[[u8; SUPER]; 16], panel: &mut Panel, s: usize, upper: usize| {
        for b in 0..8 {
            let lines = &mut panel.codes[b * panel.supers + s];
            for (octet, rows) in rows.as_chunks::<8>().0.iter().enumerate() {
                let mut groups = [_mm256_setzero_si256(); 8];
                for (group, row) in groups.iter_mut().zip(rows) {
                    // SAFETY: 32 bytes from 32 * b are readable, since b < 8.
                    let codes = unsafe { _mm256_loadu_si256(row.as_ptr().add(BLOCK * b).cast()) };
                    *group = _mm256_sub_epi8(codes, zero);
                }
                transpose_8x8(&mut groups);
                for (g, group) in groups.iter().enumerate() {
                    let place = &mut lines[2 * g + upper].0[BLOCK * octet..][..BLOCK];
                    // SAFETY: 32 bytes are writable.
                    unsafe { _mm256_storeu_si256(place.as_mut_ptr().cast(), *group) };
                }
            }
        }
    };
    let unpack = |bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales| {
        T::unpack(bytes, codes, scales, Avx2(()));
        if T::Shape::SCALES == Scales::Folded {
            fold(codes, &scales.half);
        }
    };
    panel::pack::<T>(bytes, row_bytes, panel, unpack, interleave);
}

/// Multiplies the signed codes of every 16 values with their integer scale.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fold(codes: &mut [u8; SUPER], half: &[f32; 16]) {
    let offset = _mm256_set1_epi8(-128);
    for (b, codes) in codes.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let place = codes.as_mut_ptr().cast();
        // SAFETY: 32 bytes are readable.
        let codes = _mm256_xor_si256(unsafe { _mm256_loadu_si256(place) }, offset);
        let scaled = |half: __m128i, scale: f32| {
            let scale = _mm_cvttss_si32(_mm_set_ss(scale));
            _mm256_mullo_epi16(_mm256_cvtepi8_epi16(half), _mm256_set1_epi16(scale as i16))
        };
        let first = scaled(_mm256_castsi256_si128(codes), half[b]);
        let second = scaled(_mm256_extracti128_si256::<1>(codes), half[8 + b]);
        // Packing takes halves of both in turn.
        let codes = _mm256_permute4x64_epi64::<0xD8>(_mm256_packs_epi16(first, second));
        // SAFETY: 32 bytes are writable.
        unsafe { _mm256_storeu_si256(place, _mm256_xor_si256(codes, offset)) };
    }
}

/// Sums of four products: 32 codes, counted as [`zero`] says, and 32 activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn quads<T: Codes>(codes: __m256i, x: __m256i) -> __m256i {
    let w = _mm256_sub_epi8(codes, _mm256_set1_epi8(zero::<T>()));
    let pairs = if pairs::<T>() > 0 {
        _mm256_maddubs_epi16(w, x)
    } else {
        _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
    };
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn row_of_any_width<T: Codes>(bytes: &[u8], x: &[A32Token<'_>], out: &mut [f32]) {
    match x.len() {
        1 => row::<T, 1>(bytes, x, out),
        2 => row::<T, 2>(bytes, x, out),
        3 => row::<T, 3>(bytes, x, out),
        n => {
            assert_eq!(n, ROW_TOKENS);
            row::<T, ROW_TOKENS>(bytes, x, out);
        }
    }
}

/// The products of a stored row and `N` tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn row<T: Codes, const N: usize>(bytes: &[u8], x: &[A32Token<'_>], out: &mut [f32]) {
    assert!(x.len() == N && out.len() == N);
    let mut strands = [_mm256_setzero_ps(); N];
    let unpack = |bytes: &[u8], c: &mut _, s: &mut _| {
        prefetch(bytes, T::BYTES);
        T::unpack(bytes, c, s, Avx2(()));
    };
    each_super::<T>(bytes, unpack, |s, codes, scales| {
        for t in 0..N {
            let x = &x[t][s];
            let (first, second) = halves::<T>(codes, x);
            strands[t] = add_super::<T::Shape>(first, second, scales, x, strands[t]);
        }
    });
    for t in 0..N {
        let mut lanes = [0.0f32; 8];
        // SAFETY: eight values are writable.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), strands[t]) };
        out[t] = lanes.iter().sum();
    }
}

/// The sums of every 16 products of a superblock: those of the blocks' first halves, and of their
/// second halves.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn halves<T: Codes>(codes: &[u8; SUPER], x: &SuperCodes) -> (__m256i, __m256i) {
    let block = |b: usize| {
        // SAFETY: 32 bytes from 32 * b are readable, since b < 8.
        unsafe {
            quads::<T>(
                _mm256_loadu_si256(codes.as_ptr().add(BLOCK * b).cast()),
                _mm256_loadu_si256(x.codes.as_ptr().add(BLOCK * b).cast()),
            )
        }
    };
    // The lower lanes of a block's vector are of its first half, the upper ones of its second.
    let four = |b: usize| {
        let (low, high) = (
            _mm256_hadd_epi32(block(b), block(b + 1)),
            _mm256_hadd_epi32(block(b + 2), block(b + 3)),
        );
        _mm256_hadd_epi32(low, high)
    };
    let (low, high) = (four(0), four(4));
    let first = _mm256_permute2x128_si256::<0x20>(low, high);
    let second = _mm256_permute2x128_si256::<0x31>(low, high);
    if pairs::<T>() == 0 || T::RANGE[0] == 0 {
        return (first, second);
    }
    let correct = |sums: __m256i, zero: &[i32]| {
        // SAFETY: eight values are readable.
        let zero = unsafe { _mm256_loadu_si256(zero[..8].as_ptr().cast()) };
        let least = _mm256_set1_epi32(-T::RANGE[0]);
        _mm256_add_epi32(
            sums,
            _mm256_mullo_epi32(_mm256_srai_epi32::<7>(zero), least),
        )
    };
    (correct(first, &x.zero), correct(second, &x.zero[8..]))
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(values: &[f32]) -> __m256 {
    // SAFETY: eight values are readable.
    unsafe { _mm256_loadu_ps(values[..8].as_ptr()) }
}

/// Adds eight blocks to the strands; the same operations as in the portable kernel.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_super<S: Shape>(
    first: __m256i,
    second: __m256i,
    weight: &SuperScales,
    x: &SuperCodes,
    mut strands: __m256,
) -> __m256 {
    let x_scale = load(&x.scale);
    if let Scales::Blocks = S::SCALES {
        let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(first, second));
        strands = _mm256_fmadd_ps(_mm256_mul_ps(sum, load(&weight.scale)), x_scale, strands);
    } else {
        let first = _mm256_mul_ps(_mm256_cvtepi32_ps(first), load(&weight.half));
        let second = _mm256_mul_ps(_mm256_cvtepi32_ps(second), load(&weight.half[8..]));
        if let Scales::Halves = S::SCALES {
            strands = _mm256_fmadd_ps(first, x_scale, strands);
            strands = _mm256_fmadd_ps(second, x_scale, strands);
        } else {
            // Integers below 2^24: the sum is exact in any order.
            let block = _mm256_mul_ps(_mm256_add_ps(first, second), load(&weight.scale));
            strands = _mm256_fmadd_ps(block, x_scale, strands);
        }
    }
    match S::MINIMA {
        Minima::None => strands,
        Minima::Blocks => _mm256_fmadd_ps(load(&weight.min), load(&x.sum), strands),
        Minima::Halves => {
            strands = _mm256_fmadd_ps(load(&weight.min), load(&x.half_sum), strands);
            _mm256_fmadd_ps(load(&weight.min[8..]), load(&x.half_sum[8..]), strands)
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn tile<T: Codes>(
    panel: &Panel,
    tiles: &Tiles,
    i: usize,
    strands: Range<usize>,
    sums: &mut [RowSums],
) {
    let x = tiles.tile(i);
    for row in (0..PANEL_ROWS).step_by(8) {
        let strands = strands.clone();
        match x.tokens {
            1 => part::<T, 1>(panel, x, row, strands, sums),
            2 => part::<T, 2>(panel, x, row, strands, sums),
            3 => part::<T, 3>(panel, x, row, strands, sums),
            4 => part::<T, 4>(panel, x, row, strands, sums),
            5 => part::<T, 5>(panel, x, row, strands, sums),
            n => {
                assert_eq!(n, TILE_TOKENS);
                part::<T, TILE_TOKENS>(panel, x, row, strands, sums);
            }
        }
    }
}

/// Adds some strands of the products of 8 rows and `N` tokens to their sums.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn part<T: Codes, const N: usize>(
    panel: &Panel,
    x: &Tile,
    row: usize,
    strands: Range<usize>,
    sums: &mut [RowSums],
) {
    let (parts, minima) = (panel::scales::<T::Shape>(), panel::minima::<T::Shape>());
    let blocks = panel.supers * strands.end;
    assert!(x.tokens == N && sums.len() == N && row <= PANEL_ROWS - 8);
    assert!(panel.codes.len() >= blocks && x.codes.len() >= blocks * 8 * N);
    for strand in strands {
        let mut acc = [_mm256_setzero_ps(); N];
        for block in strand * panel.supers..(strand + 1) * panel.supers {
            for part in 0..parts {
                let at = block * parts + part;
                let zero = match parts {
                    1 => &x.zero[at * N..][..N],
                    _ => &x.half_zero[at * N..][..N],
                };
                let mut dots = [_mm256_setzero_si256(); N];
                if pairs::<T>() > 0 {
                    for t in 0..N {
                        dots[t] = _mm256_set1_epi32(zero[t] / 128 * -T::RANGE[0]);
                    }
                }
                // SAFETY: the vectors hold as many blocks, as asserted, and `row` is below 25.
                unsafe {
                    let group = part * 8 / parts;
                    let lines: *const u8 = panel.codes.as_ptr().add(block).cast();
                    let codes = lines.add(128 * group + row / 16 * 64 + row % 16 * 4);
                    let x: *const i32 = x.codes.as_ptr().add((block * 8 + group) * N).cast();
                    if parts == 1 {
                        products::<T, N, 8>(codes, x, &mut dots);
                    } else {
                        products::<T, N, 4>(codes, x, &mut dots);
                    }
                }
                let scale = load(&panel.scales[at][row / 16].0[row % 16..]);
                let x_scale = &x.scale[block * N..][..N];
                for t in 0..N {
                    let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[t]), scale);
                    acc[t] = _mm256_fmadd_ps(scaled, _mm256_set1_ps(x_scale[t]), acc[t]);
                }
            }
            for part in 0..minima {
                let at = block * minima + part;
                let minimum = load(&panel.minima[at][row / 16].0[row % 16..]);
                let x_sum = match <T::Shape as Shape>::MINIMA {
                    Minima::Halves => &x.half_sum[at * N..][..N],
                    _ => &x.sum[at * N..][..N],
                };
                for t in 0..N {
                    acc[t] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(x_sum[t]), acc[t]);
                }
            }
        }
        for t in 0..N {
            let sum = &mut sums[t][row..][..8];
            // SAFETY: eight values are writable.
            unsafe { _mm256_storeu_ps(sum.as_mut_ptr(), _mm256_add_ps(load(sum), acc[t])) };
        }
    }
}

/// Adds integer products of 8 rows and `N` tokens over `G` groups of four values.
///
/// # Safety
/// From `codes`, 32 bytes in each of `G` pairs of lines must be readable, and `G * N` groups of
/// activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn products<T: Codes, const N: usize, const G: usize>(
    codes: *const u8,
    x: *const i32,
    dots: &mut [__m256i; N],
) {
    let ones = _mm256_set1_epi16(1);
    // SAFETY: the caller's promise.
    let codes = |g: usize| unsafe { _mm256_loadu_si256(codes.add(128 * g).cast()) };
    // SAFETY: the caller's promise.
    let x = |g: usize, t: usize| unsafe { _mm256_set1_epi32(*x.add(g * N + t)) };
    if pairs::<T>() == 0 {
        for g in 0..G {
            let w = codes(g);
            let magnitude = _mm256_abs_epi8(w);
            for t in 0..N {
                let pair = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x(g, t), w));
                dots[t] = _mm256_add_epi32(dots[t], _mm256_madd_epi16(pair, ones));
            }
        }
    } else {
        let step = pairs::<T>().min(G);
        for first in (0..G).step_by(step) {
            let mut sums = [_mm256_setzero_si256(); N];
            for g in first..first + step {
                let w = codes(g);
                for t in 0..N {
                    sums[t] = _mm256_add_epi16(sums[t], _mm256_maddubs_epi16(w, x(g, t)));
                }
            }
            for t in 0..N {
                dots[t] = _mm256_add_epi32(dots[t], _mm256_madd_epi16(sums[t], ones));
            }
        }
    }
}
