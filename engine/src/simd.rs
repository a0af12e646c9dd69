//! Vectors of f32, and loops compiled for the instruction set that is used.

use gristmill_quantize::Isa;
use gristmill_quantize::half::f16_to_f32;
use half::f16;

/// Proof that an instruction set may be used; makes its vectors.
pub(crate) trait Simd: Copy {
    /// Some f32 side by side.
    type F: Copy;
    /// How many.
    const LANES: usize;
    /// Whether a fused multiply-add is one instruction.
    const FUSED: bool;

    /// The same value in all lanes.
    fn splat(self, value: f32) -> Self::F;
    /// The first [`Self::LANES`] values.
    fn load(self, values: &[f32]) -> Self::F;
    /// The first [`Self::LANES`] values, made wider.
    fn widen(self, values: &[f16]) -> Self::F;
    /// Writes the first [`Self::LANES`] values.
    fn store(self, vector: Self::F, values: &mut [f32]);
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, fused where that is one instruction.
    fn multiply_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
}

/// Loops over a set's vectors, or loops that the compiler vectorises for it. `run` must be
/// `#[inline(always)]`, and so must all it calls in its inner loops: only inlined code is compiled
/// for the set.
pub(crate) trait Loops {
    /// Runs them. `WIDE` is how many vectors a tile of the innermost loop should hold side by side.
    fn run<S: Simd, const WIDE: usize>(self, simd: S);
}

/// `a · b + c`, fused where that is one instruction.
#[inline(always)]
pub(crate) fn multiply_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Runs `loops` compiled for `isa`; on the portable set if this CPU lacks it.
pub(crate) fn dispatch<L: Loops>(isa: Isa, loops: L) {
    #[cfg(target_arch = "x86_64")]
    if isa.is_available() {
        match isa {
            Isa::Portable => {}
            // SAFETY: the CPU has every feature of the set, checked just above.
            Isa::Avx2 => return unsafe { x86::avx2(loops) },
            // SAFETY: the CPU has every feature of the set, checked just above.
            Isa::Avx512 => return unsafe { x86::avx512(loops) },
        }
    }
    loops.run::<_, 4>(Portable);
}

#[derive(Clone, Copy)]
struct Portable;

impl Simd for Portable {
    type F = [f32; 4];
    const LANES: usize = 4;
    const FUSED: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; 4] {
        [value; 4]
    }

    #[inline(always)]
    fn load(self, values: &[f32]) -> [f32; 4] {
        [values[0], values[1], values[2], values[3]]
    }

    #[inline(always)]
    fn widen(self, values: &[f16]) -> [f32; 4] {
        let value = |i: usize| f16_to_f32(values[i].to_bits());
        [value(0), value(1), value(2), value(3)]
    }

    #[inline(always)]
    fn store(self, vector: [f32; 4], values: &mut [f32]) {
        values[..4].copy_from_slice(&vector);
    }

    #[inline(always)]
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    }

    #[inline(always)]
    fn multiply_add(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        let value = |i: usize| a[i] * b[i] + c[i];
        [value(0), value(1), value(2), value(3)]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::{Loops, Simd};

    /// Exists only inside [`avx2`].
    #[derive(Clone, Copy)]
    struct Avx2(());

    /// Exists only inside [`avx512`].
    #[derive(Clone, Copy)]
    struct Avx512(());

    /// # Safety
    /// The CPU must have the features.
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) unsafe fn avx2<L: Loops>(loops: L) {
        loops.run::<_, 2>(Avx2(()));
    }

    /// # Safety
    /// The CPU must have the features.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) unsafe fn avx512<L: Loops>(loops: L) {
        loops.run::<_, 2>(Avx512(()));
    }

    impl Simd for Avx2 {
        type F = __m256;
        const LANES: usize = 8;
        const FUSED: bool = true;

        #[inline(always)]
        fn splat(self, value: f32) -> __m256 {
            // SAFETY: a value of this type proves that the CPU has AVX2.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        fn load(self, values: &[f32]) -> __m256 {
            // SAFETY: as in `splat`; eight values are readable.
            unsafe { _mm256_loadu_ps(values[..8].as_ptr()) }
        }

        #[inline(always)]
        fn widen(self, values: &[f16]) -> __m256 {
            // SAFETY: as in `splat`, with F16C; eight values are readable.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(values[..8].as_ptr().cast())) }
        }

        #[inline(always)]
        fn store(self, vector: __m256, values: &mut [f32]) {
            // SAFETY: as in `splat`; eight values are writable.
            unsafe { _mm256_storeu_ps(values[..8].as_mut_ptr(), vector) };
        }

        #[inline(always)]
        fn add(self, a: __m256, b: __m256) -> __m256 {
            // SAFETY: as in `splat`.
            unsafe { _mm256_add_ps(a, b) }
        }

        #[inline(always)]
        fn multiply_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: as in `splat`, with FMA.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
    }

    impl Simd for Avx512 {
        type F = __m512;
        const LANES: usize = 16;
        const FUSED: bool = true;

        #[inline(always)]
        fn splat(self, value: f32) -> __m512 {
            // SAFETY: a value of this type proves that the CPU has AVX-512.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        fn load(self, values: &[f32]) -> __m512 {
            // SAFETY: as in `splat`; sixteen values are readable.
            unsafe { _mm512_loadu_ps(values[..16].as_ptr()) }
        }

        #[inline(always)]
        fn widen(self, values: &[f16]) -> __m512 {
            // SAFETY: as in `splat`; sixteen values are readable.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(values[..16].as_ptr().cast())) }
        }

        #[inline(always)]
        fn store(self, vector: __m512, values: &mut [f32]) {
            // SAFETY: as in `splat`; sixteen values are writable.
            unsafe { _mm512_storeu_ps(values[..16].as_mut_ptr(), vector) };
        }

        #[inline(always)]
        fn add(self, a: __m512, b: __m512) -> __m512 {
            // SAFETY: as in `splat`.
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn multiply_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: as in `splat`.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
    }
}
