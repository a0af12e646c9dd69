//! Weights of 32 rows, interleaved for the panel kernels.

use super::super::SUPER;
use super::super::codes::{Codes, Minima, Scales, Shape, SuperScales, Unpack, unpack_some};
use bytemuck::{Pod, Zeroable};

/// A cache line of codes: four of each of 16 rows.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct CodeLine(pub [u8; 64]);

/// A cache line of scales, of 16 rows.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct FloatLine(pub [f32; 16]);

/// The codes and scales of 32 rows, strand by strand: a buffer that panels are packed to in turn.
#[derive(Debug, Default)]
pub(in super::super) struct Panel {
    pub(super) supers: usize,
    /// For each block 8 groups of four values; of each the lower and the upper 16 rows.
    pub(super) codes: Vec<[CodeLine; 16]>,
    /// For each block one scale ([`Scales::Halves`]: two); of each the lower and the upper 16 rows.
    pub(super) scales: Vec<[FloatLine; 2]>,
    /// For each block no minimum, one, or two.
    pub(super) minima: Vec<[FloatLine; 2]>,
}

/// Scales of a panel's block.
pub(super) const fn scales<S: Shape>() -> usize {
    match S::SCALES {
        Scales::Blocks | Scales::Folded => 1,
        Scales::Halves => 2,
    }
}

/// Minima of a panel's block.
pub(super) const fn minima<S: Shape>() -> usize {
    match S::MINIMA {
        Minima::None => 0,
        Minima::Blocks => 1,
        Minima::Halves => 2,
    }
}

impl Panel {
    /// Makes the buffer hold rows of `supers` superblocks with scales of shape `S`.
    pub(super) fn resize<S: Shape>(&mut self, supers: usize) {
        let line = FloatLine([0.0; 16]);
        let blocks = supers * 8;
        self.supers = supers;
        self.codes.resize(blocks, [CodeLine([0; 64]); 16]);
        self.scales.resize(blocks * scales::<S>(), [line; 2]);
        self.minima.resize(blocks * minima::<S>(), [line; 2]);
    }
}

/// Unpacks at most 32 rows of `row_bytes` bytes and interleaves them: `interleave` writes a superblock
/// of the lower or upper 16 rows to the panel. Where scales are [`Scales::Folded`], `unpack` multiplies
/// codes with their integer scales.
#[inline(always)]
pub(super) fn pack<T: Codes>(
    bytes: &[u8],
    row_bytes: usize,
    panel: &mut Panel,
    unpack: impl Unpack,
    interleave: impl Fn(&[[u8; SUPER]; 16], &mut Panel, usize, usize),
) {
    let supers = row_bytes.div_ceil(T::BYTES);
    panel.resize::<T::Shape>(supers);
    let (scale_lines, minimum_lines) = (scales::<T::Shape>(), minima::<T::Shape>());
    let mut codes = [[0u8; SUPER]; 16];
    let mut scales = SuperScales::ZERO;
    for upper in 0..2 {
        for s in 0..supers {
            for (r, codes) in codes.iter_mut().enumerate() {
                let start = (16 * upper + r) * row_bytes;
                if start >= bytes.len() {
                    break; // rows that do not exist: any codes will do, nobody reads their sums
                }
                let rest = &bytes[start..start + row_bytes][s * T::BYTES..];
                unpack_some(T::BYTES, rest, codes, &mut scales, &unpack);
                debug_assert!(within::<T>(codes), "codes beyond the range of their type");
                for b in 0..8 {
                    let block = b * supers + s;
                    for part in 0..scale_lines {
                        panel.scales[block * scale_lines + part][upper].0[r] =
                            if T::Shape::SCALES == Scales::Halves {
                                scales.half[8 * part + b]
                            } else {
                                scales.scale[b]
                            };
                    }
                    for part in 0..minimum_lines {
                        panel.minima[block * minimum_lines + part][upper].0[r] =
                            scales.min[8 * part + b];
                    }
                }
            }
            interleave(&codes, panel, s, upper);
        }
    }
}

fn within<T: Codes>(codes: &[u8; SUPER]) -> bool {
    let [least, greatest] = T::RANGE;
    codes
        .iter()
        .all(|&code| (least..=greatest).contains(&(i32::from(code) - 128)))
}
