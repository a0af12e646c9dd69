//! What one forward pass carries through the layers.

use crate::attention::Selection;
use crate::imatrix::Collector;
use crate::matmul::{Activations, Compute, ExpertTokens};
use crate::ops;
use crate::pool::Pool;
use crate::rope::RopeTable;
use crate::weights::{Linear, NormWeights, Stack};

/// Consecutive tokens of one sequence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Index of the sequence in the session.
    pub sequence: usize,
    /// The first token's row in the batch.
    pub first: usize,
    /// Number of tokens.
    pub count: usize,
    /// The first token's position.
    pub start: usize,
}

/// Vectors kept for reuse: allocating and clearing large ones costs as much as small products.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    free: Vec<Vec<f32>>,
}

impl Scratch {
    /// A vector of `len` values that hold anything.
    pub fn take(&mut self, len: usize) -> Vec<f32> {
        let same = self.free.iter().position(|v| v.len() == len);
        let near = || {
            let fits = self
                .free
                .iter()
                .enumerate()
                .filter(|(_, v)| v.capacity() >= len);
            fits.min_by_key(|(_, v)| v.capacity()).map(|(i, _)| i)
        };
        let mut values = match same.or_else(near) {
            Some(at) => self.free.swap_remove(at),
            None => Vec::new(),
        };
        values.resize(len, 0.0);
        values
    }

    /// Takes a vector back.
    pub fn give(&mut self, values: Vec<f32>) {
        // More than a layer ever holds at once would be a leak by another name.
        if self.free.len() < 32 {
            self.free.push(values);
        }
    }
}

/// One forward pass.
pub(crate) struct Pass<'a> {
    pub compute: &'a Compute,
    pub collector: Option<&'a mut Collector>,
    pub scratch: &'a mut Scratch,
    /// One for each sequence that has tokens in the batch, in order of rows.
    pub spans: Vec<Span>,
    /// Position of every token.
    pub positions: Vec<usize>,
    /// For full and for windowed layers.
    pub ropes: [RopeTable; 2],
    /// What sparse attention has chosen last; `None`: everything.
    pub selection: Option<Selection>,
}

impl Pass<'_> {
    /// Tokens in the batch.
    pub fn tokens(&self) -> usize {
        self.positions.len()
    }

    pub fn pool(&self) -> &Pool {
        self.compute.pool()
    }

    /// Tokens that make a unit of element-wise work over rows of `width`.
    fn rows_per_unit(width: usize) -> usize {
        (32768 / width.max(1)).max(1)
    }

    /// Runs `f` on every row of `values`, in parallel.
    pub fn each_row(&self, values: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        if values.is_empty() || width == 0 {
            return;
        }
        let rows = Self::rows_per_unit(width);
        self.pool().chunks(values, rows * width, |unit, chunk| {
            for (i, row) in chunk.chunks_exact_mut(width).enumerate() {
                f(unit * rows + i, row);
            }
        });
    }

    /// A copy of rows, normalised, as the input of products.
    pub fn normalised(
        &mut self,
        norm: Option<&NormWeights>,
        x: &[f32],
        width: usize,
    ) -> Activations {
        let mut values = self.scratch.take(x.len());
        self.each_row(&mut values, width, |token, row| {
            row.copy_from_slice(&x[token * width..][..width]);
            if let Some(norm) = norm {
                norm.apply(row);
            }
        });
        Activations::new(x.len() / width.max(1), width, values)
    }

    /// Normalises rows in place.
    pub fn normalise(&self, norm: Option<&NormWeights>, x: &mut [f32], width: usize) {
        if let Some(norm) = norm {
            self.each_row(x, width, |_, row| norm.apply(row));
        }
    }

    /// `weight · input + bias` for every token.
    pub fn multiply(&mut self, linear: &Linear, input: &Activations) -> Vec<f32> {
        self.multiply_all([linear], input).remove(0)
    }

    /// Products of several matrices with the same input, in one run of the threads.
    pub fn multiply_all<'l>(
        &mut self,
        linears: impl IntoIterator<Item = &'l Linear>,
        input: &Activations,
    ) -> Vec<Vec<f32>> {
        let linears: Vec<&Linear> = linears.into_iter().collect();
        if let Some(collector) = self.collector.as_deref_mut() {
            let names = linears.iter().map(|linear| &linear.name);
            collector.dense(names, input, self.compute.pool());
        }
        let sizes = linears.iter().map(|l| input.tokens() * l.weight.rows());
        let mut outs: Vec<Vec<f32>> = sizes.map(|len| self.scratch.take(len)).collect();
        let products = linears.iter().zip(&mut outs);
        let products = products.map(|(linear, out)| (&linear.weight, out.as_mut_slice()));
        self.compute.mul_all(products, input);
        for (linear, out) in linears.iter().zip(&mut outs) {
            if linear.bias.is_none() && linear.scale.is_none() {
                continue;
            }
            self.each_row(out, linear.weight.rows(), |_, row| {
                ops::multiply(row, linear.scale.unwrap_or(1.0));
                if let Some(bias) = &linear.bias {
                    ops::add(row, bias);
                }
            });
        }
        outs
    }

    /// The product with one matrix of a stack whose matrices share a count of tokens.
    pub fn multiply_part(&mut self, stack: &Stack, index: usize, input: &Activations) -> Vec<f32> {
        if let Some(collector) = self.collector.as_deref_mut() {
            collector.part(stack, index, input, self.compute.pool());
        }
        let mut out = self.scratch.take(input.tokens() * stack.rows);
        let rows = index * stack.rows..(index + 1) * stack.rows;
        self.compute.mul_rows(&stack.matrix, rows, input, &mut out);
        out
    }

    /// Products of stacked experts with the tokens routed to them: rows in the order of groups and
    /// of their tokens, for each stack.
    pub fn multiply_experts<'s>(
        &mut self,
        stacks: impl IntoIterator<Item = &'s Stack>,
        groups: &[ExpertTokens<'_>],
        input: &Activations,
    ) -> Vec<Vec<f32>> {
        let places: usize = groups.iter().map(|g| g.tokens.len()).sum();
        let stacks: Vec<&Stack> = stacks.into_iter().collect();
        if let Some(collector) = self.collector.as_deref_mut() {
            for stack in &stacks {
                for group in groups {
                    collector.expert(&stack.name, stack.count, *group, input);
                }
            }
        }
        let mut outs: Vec<Vec<f32>> = stacks
            .iter()
            .map(|stack| self.scratch.take(places * stack.rows))
            .collect();
        if let Some(rows) = stacks.first().map(|s| s.rows) {
            let products = stacks.iter().zip(&mut outs);
            let products = products.map(|(stack, out)| (&stack.matrix, out.as_mut_slice()));
            self.compute.mul_experts(products, rows, groups, input);
        }
        for (stack, out) in stacks.iter().zip(&mut outs) {
            if stack.bias.is_none() && stack.scales.is_none() {
                continue;
            }
            let mut rows = out.chunks_exact_mut(stack.rows);
            for group in groups {
                for row in rows.by_ref().take(group.tokens.len()) {
                    if let Some(scales) = &stack.scales {
                        ops::multiply(row, scales[group.expert]);
                    }
                    if let Some(bias) = &stack.bias {
                        ops::add(row, &bias[group.expert * stack.rows..][..stack.rows]);
                    }
                }
            }
        }
        outs
    }

    /// Gives an input's memory back.
    pub fn recycle(&mut self, input: Activations) {
        self.scratch.give(input.into_values());
    }
}
