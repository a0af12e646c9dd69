//! NVFP4 as ModelOpt stores it: neighbouring values in a byte, an FP8 scale for 16 values and a
//! factor for the whole tensor.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};

use super::blocks::{self, BLOCK};
use super::{Named, Tensors, floats, matrix};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows};

/// Values, scale bytes and code bytes of ggml's block.
const VALUES: u64 = 64;
const SCALES: usize = 4;
const CODES: usize = 32;

#[derive(Debug)]
struct Packed {
    codes: Stored,
    scales: Stored,
    blocks_per_row: usize,
}

/// A tensor's parts, whichever of the two spellings is stored.
struct Spelling {
    codes: &'static str,
    /// The factor of the whole tensor, and that of its input; ggml has them under these names.
    factors: [(&'static str, &'static str); 2],
    /// Whether the stored factors divide.
    divides: bool,
}

/// ModelOpt's, and that of compressed-tensors.
const SPELLINGS: [Spelling; 2] = [
    Spelling {
        codes: ".weight",
        factors: [("weight_scale_2", "scale"), ("input_scale", "input_scale")],
        divides: false,
    },
    Spelling {
        codes: ".weight_packed",
        factors: [
            ("weight_global_scale", "scale"),
            ("input_global_scale", "input_scale"),
        ],
        divides: true,
    },
];

/// Packed weights first, each with its factors; then all other tensors, those of 8 bits among them
/// with their scales.
pub(super) fn read(tensors: &[Stored], by_name: &Tensors) -> Result<Vec<Named>, Error> {
    const PARTS: [&str; 5] = [
        ".weight_scale",
        ".weight_scale_2",
        ".input_scale",
        ".weight_global_scale",
        ".input_global_scale",
    ];
    let packed_as = |base: &str| {
        by_name.get(&format!("{base}.weight_scale"))?;
        SPELLINGS.iter().find_map(|spelling| {
            let codes = by_name.get(&format!("{base}{}", spelling.codes))?;
            (codes.dtype == Dtype::U8).then_some((spelling, codes))
        })
    };
    let mut packed = Vec::new();
    let mut others = Vec::new();
    for tensor in tensors {
        let module = tensor
            .name
            .rsplit_once('.')
            .map_or("", |(module, _)| module);
        let Some((spelling, codes)) = packed_as(module) else {
            others.push(tensor.clone());
            continue;
        };
        if tensor.name == codes.name {
            let scales = by_name.need(&format!("{module}.weight_scale"))?;
            packed.push((format!("{module}.weight"), matrix_of(tensor, scales)?));
            packed.extend(spelling.factors_of(module, by_name)?);
        } else if !PARTS.iter().any(|part| tensor.name.ends_with(part)) {
            others.push(tensor.clone());
        }
    }
    packed.extend(blocks::read_with(&others, by_name, BLOCK)?);
    Ok(packed)
}

impl Spelling {
    /// The factors of a module's weight and input that change something.
    fn factors_of(&self, module: &str, by_name: &Tensors) -> Result<Vec<Named>, Error> {
        let mut found = Vec::new();
        for (stored, suffix) in self.factors {
            let Some(factor) = by_name.get(&format!("{module}.{stored}")) else {
                continue;
            };
            let mut values = floats(factor);
            if self.divides {
                values.iter_mut().for_each(|value| *value = value.recip());
            }
            if values != [1.0] {
                let count = values.len() as u64;
                let factor = Expr::values(values, &[count])
                    .map_err(|error| Error::tensor(&factor.name, error.to_string()))?;
                found.push((format!("{module}.{suffix}"), factor));
            }
        }
        Ok(found)
    }
}

fn matrix_of(codes: &Stored, scales: &Stored) -> Result<Expr, Error> {
    let [rows, half] = matrix(codes)?;
    if scales.dtype != Dtype::F8E4M3 {
        return Err(Error::tensor(
            &scales.name,
            format!("is {}, expected F8E4M3", scales.dtype),
        ));
    }
    repacked(codes, scales, &[rows, half.saturating_mul(2)])
}

/// Matrices whose codes are stored as words of eight values, without factors of a whole tensor.
pub(super) fn words(codes: &Stored, scales: &Stored) -> Result<Expr, Error> {
    let mut shape = codes.shape.clone();
    if let Some(last) = shape.last_mut() {
        *last = last.saturating_mul(8);
    }
    repacked(codes, scales, &shape)
}

/// `shape` is that of the values, in PyTorch's order.
fn repacked(codes: &Stored, scales: &Stored, shape: &[u64]) -> Result<Expr, Error> {
    let columns = shape.last().copied().unwrap_or(0);
    if columns == 0 || columns % VALUES != 0 {
        return Err(Error::tensor(
            &codes.name,
            format!("has rows of {columns} values, which are no whole NVFP4 blocks of {VALUES}"),
        ));
    }
    let mut expected = shape.to_vec();
    if let Some(last) = expected.last_mut() {
        *last = columns / 16;
    }
    let values = shape.iter().product::<u64>();
    if scales.shape != expected
        || scales.dtype.size() != 1
        || codes.bytes().len() as u64 != values / 2
    {
        return Err(Error::tensor(
            &scales.name,
            format!(
                "is {} {:?}, expected {expected:?} for codes {:?}",
                scales.dtype, scales.shape, codes.shape
            ),
        ));
    }
    let gguf: Vec<u64> = shape.iter().rev().copied().collect();
    let packed = Packed {
        codes: codes.clone(),
        scales: scales.clone(),
        blocks_per_row: (columns / VALUES) as usize,
    };
    Ok(Expr::scheme(TensorType::NVFP4, &gguf, packed))
}

impl Packed {
    fn span(&self, rows: &Range<u64>) -> Range<usize> {
        rows.start as usize * self.blocks_per_row..rows.end as usize * self.blocks_per_row
    }
}

impl Rows for Packed {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let span = self.span(&rows);
        let codes = &self.codes.bytes()[span.start * CODES..span.end * CODES];
        let scales = &self.scales.bytes()[span.start * SCALES..span.end * SCALES];
        let blocks = codes.as_chunks::<CODES>().0.iter();
        for (codes, scales) in blocks.zip(scales.as_chunks::<SCALES>().0) {
            out.extend_from_slice(scales);
            // In each group of 16, ggml wants values j and j + 8 in byte j.
            for group in codes.as_chunks::<8>().0 {
                let nibble = |value: usize| group[value / 2] >> (value % 2 * 4) & 0xf;
                out.extend((0..8).map(|j| nibble(j) | nibble(j + 8) << 4));
            }
        }
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        let span = self.span(&rows);
        self.codes.release(span.start * CODES..span.end * CODES);
        self.scales.release(span.start * SCALES..span.end * SCALES);
    }
}
