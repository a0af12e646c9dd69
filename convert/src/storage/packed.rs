//! Small integers packed into bytes or words, least significant bits first.

use std::ops::Range;

use crate::checkpoint::Stored;
use crate::expr::values;

/// The 32-bit words of a stored tensor.
pub(super) fn words(stored: &Stored) -> &[[u8; 4]] {
    stored.bytes().as_chunks::<4>().0
}

/// Field `at` of a word, `bits` wide.
pub(super) fn field(word: [u8; 4], at: usize, bits: usize) -> u32 {
    u32::from_le_bytes(word) >> (at * bits) & ((1 << bits) - 1)
}

/// Field `at` of a stream of fields of up to eight bits, which may cross bytes.
pub(super) fn stream(bytes: &[u8], at: usize, bits: usize) -> u32 {
    let bit = at * bits;
    let low = u32::from(bytes[bit / 8]);
    let high = bytes.get(bit / 8 + 1).map_or(0, |&byte| u32::from(byte));
    (high << 8 | low) >> (bit % 8) & ((1 << bits) - 1)
}

/// A table of floats (scales, zero points) of which a row is read when it is needed: those of a
/// whole model would not fit the memory.
#[derive(Debug, Clone)]
pub(super) struct Table {
    stored: Stored,
    rows: usize,
    columns: usize,
}

impl Table {
    /// A table of so many rows; `None` if the tensor does not fill them.
    pub(super) fn new(stored: &Stored, rows: u64) -> Option<Self> {
        let columns = stored.elements().checked_div(rows)?;
        (columns > 0 && columns * rows == stored.elements()).then(|| Self {
            stored: stored.clone(),
            rows: rows as usize,
            columns: columns as usize,
        })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Some columns of a row, in place of what the buffer holds.
    pub(super) fn read(&self, row: usize, columns: Range<usize>, into: &mut Vec<f32>) {
        into.clear();
        let start = row * self.columns + columns.start;
        values::widen(&self.stored, start, columns.len(), into);
    }

    /// A whole row.
    pub(super) fn read_row(&self, row: usize, into: &mut Vec<f32>) {
        self.read(row, 0..self.columns, into);
    }
}

/// Rows of a matrix that is stored by columns. `column` fills in the values of the rows in one
/// column; it is asked for one after the other, so that the store is read in order.
pub(super) fn append_by_columns(
    rows: usize,
    columns: usize,
    out: &mut Vec<u8>,
    mut column: impl FnMut(usize, &mut [f32]),
) {
    const SIZE: usize = size_of::<f32>();
    let from = out.len();
    out.resize(from + rows * columns * SIZE, 0);
    let place = &mut out[from..];
    let mut values = vec![0.0; rows];
    for at in 0..columns {
        column(at, &mut values);
        for (row, value) in values.iter().enumerate() {
            place[(row * columns + at) * SIZE..][..SIZE].copy_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cross_bytes() {
        // 0..8 in three bits each, first in the lowest bits.
        let packed = (0..8u32).fold(0, |bits, value| bits | value << (3 * value));
        let bytes = packed.to_le_bytes();
        let read: Vec<u32> = (0..8).map(|at| stream(&bytes[..3], at, 3)).collect();
        assert_eq!(read, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(field([0x21, 0x43, 0x65, 0x87], 5, 4), 6);
        assert_eq!(stream(&[0x21, 0x43], 3, 4), 4);
    }
}
