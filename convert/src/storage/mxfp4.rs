//! MXFP4 as gpt-oss stores it: blocks of 16 bytes with neighbouring values in a byte, and their
//! exponents in a tensor of their own.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};

use super::matrix;
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows};

/// Bytes of codes in a block of 32 values.
const CODES: usize = 16;

#[derive(Debug)]
struct Packed {
    blocks: Stored,
    scales: Stored,
    blocks_per_row: usize,
}

/// The stack of matrices in ggml's MXFP4, bit for bit the same values.
pub(crate) fn expr(blocks: &Stored, scales: &Stored) -> Result<Expr, Error> {
    let ([experts, rows, count, 16], Dtype::U8) = (
        <[u64; 4]>::try_from(&blocks.shape[..]).unwrap_or_default(),
        blocks.dtype,
    ) else {
        return Err(Error::tensor(
            &blocks.name,
            format!("is {} {:?}, no MXFP4 blocks", blocks.dtype, blocks.shape),
        ));
    };
    repacked(blocks, scales, &[experts, rows, count])
}

/// The same of matrices whose codes are stored as words of eight values.
pub(super) fn words(codes: &Stored, scales: &Stored) -> Result<Expr, Error> {
    let Some((&words, outer)) = codes.shape.split_last() else {
        return Err(Error::tensor(&codes.name, "is a scalar, no MXFP4 blocks"));
    };
    let mut shape = outer.to_vec();
    shape.push(words / 4);
    repacked(codes, scales, &shape)
}

/// The same of matrices whose codes are stored as bytes of two values.
pub(super) fn pairs(codes: &Stored, scales: &Stored) -> Result<Expr, Error> {
    let [rows, bytes] = matrix(codes)?;
    if codes.dtype != Dtype::U8 {
        return Err(Error::tensor(
            &codes.name,
            format!("is {}, expected U8", codes.dtype),
        ));
    }
    repacked(codes, scales, &[rows, bytes / CODES as u64])
}

/// `shape` is that of the blocks, in PyTorch's order.
fn repacked(blocks: &Stored, scales: &Stored, shape: &[u64]) -> Result<Expr, Error> {
    let count = shape.iter().product::<u64>();
    let whole = blocks.bytes().len() as u64 == count.saturating_mul(CODES as u64)
        && blocks.strides().or(scales.strides()).is_none();
    let exponents = matches!(scales.dtype, Dtype::U8 | Dtype::F8E8M0);
    if !exponents || scales.shape != shape || !whole {
        return Err(Error::tensor(
            &scales.name,
            format!(
                "is {} {:?}, expected U8 {shape:?} for blocks {:?}",
                scales.dtype, scales.shape, blocks.shape
            ),
        ));
    }
    let mut gguf: Vec<u64> = shape.iter().rev().copied().collect();
    gguf[0] *= 32;
    let packed = Packed {
        blocks: blocks.clone(),
        scales: scales.clone(),
        blocks_per_row: (gguf[0] / 32) as usize,
    };
    Ok(Expr::scheme(TensorType::MXFP4, &gguf, packed))
}

impl Packed {
    fn span(&self, rows: &Range<u64>) -> Range<usize> {
        rows.start as usize * self.blocks_per_row..rows.end as usize * self.blocks_per_row
    }
}

impl Rows for Packed {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let span = self.span(&rows);
        let codes = &self.blocks.bytes()[span.start * CODES..span.end * CODES];
        let scales = &self.scales.bytes()[span];
        for (codes, &scale) in codes.as_chunks::<CODES>().0.iter().zip(scales) {
            out.push(scale);
            // Value v is half v % 2 of byte v / 2; ggml wants values j and j + 16 in byte j.
            let nibble = |value: usize| codes[value / 2] >> (value % 2 * 4) & 0xf;
            out.extend((0..CODES).map(|j| nibble(j) | nibble(j + 16) << 4));
        }
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        let span = self.span(&rows);
        self.blocks.release(span.start * CODES..span.end * CODES);
        self.scales.release(span);
    }
}
