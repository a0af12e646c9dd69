//! AVX-512 with VNNI.
//!
//! `vpdpbusd` multiplies 64 unsigned codes with 64 signed activations and adds groups of four to 16
//! lanes. Weights are the unsigned operand, so their offset of 128 is taken away by the
//! activations' sums: from the sum (dot), or by starting the accumulator there, which is free
//! (tile).
//!
//! The tile kernel keeps 32 rows x 6 tokens: two vectors of weights are used six times each, and a
//! broadcast load of four activations twice, so that two products start in every cycle while
//! loads (8 for 12 products) run beside them. 12 accumulators cover the latency of 5 cycles.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::activations::{A32Token, SuperCodes};
use super::super::codes::{Codes, Minima, Scales, Shape, SuperScales, each_super};
use super::super::lanes::{prefetch, transpose_16x16};
use super::super::{BLOCK, PANEL_ROWS, RowSums, SUPER};
use super::panel::{self, Panel};
use super::tiles::{TILE_TOKENS, Tile, Tiles};
use super::{Blocked, Kernels, ROW_TOKENS};

/// The kernels of a type. The CPU must have AVX-512.
pub(super) fn kernels<T: Codes>() -> Kernels {
    Kernels {
        // SAFETY: `super::kernels` asserts that the CPU has AVX-512.
        row: |row, x, out| unsafe { row_of_any_width::<T>(row, x, out) },
        blocked: Some(Blocked {
            // SAFETY: `super::kernels` asserts that the CPU has AVX-512.
            pack: |bytes, row_bytes, panel| unsafe { pack::<T>(bytes, row_bytes, panel) },
            // SAFETY: `super::kernels` asserts that the CPU has AVX-512.
            tile: |panel, tiles, i, strands, sums| unsafe {
                tile_of_any_width::<T::Shape>(panel, tiles, i, strands, sums);
            },
        }),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn row<T: Codes, const N: usize>(bytes: &[u8], x: &[A32Token<'_>], out: &mut [f32]) {
    assert!(x.len() == N && out.len() == N);
    let mut strands = [_mm256_setzero_ps(); N];
    let unpack = |bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales| {
        prefetch(bytes, T::BYTES);
        // SAFETY: this function is compiled for AVX-512.
        unsafe { T::unpack_avx512(bytes, codes, scales) };
    };
    each_super::<T>(bytes, unpack, |s, codes, scales| {
        for t in 0..N {
            let x = &x[t][s];
            strands[t] = add_super::<T::Shape>(halves(codes, x), scales, x, strands[t]);
        }
    });
    for t in 0..N {
        let mut lanes = [0.0f32; 8];
        // SAFETY: eight values are writable.
        unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), strands[t]) };
        out[t] = lanes.iter().sum();
    }
}

/// The sums of every 16 products of a superblock: first halves of the blocks, then second ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn halves(codes: &[u8; SUPER], x: &SuperCodes) -> __m512i {
    let product = |i: usize| {
        // SAFETY: 64 bytes from 64 * i are readable, since i < 4.
        let (w, x) = unsafe {
            (
                _mm512_loadu_si512(codes.as_ptr().add(64 * i).cast()),
                _mm512_loadu_si512(x.codes.as_ptr().add(64 * i).cast()),
            )
        };
        _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, x)
    };
    let add_pairs =
        |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    // Four lanes make 16 values: add them across, as in a transposition.
    let low = add_pairs(product(0), product(1));
    let high = add_pairs(product(2), product(3));
    let all = _mm512_add_epi32(
        _mm512_unpacklo_epi64(low, high),
        _mm512_unpackhi_epi64(low, high),
    );
    // Lane 4 * q + v now holds quarter q of vector v: half q % 2 of block 2 * v + q / 2.
    let order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    let all = _mm512_permutexvar_epi32(order, all);
    // SAFETY: sixteen values are readable.
    let zero = unsafe { _mm512_loadu_si512(x.zero.as_ptr().cast()) };
    _mm512_add_epi32(all, zero)
}

/// Adds eight blocks to the strands; the same operations as in the portable kernel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_super<S: Shape>(
    halves: __m512i,
    weight: &SuperScales,
    x: &SuperCodes,
    mut strands: __m256,
) -> __m256 {
    // SAFETY: the fields hold as many values as are read.
    let (scale, x_scale, half, half_min, x_sum, x_half_sum) = unsafe {
        (
            _mm256_loadu_ps(weight.scale.as_ptr()),
            _mm256_loadu_ps(x.scale.as_ptr()),
            _mm512_loadu_ps(weight.half.as_ptr()),
            _mm512_loadu_ps(weight.min.as_ptr()),
            _mm256_loadu_ps(x.sum.as_ptr()),
            _mm512_loadu_ps(x.half_sum.as_ptr()),
        )
    };
    let upper = |v| _mm512_extractf32x8_ps::<1>(v);
    let lower = |v| _mm512_castps512_ps256(v);
    match S::SCALES {
        Scales::Blocks => {
            let sum = _mm256_add_epi32(
                _mm512_castsi512_si256(halves),
                _mm512_extracti64x4_epi64::<1>(halves),
            );
            let block = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
            strands = _mm256_fmadd_ps(block, x_scale, strands);
        }
        Scales::Halves => {
            let values = _mm512_mul_ps(_mm512_cvtepi32_ps(halves), half);
            strands = _mm256_fmadd_ps(lower(values), x_scale, strands);
            strands = _mm256_fmadd_ps(upper(values), x_scale, strands);
        }
        Scales::Folded => {
            // Integers below 2^24: the sum is exact in any order.
            let values = _mm512_mul_ps(_mm512_cvtepi32_ps(halves), half);
            let sum = _mm256_add_ps(lower(values), upper(values));
            strands = _mm256_fmadd_ps(_mm256_mul_ps(sum, scale), x_scale, strands);
        }
    }
    match S::MINIMA {
        Minima::None => strands,
        Minima::Blocks => _mm256_fmadd_ps(lower(half_min), x_sum, strands),
        Minima::Halves => {
            strands = _mm256_fmadd_ps(lower(half_min), lower(x_half_sum), strands);
            _mm256_fmadd_ps(upper(half_min), upper(x_half_sum), strands)
        }
    }
}

/// Unpacks at most 32 rows and interleaves them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn pack<T: Codes>(bytes: &[u8], row_bytes: usize, panel: &mut Panel) {
    let unpack = |bytes: &[u8], codes: &mut [u8; SUPER], scales: &mut SuperScales| {
        // SAFETY: this function is compiled for AVX-512.
        unsafe { T::unpack_avx512(bytes, codes, scales) };
        if T::Shape::SCALES == Scales::Folded {
            fold(codes, &scales.half);
        }
    };
    panel::pack::<T>(bytes, row_bytes, panel, unpack, |rows, panel, s, upper| {
        interleave(rows, panel, s, upper);
    });
}

/// Multiplies the signed codes of every 16 values with their integer scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn fold(codes: &mut [u8; SUPER], half: &[f32; 16]) {
    // SAFETY: sixteen values are readable.
    let scales = _mm512_cvtps_epi32(unsafe { _mm512_loadu_ps(half.as_ptr()) });
    let scales = _mm512_castsi256_si512(_mm512_cvtepi32_epi16(scales));
    // Words of the block's first half take scale b, those of its second half 8 + b.
    let first = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi16(8));
    let offset = _mm256_set1_epi8(-128);
    for (b, codes) in codes.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        let place = codes.as_mut_ptr().cast();
        let scale = _mm512_add_epi16(first, _mm512_set1_epi16(b as i16));
        let scale = _mm512_permutexvar_epi16(scale, scales);
        // SAFETY: 32 bytes are readable and writable.
        unsafe {
            let codes = _mm256_xor_si256(_mm256_loadu_si256(place), offset);
            let scaled = _mm512_mullo_epi16(_mm512_cvtepi8_epi16(codes), scale);
            let codes = _mm256_xor_si256(_mm512_cvtepi16_epi8(scaled), offset);
            _mm256_storeu_si256(place, codes);
        }
    }
}

/// Writes superblock `s` of the lower or upper 16 rows to a panel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn interleave(rows: &[[u8; SUPER]; 16], panel: &mut Panel, s: usize, upper: usize) {
    for quarter in 0..4 {
        let mut lines = [_mm512_setzero_si512(); 16];
        for (line, row) in lines.iter_mut().zip(rows) {
            let start = row[64 * quarter..][..64].as_ptr();
            // SAFETY: 64 bytes are readable.
            *line = unsafe { _mm512_loadu_si512(start.cast()) };
        }
        transpose_16x16(&mut lines);
        for g in 0..16 {
            let block = (2 * quarter + g / 8) * panel.supers + s;
            let place = &mut panel.codes[block][g % 8 * 2 + upper];
            // SAFETY: the place is a line of 64 bytes.
            unsafe { _mm512_storeu_si512(place.0.as_mut_ptr().cast(), lines[g]) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn tile_of_any_width<S: Shape>(
    panel: &Panel,
    tiles: &Tiles,
    i: usize,
    strands: Range<usize>,
    sums: &mut [RowSums],
) {
    let x = tiles.tile(i);
    match x.tokens {
        1 => tile::<S, 1>(panel, x, strands, sums),
        2 => tile::<S, 2>(panel, x, strands, sums),
        3 => tile::<S, 3>(panel, x, strands, sums),
        4 => tile::<S, 4>(panel, x, strands, sums),
        5 => tile::<S, 5>(panel, x, strands, sums),
        n => {
            assert_eq!(n, TILE_TOKENS);
            tile::<S, TILE_TOKENS>(panel, x, strands, sums);
        }
    }
}

/// Adds some strands of the products of 32 rows and `N` tokens to their sums.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn tile<S: Shape, const N: usize>(
    panel: &Panel,
    x: &Tile,
    strands: Range<usize>,
    sums: &mut [RowSums],
) {
    let supers = panel.supers;
    let blocks = strands.start * supers..strands.end * supers;
    // Everything below indexes these with blocks of the range, and tokens below N.
    assert!(x.tokens == N && sums.len() == N && strands.end <= 8);
    assert!(panel.codes.len() >= blocks.end && x.codes.len() >= blocks.end * 8 * N);
    assert!(panel.scales.len() >= blocks.end * panel::scales::<S>());
    assert!(panel.minima.len() >= blocks.end * panel::minima::<S>());
    assert!(x.zero.len() >= blocks.end * N && x.half_zero.len() >= blocks.end * 2 * N);
    assert!(x.scale.len() >= blocks.end * N);
    assert!(x.sum.len() >= blocks.end * N && x.half_sum.len() >= blocks.end * 2 * N);

    for strand in strands {
        let mut acc = [[_mm512_setzero_ps(); N]; 2];
        let mut dots = [[_mm512_setzero_si512(); N]; 2];
        for block in strand * supers..(strand + 1) * supers {
            // SAFETY: all places are inside the slices checked above.
            unsafe {
                let codes: *const __m512i = panel.codes.as_ptr().add(block).cast();
                let x_codes: *const i32 = x.codes.as_ptr().add(block * 8 * N).cast();
                let x_scale = x.scale.as_ptr().add(block * N);
                if let Scales::Halves = S::SCALES {
                    for half in 0..2 {
                        let zero = x.half_zero.as_ptr().add((2 * block + half) * N);
                        let x_codes = x_codes.add(4 * half * N);
                        products::<N, 4>(codes.add(8 * half), x_codes, zero, &mut dots);
                        let scale = panel.scales.as_ptr().add(2 * block + half).cast();
                        add_scaled(&mut acc, &dots, scale, x_scale);
                    }
                } else {
                    let zero = x.zero.as_ptr().add(block * N);
                    products::<N, 8>(codes, x_codes, zero, &mut dots);
                    let scale = panel.scales.as_ptr().add(block).cast();
                    add_scaled(&mut acc, &dots, scale, x_scale);
                }
                for half in 0..panel::minima::<S>() {
                    let at = block * panel::minima::<S>() + half;
                    let minimum: *const __m512 = panel.minima.as_ptr().add(at).cast();
                    let x_sum = match S::MINIMA {
                        Minima::Halves => x.half_sum.as_ptr().add(at * N),
                        _ => x.sum.as_ptr().add(at * N),
                    };
                    for t in 0..N {
                        let x = _mm512_set1_ps(*x_sum.add(t));
                        for v in 0..2 {
                            acc[v][t] = _mm512_fmadd_ps(*minimum.add(v), x, acc[v][t]);
                        }
                    }
                }
            }
        }
        for t in 0..N {
            for v in 0..2 {
                let sum = sums[t][16 * v..][..16].as_mut_ptr();
                // SAFETY: sixteen values are readable and writable.
                unsafe { _mm512_storeu_ps(sum, _mm512_add_ps(_mm512_loadu_ps(sum), acc[v][t])) };
            }
        }
    }
}

/// Integer products of 32 rows and `N` tokens over `G` groups of four values.
///
/// # Safety
/// `2 * G` vectors, `G * N` groups of activations and `N` start values must be readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn products<const N: usize, const G: usize>(
    codes: *const __m512i,
    x: *const i32,
    zero: *const i32,
    dots: &mut [[__m512i; N]; 2],
) {
    // SAFETY: the caller's promise.
    unsafe {
        for t in 0..N {
            dots[0][t] = _mm512_set1_epi32(*zero.add(t));
            dots[1][t] = dots[0][t];
        }
        for g in 0..G {
            let (w0, w1) = (*codes.add(2 * g), *codes.add(2 * g + 1));
            for t in 0..N {
                let x = _mm512_set1_epi32(*x.add(g * N + t));
                dots[0][t] = _mm512_dpbusd_epi32(dots[0][t], w0, x);
                dots[1][t] = _mm512_dpbusd_epi32(dots[1][t], w1, x);
            }
        }
    }
}

/// Adds integer products, scaled for rows and tokens.
///
/// # Safety
/// Two vectors of row scales and `N` token scales must be readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn add_scaled<const N: usize>(
    acc: &mut [[__m512; N]; 2],
    dots: &[[__m512i; N]; 2],
    scale: *const __m512,
    x_scale: *const f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        for t in 0..N {
            let x = _mm512_set1_ps(*x_scale.add(t));
            for v in 0..2 {
                let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[v][t]), *scale.add(v));
                acc[v][t] = _mm512_fmadd_ps(scaled, x, acc[v][t]);
            }
        }
    }
}

const _: () = assert!(PANEL_ROWS == 32);
