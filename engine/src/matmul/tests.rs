//! Products against sums of decoded weights in double precision.

use std::sync::Arc;

use gristmill_gguf::TensorType;
use gristmill_gguf::file::TensorData;
use gristmill_quantize::Isa;
use gristmill_quantize::types::decode_on;

use super::{Activations, Compute, ExpertTokens, Matrix, MatrixError, is_supported};
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

/// Every product of a matrix, by every instruction set and mode, as `check` sees it.
fn multiply(matrix: &Matrix, x: &[f32], mut check: impl FnMut(Isa, bool, &[f32])) {
    let tokens = x.len() / matrix.cols();
    for isa in Isa::available() {
        for exact in [false, true] {
            let input = Activations::new(tokens, matrix.cols(), x.to_vec());
            let mut out = vec![f32::NAN; tokens * matrix.rows()];
            compute(isa, exact).mul(matrix, &input, &mut out);
            check(isa, exact, &out);
        }
    }
}

fn shapes(ty: TensorType) -> impl Iterator<Item = (usize, usize, usize)> {
    let block = ty.layout().values;
    // Whole superblocks and, where blocks are smaller, parts of one.
    let cols = [256, 832, 2560, block].map(|cols: usize| cols.next_multiple_of(block));
    [(37, 3), (1, 1), (33, 4), (70, 13)]
        .into_iter()
        .flat_map(move |(rows, tokens)| cols.map(|cols| (rows, cols, tokens)))
}

#[test]
fn products_are_within_the_rounding_of_activations() {
    for ty in types() {
        for (rows, cols, tokens) in shapes(ty) {
            let matrix = random_matrix(ty, rows, cols, 7);
            let weights = decoded(&matrix);
            let mut random = Random(9);
            let x: Vec<f32> = (0..tokens * cols).map(|_| random.value().powi(3)).collect();
            multiply(&matrix, &x, |isa, exact, out| {
                for (t, x) in x.chunks(cols).enumerate() {
                    for (r, w) in weights.chunks(cols).enumerate() {
                        let right: f64 = w
                            .iter()
                            .zip(x)
                            .map(|(&w, &x)| f64::from(w) * f64::from(x))
                            .sum();
                        let error = (f64::from(out[t * rows + r]) - right).abs();
                        let bound = bound(w, x, ty.is_quantized() && !exact);
                        assert!(
                            error <= bound,
                            "{ty} {isa} exact {exact} {rows}x{cols}x{tokens} token {t} row {r}: {error} > {bound}"
                        );
                    }
                }
            });
        }
    }
}

#[test]
fn integer_products_are_the_same_everywhere() {
    for ty in types().filter(|ty| ty.is_quantized()) {
        for (rows, cols, tokens) in shapes(ty) {
            let matrix = random_matrix(ty, rows, cols, 11);
            let mut random = Random(13);
            let x: Vec<f32> = (0..tokens * cols).map(|_| random.value()).collect();
            let mut first: Option<Vec<u32>> = None;
            multiply(&matrix, &x, |isa, exact, out| {
                if !exact {
                    let bits: Vec<_> = out.iter().map(|v| v.to_bits()).collect();
                    let first = first.get_or_insert_with(|| bits.clone());
                    assert_eq!(*first, bits, "{ty} {isa} {rows}x{cols}x{tokens}");
                }
            });
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_tokens() {
    for ty in types() {
        let (rows, cols, tokens) = (40, 512, 33);
        let matrix = random_matrix(ty, rows, cols, 17);
        let mut random = Random(19);
        let x: Vec<f32> = (0..tokens * cols).map(|_| random.value()).collect();
        let mut together = Vec::new();
        multiply(&matrix, &x, |isa, exact, out| {
            together.push((isa, exact, out.to_vec()));
        });
        for n in 1..14 {
            let mut together = together.iter();
            multiply(&matrix, &x[..n * cols], |isa, exact, out| {
                let right = together.next().expect("the same calls");
                let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert_eq!((isa, exact), (right.0, right.1));
                assert_eq!(
                    bits(out),
                    bits(&right.2[..n * rows]),
                    "{ty} {isa} {exact} {n} tokens"
                );
            });
        }
    }
}

#[test]
fn experts_rows_and_decoding_agree_with_whole_products() {
    for ty in [TensorType::Q4_K, TensorType::F16] {
        let (experts, rows, cols, tokens) = (3, 40, 512, 9);
        let stack = random_matrix(ty, experts * rows, cols, 23);
        let mut random = Random(29);
        let x: Vec<f32> = (0..tokens * cols).map(|_| random.value()).collect();
        // Few tokens, many, none; a token may go to several experts.
        let lists: [&[u32]; 3] = [&[7, 2], &[0, 1, 2, 3, 4, 5, 6, 8], &[]];
        let groups: Vec<_> = lists
            .iter()
            .enumerate()
            .map(|(expert, tokens)| ExpertTokens { expert, tokens })
            .collect();
        for isa in Isa::available() {
            let compute = compute(isa, false);
            let input = Activations::new(tokens, cols, x.clone());
            let mut whole = vec![0.0; tokens * experts * rows];
            compute.mul(&stack, &input, &mut whole);
            let of = |token: u32, expert: usize| {
                &whole[token as usize * experts * rows + expert * rows..][..rows]
            };
            let mut out = vec![f32::NAN; 10 * rows];
            compute.mul_experts([(&stack, out.as_mut_slice())], rows, &groups, &input);
            let mut out = out.chunks(rows);
            for (expert, list) in lists.iter().enumerate() {
                for &token in *list {
                    assert_eq!(out.next(), Some(of(token, expert)), "{ty} {isa}");
                }
            }
            let mut part = vec![f32::NAN; tokens * rows];
            compute.mul_rows(&stack, rows..2 * rows, &input, &mut part);
            for (token, part) in part.chunks(rows).enumerate() {
                assert_eq!(part, of(token as u32, 1), "{ty} {isa}");
            }
            let mut values = vec![f32::NAN; 2 * cols];
            compute.decode(&stack, &[5, 100], &mut values);
            let right = decoded(&stack);
            assert_eq!(values[..cols], right[5 * cols..][..cols]);
            assert_eq!(values[cols..], right[100 * cols..][..cols]);
        }
    }
}

#[test]
fn values_that_are_not_finite_show() {
    let matrix = random_matrix(TensorType::Q8_0, 40, 64, 31);
    for bad in [f32::NAN, f32::INFINITY] {
        for tokens in [1, 7] {
            let mut x = vec![1.0; tokens * 64];
            x[33] = bad;
            multiply(&matrix, &x, |isa, exact, out| {
                assert!(out[..40].iter().all(|v| !v.is_finite()), "{isa} {exact}");
                assert!(out[40..].iter().all(|v| v.is_finite()), "{isa} {exact}");
            });
        }
    }
}

#[test]
fn matrices_that_do_not_fit_are_refused() {
    let data = |n: usize| TensorData::from(vec![0; n]);
    let new = |ty, rows, cols, n| Matrix::new(ty, rows, cols, data(n)).map(|_| ());
    assert_eq!(new(TensorType::Q4_K, 2, 256, 288), Ok(()));
    assert!(matches!(
        new(TensorType::Q4_K, 2, 255, 288),
        Err(MatrixError::RowLength { .. })
    ));
    assert!(matches!(
        new(TensorType::Q4_K, 3, 256, 288),
        Err(MatrixError::Size { .. })
    ));
    assert!(matches!(
        new(TensorType::Q4_K, usize::MAX, 256, 288),
        Err(MatrixError::Size { .. })
    ));
    assert!(matches!(
        new(TensorType::F32, 1, 0, 0),
        Err(MatrixError::RowLength { .. })
    ));
    assert!(matches!(
        new(TensorType::I32, 1, 4, 16),
        Err(MatrixError::Type(TensorType::I32))
    ));
}

/// A file of golden blocks; types without one are not checked.
fn golden_blocks(name: &str) -> Option<Vec<u8>> {
    let folder = crate::golden::golden("blocks")?;
    std::fs::read(folder.join(format!("{name}.safetensors"))).ok()
}

#[test]
fn golden_dot_products_are_within_their_tolerance() {
    let mut rows = 0;
    for ty in types().filter(|&ty| ty != TensorType::F32) {
        let Some(file) = golden_blocks(ty.name()) else {
            continue;
        };
        let file = safetensors::SafeTensors::deserialize(&file).expect("golden data");
        let input = input_activation().expect("the golden folder holds input.safetensors");
        let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        for set in ["plain", "weighted"] {
            let Ok(stored) = file.tensor(set) else {
                continue;
            };
            let right = file.tensor(&format!("{set}_dot_f64")).expect("products");
            let right: Vec<_> = right
                .data()
                .as_chunks()
                .0
                .iter()
                .map(|&b| f64::from_le_bytes(b))
                .collect();
            let data = TensorData::from(stored.data().to_vec());
            let matrix = Matrix::new(ty, stored.shape()[0], input.len(), data).expect("it fits");
            let weights = decoded(&matrix);
            let tolerance = match (ty, ty.layout().values) {
                (TensorType::BF16, _) => 1e-4,
                (TensorType::F16, _) => 2e-5,
                (_, 256) => 3e-3,
                _ => 2e-3,
            };
            multiply(&matrix, &input, |isa, exact, out| {
                for (r, (w, &right)) in weights.chunks(input.len()).zip(&right).enumerate() {
                    if w.iter().all(|w| w.is_finite()) {
                        let scale = norm(w) * norm(&input);
                        let tolerance = if exact { 1e-6 } else { tolerance };
                        let error = (f64::from(out[r]) - right).abs();
                        assert!(
                            error <= tolerance * scale,
                            "{ty} {set} {isa} {exact} row {r}: {error} of {scale}"
                        );
                        rows += 1;
                    }
                }
            });
        }
    }
    if rows == 0 {
        println!("skipped: golden data not found");
    } else {
        println!("{rows} golden products");
    }
}

fn input_activation() -> Option<Vec<f32>> {
    let file = golden_blocks("input")?;
    let file = safetensors::SafeTensors::deserialize(&file).ok()?;
    let data = file.tensor("activation").ok()?;
    Some(
        data.data()
            .as_chunks()
            .0
            .iter()
            .map(|&b| f32::from_le_bytes(b))
            .collect(),
    )
}
