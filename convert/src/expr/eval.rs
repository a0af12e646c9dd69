//! Evaluation of expressions, a range of rows at a time.

use std::borrow::Cow;
use std::ops::Range;

use gristmill_gguf::ReadError;

use super::ternary::Levels;
use super::{Arithmetic, Expr, Op, exponential, values};

impl Expr {
    /// Bytes of these rows, one after another; borrowed from the map where they stand there so.
    ///
    /// # Errors
    /// If the stored data are bad.
    ///
    /// # Panics
    /// May panic if the range reaches beyond the tensor.
    pub fn rows(&self, rows: Range<u64>) -> Result<Cow<'_, [u8]>, ReadError> {
        if let Some(bytes) = self.borrowed(&rows) {
            return Ok(Cow::Borrowed(bytes));
        }
        let mut out = Vec::with_capacity((rows.end - rows.start) as usize * self.row_bytes());
        self.append(rows, &mut out)?;
        Ok(Cow::Owned(out))
    }

    /// The rows as they stand in the map.
    fn borrowed(&self, rows: &Range<u64>) -> Option<&[u8]> {
        let size = self.row_bytes();
        match &*self.op {
            Op::Stored(stored) => {
                Some(&stored.bytes()[rows.start as usize * size..rows.end as usize * size])
            }
            Op::Rows(of, view) => {
                let start = view.contiguous()?;
                of.borrowed(&(start + rows.start..start + rows.end))
            }
            Op::Reshaped(of) => {
                let inner = of.row_bytes().max(1);
                let (start, end) = (rows.start as usize * size, rows.end as usize * size);
                let covering = (start / inner) as u64..end.div_ceil(inner) as u64;
                let bytes = of.borrowed(&covering)?;
                let skipped = start - covering.start as usize * inner;
                Some(&bytes[skipped..skipped + end - start])
            }
            Op::Concat(parts) => {
                let mut first = 0;
                for part in parts {
                    let count = part.row_count();
                    if rows.start >= first && rows.end <= first + count {
                        return part.borrowed(&(rows.start - first..rows.end - first));
                    }
                    first += count;
                }
                None
            }
            _ => None,
        }
    }

    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        if rows.is_empty() {
            return Ok(());
        }
        if let Some(bytes) = self.borrowed(&rows) {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        let count = (rows.end - rows.start) as usize;
        let row_len = self.row_len() as usize;
        match &*self.op {
            Op::Stored(_) => {}
            Op::Widened(stored) => {
                let mut wide = Vec::with_capacity(count * row_len);
                let start = rows.start as usize * row_len;
                values::widen(stored, start, count * row_len, &mut wide);
                values::write(self.ty, &wide, out);
            }
            Op::Rows(of, view) => {
                for run in view.runs(rows) {
                    of.append(run, out)?;
                }
            }
            Op::Columns(of, view) => {
                let bytes = of.rows(rows)?;
                let value = of.ty.layout().bytes;
                for row in bytes.chunks_exact(of.row_bytes()) {
                    for run in view.runs(0..self.row_len()) {
                        out.extend_from_slice(
                            &row[run.start as usize * value..run.end as usize * value],
                        );
                    }
                }
            }
            Op::Concat(parts) => {
                let mut first = 0;
                for part in parts {
                    let end = first + part.row_count();
                    let (from, to) = (rows.start.max(first), rows.end.min(end));
                    if from < to {
                        part.append(from - first..to - first, out)?;
                    }
                    first = end;
                }
            }
            Op::Transposed(of) => self.append_transposed(of, rows, out)?,
            Op::Reshaped(of) => {
                let (size, inner) = (self.row_bytes(), of.row_bytes().max(1));
                let (start, end) = (rows.start as usize * size, rows.end as usize * size);
                let covering = (start / inner) as u64..end.div_ceil(inner) as u64;
                let skipped = start - covering.start as usize * inner;
                let bytes = of.rows(covering)?;
                out.extend_from_slice(&bytes[skipped..skipped + end - start]);
            }
            Op::Float(of) => {
                let wide = of.f32_rows(rows)?;
                values::write(self.ty, &wide, out);
            }
            Op::Computed(of, arithmetic) => {
                let mut wide = of.f32_rows(rows)?;
                arithmetic.apply(&mut wide);
                values::write(self.ty, &wide, out);
            }
            Op::Ternary(of, levels) => {
                let levels = match levels.get() {
                    Some(levels) => levels,
                    None => {
                        let found = Levels::of(of)?;
                        levels.get_or_init(|| found)
                    }
                };
                let mut wide = of.f32_rows(rows)?;
                wide.iter_mut().for_each(|v| *v = levels.nearest(*v));
                values::write(self.ty, &wide, out);
            }
            Op::ScaledRows(of, factors) => {
                let factors = &factors[rows.start as usize..rows.end as usize];
                let mut wide = of.f32_rows(rows)?;
                for (row, factor) in wide.chunks_exact_mut(row_len).zip(factors) {
                    row.iter_mut().for_each(|v| *v *= factor);
                }
                values::write(self.ty, &wide, out);
            }
            Op::ScaledColumns(of, factors) => {
                let mut wide = of.f32_rows(rows)?;
                for row in wide.chunks_exact_mut(row_len) {
                    row.iter_mut().zip(factors).for_each(|(v, f)| *v *= f);
                }
                values::write(self.ty, &wide, out);
            }
            Op::Values(constants) => {
                let range = rows.start as usize * row_len..rows.end as usize * row_len;
                values::write(self.ty, &constants[range], out);
            }
            Op::Zeros => out.resize(out.len() + count * self.row_bytes(), 0),
            Op::Scheme(scheme) => scheme.append(rows, out)?,
        }
        Ok(())
    }

    /// Columns of the operand become rows: for each of them one pass down its rows.
    fn append_transposed(
        &self,
        of: &Self,
        rows: Range<u64>,
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        /// Rows of the operand that are evaluated at a time: a tile of bounded size.
        const TILE: u64 = 64;
        let value = self.ty.layout().bytes;
        let (width, height) = (of.shape[0], of.shape[1]);
        let mut at = rows.start;
        while at < rows.end {
            let slice = at / width;
            let end = rows.end.min((slice + 1) * width);
            let columns = (at - slice * width) as usize..(end - slice * width) as usize;
            let start = out.len();
            let size = self.row_bytes();
            out.resize(start + columns.len() * size, 0);
            let target = &mut out[start..];
            let mut first = 0;
            while first < height {
                let last = (first + TILE).min(height);
                let tile = of.rows(slice * height + first..slice * height + last)?;
                for (row, bytes) in tile.chunks_exact(of.row_bytes()).enumerate() {
                    let place = (first as usize + row) * value;
                    for (to, column) in columns.clone().enumerate() {
                        target[to * size + place..][..value]
                            .copy_from_slice(&bytes[column * value..][..value]);
                    }
                }
                first = last;
            }
            at = end;
        }
        Ok(())
    }

    /// These rows as f32.
    ///
    /// # Errors
    /// If the stored data are bad, or the type is one of blocks.
    pub fn f32_rows(&self, rows: Range<u64>) -> Result<Vec<f32>, ReadError> {
        let count = (rows.end - rows.start) as usize * self.row_len() as usize;
        let mut wide = Vec::with_capacity(count);
        if let Op::Widened(stored) = &*self.op {
            let start = rows.start as usize * self.row_len() as usize;
            values::widen(stored, start, count, &mut wide);
        } else {
            values::read(self.ty, &self.rows(rows)?, &mut wide)?;
        }
        Ok(wide)
    }

    /// Tells that these rows will not be read again, so that mapped pages can go back.
    pub fn release(&self, rows: Range<u64>) {
        if rows.is_empty() {
            return;
        }
        let last = rows.end == self.row_count();
        match &*self.op {
            Op::Stored(stored) => {
                let size = self.row_bytes();
                stored.release(rows.start as usize * size..rows.end as usize * size);
            }
            Op::Widened(stored) => {
                let size = stored.dtype.size() * self.row_len() as usize;
                stored.release(rows.start as usize * size..rows.end as usize * size);
            }
            Op::Rows(of, view) => match view.contiguous() {
                Some(start) => of.release(start + rows.start..start + rows.end),
                // Scattered rows go back together, once the last of them is read.
                None if last => of.release(0..of.row_count()),
                None => {}
            },
            Op::Concat(parts) => {
                let mut first = 0;
                for part in parts {
                    let end = first + part.row_count();
                    let (from, to) = (rows.start.max(first), rows.end.min(end));
                    if from < to {
                        part.release(from - first..to - first);
                    }
                    first = end;
                }
            }
            Op::Transposed(of) => {
                if last {
                    of.release(0..of.row_count());
                }
            }
            Op::Reshaped(of) => {
                let (size, inner) = (self.row_bytes(), of.row_bytes().max(1));
                let start = (rows.start as usize * size).div_ceil(inner);
                of.release(start as u64..(rows.end as usize * size / inner) as u64);
            }
            Op::Columns(of, _)
            | Op::Float(of)
            | Op::Computed(of, _)
            | Op::Ternary(of, _)
            | Op::ScaledRows(of, _)
            | Op::ScaledColumns(of, _) => of.release(rows),
            Op::Scheme(scheme) => scheme.release(rows),
            Op::Values(_) | Op::Zeros => {}
        }
    }
}

impl Arithmetic {
    fn apply(self, values: &mut [f32]) {
        match self {
            Self::Add(term) => values.iter_mut().for_each(|v| *v += term),
            Self::Multiply(factor) => values.iter_mut().for_each(|v| *v *= factor),
            Self::NegExp => values.iter_mut().for_each(|v| *v = -exponential::exp(*v)),
            Self::Softplus => values.iter_mut().for_each(|v| *v = v.exp().ln_1p()),
        }
    }
}
