//! One product: which rows, which tokens, and where results go.

use std::marker::PhantomData;
use std::ops::Range;

use super::matrix::Matrix;
use super::{PANEL_ROWS, RowSums};

/// Which tokens of the activations a product is for.
#[derive(Clone, Copy)]
pub(super) enum Tokens<'a> {
    All(usize),
    Some(&'a [u32]),
}

impl Tokens<'_> {
    /// Number of tokens.
    pub(super) fn len(self) -> usize {
        match self {
            Tokens::All(n) => n,
            Tokens::Some(list) => list.len(),
        }
    }

    /// Index in the activations of the product's token `i`.
    pub(super) fn get(self, i: usize) -> usize {
        match self {
            Tokens::All(_) => i,
            Tokens::Some(list) => list[i] as usize,
        }
    }
}

/// Some rows of a matrix times some tokens. `out` is token-major: tokens x rows.
pub(super) struct Product<'a> {
    pub(super) matrix: &'a Matrix,
    pub(super) rows: Range<usize>,
    pub(super) tokens: Tokens<'a>,
    out: Out<'a>,
}

impl<'a> Product<'a> {
    /// # Panics
    /// If the matrix has no such rows, or `out` another size.
    pub(super) fn new(
        matrix: &'a Matrix,
        rows: Range<usize>,
        tokens: Tokens<'a>,
        out: &'a mut [f32],
    ) -> Self {
        assert!(rows.end <= matrix.rows(), "{matrix:?} has no rows {rows:?}");
        assert_eq!(out.len(), rows.len() * tokens.len(), "output of {matrix:?}");
        Self {
            matrix,
            rows,
            tokens,
            out: Out::new(out),
        }
    }

    /// Writes the results of one token (its place among the product's) for rows from `row` on.
    ///
    /// # Safety
    /// No other thread may write results of these rows.
    #[inline(always)]
    pub(super) unsafe fn write(&self, token: usize, row: usize, values: &[f32]) {
        assert!(self.rows.start <= row && row + values.len() <= self.rows.end);
        let start = token * self.rows.len() + row - self.rows.start;
        // SAFETY: rows are not shared, by the caller's promise, and these elements are of them.
        unsafe { self.out.write(start, values) };
    }

    /// [`Self::write`] of the first `n` of a panel's rows.
    ///
    /// # Safety
    /// As [`Self::write`].
    pub(super) unsafe fn write_panel(&self, token: usize, row: usize, sums: &RowSums, n: usize) {
        // A whole panel, the usual case, is a few stores; another length is a call.
        // SAFETY: the caller's promise.
        unsafe {
            if n == PANEL_ROWS {
                self.write(token, row, sums);
            } else {
                self.write(token, row, &sums[..n]);
            }
        }
    }
}

/// Output that several threads write, each its own elements.
struct Out<'a> {
    values: *mut f32,
    len: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is an exclusive slice of floats; writing through a shared reference is `unsafe`, and
// its callers keep to their own elements.
unsafe impl Sync for Out<'_> {}

impl<'a> Out<'a> {
    fn new(values: &'a mut [f32]) -> Self {
        Self {
            values: values.as_mut_ptr(),
            len: values.len(),
            owner: PhantomData,
        }
    }

    /// # Safety
    /// No other thread may write these elements during the lifetime of `self`.
    #[inline(always)]
    unsafe fn write(&self, start: usize, values: &[f32]) {
        assert!(start <= self.len && values.len() <= self.len - start);
        // SAFETY: in bounds by the line above; exclusive by the caller's promise.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr(), self.values.add(start), values.len());
        }
    }
}
