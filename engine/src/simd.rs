//! Compiles loops for the instruction set that is used.

use gristmill_quantize::Isa;

/// Loops that the compiler vectorises for whichever set is used. `run` must be
/// `#[inline(always)]`, and so must all it calls in its inner loops: only inlined code is compiled
/// for the set.
pub(crate) trait Loops {
    /// Runs them. `FUSED` says whether a fused multiply-add is one instruction; `WIDE` is how many
    /// f32 a tile of the innermost loop should hold side by side.
    fn run<const FUSED: bool, const WIDE: usize>(self);
}

/// `a · b + c`, fused where that is fast.
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Runs `loops` compiled for `isa`; on the portable set if this CPU lacks it.
pub(crate) fn dispatch<L: Loops>(isa: Isa, loops: L) {
    #[cfg(target_arch = "x86_64")]
    if isa.is_available() {
        match isa {
            Isa::Portable => {}
            // SAFETY: the CPU has every feature of the set, checked just above.
            Isa::Avx2 => return unsafe { avx2(loops) },
            // SAFETY: the CPU has every feature of the set, checked just above.
            Isa::Avx512 => return unsafe { avx512(loops) },
        }
    }
    loops.run::<false, 16>();
}

/// # Safety
/// The CPU must have the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<L: Loops>(loops: L) {
    loops.run::<true, 16>();
}

/// # Safety
/// The CPU must have the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn avx512<L: Loops>(loops: L) {
    loops.run::<true, 32>();
}
