//! Collecting the importance of weight columns: sums of squared inputs of matrix products.
//!
//! The semantics are those of llama-imatrix: a vector of sums for each matrix of a tensor and a
//! count of the tokens that passed through it. Sums are kept in f64.

use std::collections::BTreeMap;
use std::sync::Arc;

use bstr::BString;
use gristmill_quantize::importance::{Entry, Importance};

use crate::matmul::{Activations, ExpertTokens};
use crate::pool::Pool;
use crate::weights::Stack;

/// Sums of one weight tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Sums {
    /// Columns of the weight.
    pub cols: usize,
    /// Sums of squares: matrix × column.
    pub squares: Vec<f64>,
    /// Tokens: one count for the tensor, or one for each expert.
    pub counts: Vec<u64>,
}

/// Sums of all weight tensors of layers that products read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collector {
    sums: BTreeMap<Arc<str>, Sums>,
}

impl From<BTreeMap<Arc<str>, Sums>> for Collector {
    fn from(sums: BTreeMap<Arc<str>, Sums>) -> Self {
        Self { sums }
    }
}

impl Collector {
    /// Nothing collected yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sums by name of the weight tensor.
    pub fn sums(&self) -> &BTreeMap<Arc<str>, Sums> {
        &self.sums
    }

    /// The sums as an importance matrix; `chunks` chunks of `chunk_size` tokens were seen.
    pub fn importance(&self, chunks: u32, chunk_size: u32) -> Importance {
        let entries = self.sums.iter().map(|(name, sums)| {
            let entry = Entry {
                sums: sums.squares.iter().map(|&s| s as f32).collect(),
                counts: sums.counts.clone(),
            };
            (BString::from(name.as_bytes()), entry)
        });
        Importance {
            entries: entries.collect(),
            datasets: Vec::new(),
            chunks,
            chunk_size: Some(chunk_size),
        }
    }

    /// Adds what another collector has seen.
    pub fn merge(&mut self, other: &Self) {
        for (name, theirs) in &other.sums {
            let ours = self.entry(
                name,
                theirs.cols,
                theirs.squares.len() / theirs.cols.max(1),
                theirs.counts.len(),
            );
            for (a, b) in ours.squares.iter_mut().zip(&theirs.squares) {
                *a += b;
            }
            for (a, b) in ours.counts.iter_mut().zip(&theirs.counts) {
                *a += b;
            }
        }
    }

    fn entry(&mut self, name: &Arc<str>, cols: usize, matrices: usize, counts: usize) -> &mut Sums {
        self.sums.entry(Arc::clone(name)).or_insert_with(|| Sums {
            cols,
            squares: vec![0.0; cols * matrices],
            counts: vec![0; counts],
        })
    }

    /// The input that products with these weights share. Only weights of layers count, as
    /// llama-imatrix has it.
    pub(crate) fn dense<'n>(
        &mut self,
        names: impl Iterator<Item = &'n Arc<str>>,
        input: &Activations,
        pool: &Pool,
    ) {
        let mut squares = Vec::new();
        for name in names.filter(|name| name.starts_with("blk.")) {
            if squares.is_empty() {
                squares = column_squares(input, pool);
            }
            let sums = self.entry(name, input.cols(), 1, 1);
            sums.counts[0] += input.tokens() as u64;
            for (sum, more) in sums.squares.iter_mut().zip(&squares) {
                *sum += more;
            }
        }
    }

    /// The input of matrix `index` of a stack whose matrices share one count.
    pub(crate) fn part(&mut self, stack: &Stack, index: usize, input: &Activations, pool: &Pool) {
        if !stack.name.starts_with("blk.") {
            return;
        }
        let squares = column_squares(input, pool);
        let sums = self.entry(&stack.name, input.cols(), stack.count, 1);
        if index == 0 {
            sums.counts[0] += input.tokens() as u64;
        }
        for (sum, more) in sums.squares[index * input.cols()..].iter_mut().zip(squares) {
            *sum += more;
        }
    }

    /// The input of one expert's product.
    pub(crate) fn expert(
        &mut self,
        name: &Arc<str>,
        experts: usize,
        group: ExpertTokens<'_>,
        input: &Activations,
    ) {
        let sums = self.entry(name, input.cols(), experts, experts);
        sums.counts[group.expert] += group.tokens.len() as u64;
        let squares = &mut sums.squares[group.expert * input.cols()..];
        for &token in group.tokens {
            add_squares(squares, input.token(token as usize));
        }
    }
}

/// Sums of squares of every column, over tokens in order.
fn column_squares(input: &Activations, pool: &Pool) -> Vec<f64> {
    /// Columns of a unit of work.
    const COLUMNS: usize = 512;
    let mut squares = vec![0f64; input.cols()];
    pool.chunks(&mut squares, COLUMNS, |unit, squares| {
        for token in 0..input.tokens() {
            add_squares(squares, &input.token(token)[unit * COLUMNS..]);
        }
    });
    squares
}

fn add_squares(sums: &mut [f64], values: &[f32]) {
    for (sum, &x) in sums.iter_mut().zip(values) {
        *sum += f64::from(x) * f64::from(x);
    }
}
