//! Merging neighbours by priority: the loop that byte-pair and sentencepiece tokenizers share.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// No neighbour, or gone.
const NONE: u32 = u32::MAX;

/// A run of bytes of the text that has become one symbol.
#[derive(Debug, Clone, Copy)]
pub(super) struct Symbol {
    /// What the merger calls it.
    pub id: u32,
    /// Where it begins in the text.
    pub start: u32,
    /// Its length in bytes; 0 once it is merged into its left neighbour.
    pub length: u32,
    previous: u32,
    next: u32,
}

/// A merge that may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate<P> {
    // Order of fields: the best priority first, then the leftmost.
    priority: Reverse<P>,
    left: Reverse<u32>,
    right: u32,
    /// Length of both when the candidate was found; another length means it is stale.
    length: u32,
    result: u32,
}

/// Working memory of the merging loop, kept between words.
#[derive(Debug)]
pub(super) struct Merger<P> {
    symbols: Vec<Symbol>,
    candidates: BinaryHeap<Candidate<P>>,
}

impl<P: Ord + Copy> Default for Merger<P> {
    fn default() -> Self {
        Self {
            symbols: Vec::new(),
            candidates: BinaryHeap::new(),
        }
    }
}

impl<P: Ord + Copy> Merger<P> {
    /// Starts a word.
    pub fn clear(&mut self) {
        self.symbols.clear();
        self.candidates.clear();
    }

    /// Appends a symbol of so many bytes.
    pub fn push(&mut self, id: u32, length: u32) {
        let at = self.symbols.len() as u32;
        let start = self.symbols.last_mut().map_or(0, |last| {
            last.next = at;
            last.start + last.length
        });
        self.symbols.push(Symbol {
            id,
            start,
            length,
            previous: at.checked_sub(1).unwrap_or(NONE),
            next: NONE,
        });
    }

    /// Merges neighbours until `merge` allows none: it gives the priority of joining two symbols
    /// (the smallest goes first, the leftmost among equals) and the id of the result. Each merge
    /// costs the logarithm of the word's length.
    pub fn run(&mut self, merge: impl Fn(&Symbol, &Symbol) -> Option<(P, u32)>) {
        for right in 1..self.symbols.len() as u32 {
            self.consider(right - 1, right, &merge);
        }
        while let Some(candidate) = self.candidates.pop() {
            let left = candidate.left.0;
            let (a, b) = (
                self.symbols[left as usize],
                self.symbols[candidate.right as usize],
            );
            if a.length == 0 || b.length == 0 || a.length + b.length != candidate.length {
                continue;
            }
            let merged = &mut self.symbols[left as usize];
            merged.id = candidate.result;
            merged.length = candidate.length;
            merged.next = b.next;
            self.symbols[candidate.right as usize].length = 0;
            if b.next != NONE {
                self.symbols[b.next as usize].previous = left;
                self.consider(left, b.next, &merge);
            }
            if a.previous != NONE {
                self.consider(a.previous, left, &merge);
            }
        }
    }

    fn consider(
        &mut self,
        left: u32,
        right: u32,
        merge: impl Fn(&Symbol, &Symbol) -> Option<(P, u32)>,
    ) {
        let (a, b) = (&self.symbols[left as usize], &self.symbols[right as usize]);
        if let Some((priority, result)) = merge(a, b) {
            self.candidates.push(Candidate {
                priority: Reverse(priority),
                left: Reverse(left),
                right,
                length: a.length + b.length,
                result,
            });
        }
    }

    /// The symbols that are left.
    pub fn symbols(&self) -> impl Iterator<Item = &Symbol> {
        self.symbols.iter().filter(|symbol| symbol.length > 0)
    }
}
