//! Products against sums of decoded weights in double precision.

use std::sync::Arc;

use gristmill_gguf::TensorType;
use gristmill_gguf::file::TensorData;
use gristmill_quantize::Isa;
use gristmill_quantize::types::decode_on;

use super::{Activations, Compute, Matrix, is_supported};
use crate::pool::Pool;

/// A small generator, so that cases depend on nothing but their seed.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33 ^ self.0 >> 11
    }

    /// Uniform in -1..1.
    pub(super) fn value(&mut self) -> f32 {
        (self.next() % 20001) as f32 / 10000.0 - 1.0
    }
}

/// Where the f16 scales of a block stand.
fn half_scales(ty: TensorType) -> &'static [usize] {
    use TensorType as T;
    match ty {
        T::Q4_1 | T::Q5_1 | T::Q4_K | T::Q5_K => &[0, 2],
        T::Q2_K => &[80, 82],
        T::Q3_K => &[108],
        T::Q6_K => &[208],
        T::TQ1_0 => &[52],
        T::TQ2_0 => &[64],
        T::F32 | T::F16 | T::BF16 | T::IQ1_M | T::MXFP4 | T::NVFP4 => &[],
        _ => &[0],
    }
}

/// Random bits everywhere but in the scales, which are around 0.01.
pub(super) fn random_matrix(ty: TensorType, rows: usize, cols: usize, seed: u64) -> Matrix {
    let mut random = Random(seed);
    let layout = ty.layout();
    let bytes = ty.row_bytes(cols as u64).expect("whole blocks") as usize * rows;
    let mut data: Vec<u8> = match ty {
        TensorType::F32 => (0..bytes / 4)
            .flat_map(|_| random.value().to_le_bytes())
            .collect(),
        TensorType::F16 | TensorType::BF16 => {
            let bits = |r: &mut Random| 0x3000 | (r.next() & 0x8FFF) as u16;
            (0..bytes / 2)
                .flat_map(|_| bits(&mut random).to_le_bytes())
                .collect()
        }
        _ => (0..bytes).map(|_| random.next() as u8).collect(),
    };
    for block in data.chunks_exact_mut(layout.bytes) {
        for &at in half_scales(ty) {
            let bits = 0x2000 | (random.next() & 0x83FF) as u16;
            block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        }
        match ty {
            TensorType::MXFP4 => block[0] = 120 + block[0] % 4,
            TensorType::NVFP4 => block[..4].iter_mut().for_each(|e| *e = 0x20 + *e % 32),
            // The top nibbles of four words are an f16: 0x2?c0.
            TensorType::IQ1_M => {
                for (byte, nibble) in [(49, 0xC0), (53, random.next() as u8 & 0xF0), (55, 0x20)] {
                    block[byte] = block[byte] & 15 | nibble;
                }
            }
            _ => {}
        }
    }
    Matrix::new(ty, rows, cols, TensorData::from(data)).expect("it fits")
}

fn decoded(matrix: &Matrix) -> Vec<f32> {
    let mut values = vec![0.0; matrix.rows() * matrix.cols()];
    decode_on(
        Isa::Portable,
        matrix.ty(),
        matrix.bytes(0..matrix.rows()),
        &mut values,
    )
    .expect("it decodes");
    values
}

pub(super) fn types() -> impl Iterator<Item = TensorType> {
    gristmill_quantize::types::supported().filter(|&ty| is_supported(ty))
}

fn compute(isa: Isa, exact: bool) -> Compute {
    Compute::new(isa, exact, Arc::new(Pool::new(None)))
}

/// The largest error that rounding activations to A32 can make, plus that of f32 sums.
fn bound(weights: &[f32], x: &[f32], integer: bool) -> f64 {
    let mut bound = 0.0;
    for (w, x) in weights.chunks(32).zip(x.chunks(32)) {
        let max = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let step = if integer { f64::from(max) / 254.0 } else { 0.0 };
        let sum: f64 = w.iter().map(|w| f64::from(w.abs())).sum();
        bound += sum * (step + f64::from(max) * 4e-6);
    }
    bound
}

#[test]
fn products_are_within_the_rounding_of_activations() {
    for ty in types() {
        let integer = ty.is_quantized();
        let cols = if ty.layout().values == 256 { 768 } else { 832 };
        let (rows, tokens) = (37, 3);
        let matrix = random_matrix(ty, rows, cols, 7);
        let weights = decoded(&matrix);
        let mut random = Random(9);
        let x: Vec<f32> = (0..tokens * cols).map(|_| random.value().powi(3)).collect();
        for isa in Isa::available() {
            for exact in [false, true] {
                let input = Activations::new(tokens, cols, x.clone());
                let mut out = vec![f32::NAN; tokens * rows];
                compute(isa, exact).mul(&matrix, &input, &mut out);
                for t in 0..tokens {
                    for r in 0..rows {
                        let (w, x) = (&weights[r * cols..][..cols], input.token(t));
                        let right: f64 = w
                            .iter()
                            .zip(x)
                            .map(|(&w, &x)| f64::from(w) * f64::from(x))
                            .sum();
                        let error = (f64::from(out[t * rows + r]) - right).abs();
                        let bound = bound(w, x, integer && !exact);
                        assert!(
                            error <= bound,
                            "{ty} {isa} exact {exact} token {t} row {r}: {error} > {bound}"
                        );
                    }
                }
            }
        }
    }
}
