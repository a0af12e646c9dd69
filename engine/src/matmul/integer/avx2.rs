//! AVX2 without VNNI.
//!
//! `vpmaddubsw` multiplies unsigned and signed bytes and adds pairs with saturation to 16 bits, so
//! that full-range unsigned codes would overflow. The sign of a weight is therefore moved to the
//! activation: |w| <= 128 times |x| <= 127, twice, is 32512. The sums are those of the signed codes,
//! and need no correction for an offset.
//!
//! The tile kernel keeps 8 rows x 6 tokens; it reads the same panels and tiles as AVX-512.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::activations::{A32Token, SuperCodes};
use super::super::codes::{Codes, Minima, Scales, Shape, SuperScales, each_super};
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
                tile::<T::Shape>(panel, tiles, i, strands, sums);
            },
        }),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn pack<T: Codes>(bytes: &[u8], row_bytes: usize, panel: &mut Panel) {
    panel::pack::<T>(bytes, row_bytes, panel, T::unpack, panel::interleave);
}

/// Sums of four products: 32 signed weights, given as codes, and 32 activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn products(codes: __m256i, x: __m256i) -> __m256i {
    let w = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
    let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
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
    each_super::<T>(bytes, T::unpack, |s, codes, scales| {
        for t in 0..N {
            let x = &x[t][s];
            let (first, second) = halves(codes, x);
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
fn halves(codes: &[u8; SUPER], x: &SuperCodes) -> (__m256i, __m256i) {
    let quads = |b: usize| {
        // SAFETY: 32 bytes from 32 * b are readable, since b < 8.
        unsafe {
            products(
                _mm256_loadu_si256(codes.as_ptr().add(BLOCK * b).cast()),
                _mm256_loadu_si256(x.codes.as_ptr().add(BLOCK * b).cast()),
            )
        }
    };
    // The lower lanes of a block's vector are of its first half, the upper ones of its second.
    let four = |b: usize| {
        let (low, high) = (
            _mm256_hadd_epi32(quads(b), quads(b + 1)),
            _mm256_hadd_epi32(quads(b + 2), quads(b + 3)),
        );
        _mm256_hadd_epi32(low, high)
    };
    let (low, high) = (four(0), four(4));
    (
        _mm256_permute2x128_si256::<0x20>(low, high),
        _mm256_permute2x128_si256::<0x31>(low, high),
    )
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
fn tile<S: Shape>(
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
            1 => part::<S, 1>(panel, x, row, strands, sums),
            2 => part::<S, 2>(panel, x, row, strands, sums),
            3 => part::<S, 3>(panel, x, row, strands, sums),
            4 => part::<S, 4>(panel, x, row, strands, sums),
            5 => part::<S, 5>(panel, x, row, strands, sums),
            n => {
                assert_eq!(n, TILE_TOKENS);
                part::<S, TILE_TOKENS>(panel, x, row, strands, sums);
            }
        }
    }
}

/// Adds some strands of the products of 8 rows and `N` tokens to their sums.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
fn part<S: Shape, const N: usize>(
    panel: &Panel,
    x: &Tile,
    row: usize,
    strands: Range<usize>,
    sums: &mut [RowSums],
) {
    assert!(x.tokens == N && sums.len() == N);
    for strand in strands {
        let mut acc = [_mm256_setzero_ps(); N];
        for block in strand * panel.supers..(strand + 1) * panel.supers {
            let parts = panel::scales::<S>();
            let groups = 8 / parts;
            for part in 0..parts {
                let mut dots = [_mm256_setzero_si256(); N];
                for g in part * groups..(part + 1) * groups {
                    let line = &panel.codes[block][2 * g + row / 16].0[row % 16 * 4..][..32];
                    // SAFETY: 32 bytes are readable.
                    let codes = unsafe { _mm256_loadu_si256(line.as_ptr().cast()) };
                    let x = &x.codes[(block * 8 + g) * N..][..N];
                    for t in 0..N {
                        let x = _mm256_set1_epi32(i32::from_ne_bytes(x[t].map(|x| x as u8)));
                        dots[t] = _mm256_add_epi32(dots[t], products(codes, x));
                    }
                }
                let scale = &panel.scales[block * parts + part][row / 16].0[row % 16..];
                let x_scale = &x.scale[block * N..][..N];
                for t in 0..N {
                    let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[t]), load(scale));
                    acc[t] = _mm256_fmadd_ps(scaled, _mm256_set1_ps(x_scale[t]), acc[t]);
                }
            }
            let parts = panel::minima::<S>();
            for part in 0..parts {
                let at = block * parts + part;
                let minimum = load(&panel.minima[at][row / 16].0[row % 16..]);
                let x_sum = match S::MINIMA {
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
