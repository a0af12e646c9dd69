//! MXFP4 as gpt-oss stores it: blocks of 16 bytes with neighbouring values in a byte, and their
//! exponents in a tensor of their own.

use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};

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
    let ([experts, rows, count, 16], true) = (
        <[u64; 4]>::try_from(&blocks.shape[..]).unwrap_or_default(),
        blocks.dtype == Dtype::U8 && scales.dtype == Dtype::U8,
    ) else {
        return Err(Error::tensor(
            &blocks.name,
            format!("is {} {:?}, no MXFP4 blocks", blocks.dtype, blocks.shape),
        ));
    };
    if scales.shape != [experts, rows, count] {
        return Err(Error::tensor(
            &scales.name,
            format!(
                "has shape {:?}, expected {:?}",
                scales.shape,
                &blocks.shape[..3]
            ),
        ));
    }
    let packed = Packed {
        blocks: blocks.clone(),
        scales: scales.clone(),
        blocks_per_row: count as usize,
    };
    let shape = [count * 32, rows, experts];
    Ok(Expr::scheme(TensorType::MXFP4, &shape, packed))
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
