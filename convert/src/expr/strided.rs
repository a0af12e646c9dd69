//! Which rows (or columns) of a tensor a view takes, in which order.

use std::ops::Range;

/// Indices as a nest of counted strides: the outermost dimension first. Index `i` of the view is
/// `offset + Σ digit · stride`, where the digits are `i` written in the mixed radix of the counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strided {
    offset: u64,
    dims: Vec<(u64, u64)>,
}

impl Strided {
    /// A view of these `(count, stride)` dimensions, starting at `offset`.
    pub fn new(offset: u64, dims: impl Into<Vec<(u64, u64)>>) -> Self {
        Self {
            offset,
            dims: dims.into(),
        }
    }

    /// Consecutive indices.
    pub fn range(range: Range<u64>) -> Self {
        Self::new(range.start, [(range.end.saturating_sub(range.start), 1)])
    }

    /// Indices in the view.
    #[allow(
        clippy::len_without_is_empty,
        reason = "a count of indices, not of held things"
    )]
    pub fn len(&self) -> u64 {
        self.dims.iter().map(|dim| dim.0).product()
    }

    /// The largest index the view takes, `None` for an empty view.
    pub(super) fn last(&self) -> Option<u64> {
        let mut last = self.offset;
        for &(count, stride) in &self.dims {
            last = last.saturating_add(count.checked_sub(1)?.saturating_mul(stride));
        }
        Some(last)
    }

    /// Whether the view is one run of consecutive indices.
    pub(super) fn contiguous(&self) -> Option<u64> {
        let mut expected = 1;
        for &(count, stride) in self.dims.iter().rev() {
            if count != 1 && stride != expected {
                return None;
            }
            expected *= count;
        }
        Some(self.offset)
    }

    fn at(&self, mut index: u64) -> u64 {
        let mut taken = self.offset;
        for &(count, stride) in self.dims.iter().rev() {
            taken += (index % count) * stride;
            index /= count;
        }
        taken
    }

    /// The indices that `range` of the view takes, as runs of consecutive ones.
    pub(super) fn runs(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        // The innermost dimension is the only one whose steps can be consecutive here.
        let run = match self.dims.last() {
            Some(&(count, 1)) => count,
            _ => 1,
        };
        let mut index = range.start;
        std::iter::from_fn(move || {
            if index >= range.end {
                return None;
            }
            let start = self.at(index);
            let length = (run - index % run).min(range.end - index);
            index += length;
            Some(start..start + length)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_the_strides() {
        // Two heads of four rows, halves interleaved.
        let view = Strided::new(0, [(2, 4), (2, 1), (2, 2)]);
        let rows: Vec<u64> = view.runs(0..8).flatten().collect();
        assert_eq!(rows, [0, 2, 1, 3, 4, 6, 5, 7]);
        assert_eq!(view.last(), Some(7));
        assert_eq!(view.contiguous(), None);
        let view = Strided::new(3, [(2, 8), (4, 1)]);
        let runs: Vec<_> = view.runs(1..7).collect();
        assert_eq!(runs, [4..7, 11..14]);
        assert_eq!(Strided::range(5..9).contiguous(), Some(5));
    }
}
