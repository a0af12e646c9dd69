//! The driver of products: what is computed where, and by whom.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use gristmill_quantize::Isa;
use gristmill_quantize::types::decode_on;

use super::activations::Activations;
use super::codes::CodeRow;
use super::integer::{PANEL_ROWS, Panel, RowSums, Tiles};
use super::matrix::Matrix;
use super::{float, integer};
use crate::pool::Pool;

/// Tokens that were routed to one expert.
#[derive(Debug, Clone, Copy)]
pub struct ExpertTokens<'a> {
    /// Index of the expert.
    pub expert: usize,
    /// Indices of its tokens in the activations.
    pub tokens: &'a [u32],
}

/// Multiplies matrices and activations on a pool of threads; see [`super`] for the arithmetic.
#[derive(Clone)]
pub struct Compute {
    isa: Isa,
    exact: bool,
    pool: Arc<Pool>,
}

/// Which tokens of the activations a product is for.
#[derive(Clone, Copy)]
enum Tokens<'a> {
    All(usize),
    Some(&'a [u32]),
}

impl Tokens<'_> {
    fn len(self) -> usize {
        match self {
            Tokens::All(n) => n,
            Tokens::Some(list) => list.len(),
        }
    }

    fn get(self, i: usize) -> usize {
        match self {
            Tokens::All(_) => i,
            Tokens::Some(list) => list[i] as usize,
        }
    }
}

/// Some rows of a matrix times some tokens. `out` is token-major: tokens x rows.
struct Product<'a> {
    matrix: &'a Matrix,
    rows: Range<usize>,
    tokens: Tokens<'a>,
    out: Out<'a>,
}

/// Output that several threads write, each its own elements.
struct Out<'a> {
    values: *mut f32,
    len: usize,
    owner: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: it is an exclusive slice of floats; writing through a shared reference is `unsafe`, and
// its callers keep to their own elements.
unsafe impl Sync for Out<'_> {}

impl<'a> Out<'a> {
    fn new(values: &'a mut [f32]) -> Self {
        Self {
            values: values.as_mut_ptr(),
            len: values.len(),
            owner: std::marker::PhantomData,
        }
    }

    /// # Safety
    /// No other thread may write these elements during the lifetime of `self`.
    unsafe fn write(&self, start: usize, values: &[f32]) {
        assert!(start <= self.len && values.len() <= self.len - start);
        // SAFETY: in bounds by the line above; exclusive by the caller's promise.
        unsafe {
            std::ptr::copy_nonoverlapping(values.as_ptr(), self.values.add(start), values.len());
        }
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    codes: CodeRow,
    floats: Vec<f32>,
    out: Vec<f32>,
    panels: Vec<Panel>,
    sums: Vec<RowSums>,
}

/// How a product is computed, and from what.
enum Input<'a> {
    /// Row by row, from the activations themselves.
    Rows,
    /// By panels, from all tokens.
    Tiles(&'a Tiles),
    /// By panels, from some tokens.
    OwnTiles(Tiles),
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Stored bytes that a unit of work covers where every byte is used once or a few times.
const UNIT_BYTES: usize = 256 << 10;

/// Products of fewer multiplications than this stay on the calling thread: some 20 µs.
const SMALL: usize = 1 << 18;

/// From this number of tokens on, interleaving rows pays.
const BLOCKED_TOKENS: usize = 4;

/// Blocks of a panel that are multiplied with all tiles before the next ones, so that they stay in
/// the first-level cache where rows are long.
const SLICE_BLOCKS: usize = 64;

/// Panels that are multiplied with a tile while it is in the cache: more than one pays where all
/// tiles together no longer fit the second-level cache.
fn panel_group(cols: usize) -> usize {
    if cols > 4096 { 2 } else { 1 }
}

impl Compute {
    /// Products on `pool` with the kernels of `isa`. `exact`: activations stay f32 and weights are
    /// decoded to f32, for results without the noise of 8-bit activations.
    ///
    /// # Panics
    /// If this CPU lacks the instruction set.
    pub fn new(isa: Isa, exact: bool, pool: Arc<Pool>) -> Self {
        assert!(isa.is_available(), "{isa} is not available");
        Self { isa, exact, pool }
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Whether activations stay f32.
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// `out[t][r] = Σ_k matrix[r][k] * x[t][k]`; `out` is token-major, tokens x rows.
    ///
    /// # Panics
    /// If the sizes do not agree.
    pub fn mul(&self, matrix: &Matrix, x: &Activations, out: &mut [f32]) {
        self.mul_all([(matrix, out)], x);
    }

    /// Products of several matrices with the same input in one run of the threads.
    ///
    /// # Panics
    /// If the sizes do not agree.
    pub fn mul_all<'a>(
        &self,
        products: impl IntoIterator<Item = (&'a Matrix, &'a mut [f32])>,
        x: &'a Activations,
    ) {
        let products: Vec<_> = products
            .into_iter()
            .map(|(matrix, out)| product(matrix, 0..matrix.rows(), Tokens::All(x.tokens()), out))
            .collect();
        self.run(&products, x);
    }

    /// The product of some rows only; `out` is token-major, tokens x `rows.len()`.
    ///
    /// # Panics
    /// If the sizes do not agree.
    pub fn mul_rows(&self, matrix: &Matrix, rows: Range<usize>, x: &Activations, out: &mut [f32]) {
        self.run(&[product(matrix, rows, Tokens::All(x.tokens()), out)], x);
    }

    /// Products of stacked experts, `rows` rows each, with the tokens routed to them. `out` holds
    /// `rows` values for each token of each group, in the order of groups and of their tokens.
    /// Several matrices of the same shape (gate, up) go in one run.
    ///
    /// # Panics
    /// If the sizes do not agree, or an expert or token does not exist.
    pub fn mul_experts<'a>(
        &self,
        products: impl IntoIterator<Item = (&'a Matrix, &'a mut [f32])>,
        rows: usize,
        groups: &[ExpertTokens<'a>],
        x: &'a Activations,
    ) {
        let mut all = Vec::new();
        for (matrix, mut out) in products {
            for group in groups {
                let first = group.expert * rows;
                let own;
                (own, out) = out.split_at_mut(group.tokens.len() * rows);
                all.push(product(
                    matrix,
                    first..first + rows,
                    Tokens::Some(group.tokens),
                    own,
                ));
            }
            assert!(out.is_empty(), "output of another size");
        }
        self.run(&all, x);
    }

    /// Decodes some rows to f32: embeddings.
    ///
    /// # Panics
    /// If a row does not exist or `out` does not hold them.
    pub fn decode(&self, matrix: &Matrix, rows: &[u32], out: &mut [f32]) {
        assert_eq!(out.len(), rows.len() * matrix.cols(), "rows x columns");
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(matrix.cols())) {
            let row = row as usize;
            self.decode_row(matrix, row, out);
        }
    }

    fn decode_row(&self, matrix: &Matrix, row: usize, out: &mut [f32]) {
        decode_on(self.isa, matrix.ty(), matrix.bytes(row..row + 1), out)
            .expect("a matrix has whole rows of a type that decodes");
    }

    fn run(&self, products: &[Product<'_>], x: &Activations) {
        for Product { matrix, .. } in products {
            assert_eq!(
                matrix.cols(),
                x.cols(),
                "columns of {matrix:?} and its input"
            );
        }
        // What all units of a product read is made here, by all threads.
        let inputs: Vec<_> = products.iter().map(|p| self.input(p, x)).collect();
        let mut units = Vec::new();
        for (i, (product, input)) in products.iter().zip(&inputs).enumerate() {
            let step = match input {
                _ if product.tokens.len() == 0 => continue,
                Input::Rows => (UNIT_BYTES / product.matrix.row_bytes()).max(16),
                Input::Tiles(_) | Input::OwnTiles(_) => PANEL_ROWS * panel_group(x.cols()),
            };
            for start in product.rows.clone().step_by(step) {
                units.push((i, start..(start + step).min(product.rows.end)));
            }
        }
        let work: usize = products
            .iter()
            .map(|p| p.rows.len() * p.tokens.len() * x.cols())
            .sum();
        let unit = |u: usize| {
            let (i, rows) = units[u].clone();
            let product = &products[i];
            SCRATCH.with_borrow_mut(|scratch| match &inputs[i] {
                Input::Rows => self.rows(product, rows, x, scratch),
                Input::Tiles(tiles) => self.panels(product, rows, tiles, scratch),
                Input::OwnTiles(tiles) => self.panels(product, rows, tiles, scratch),
            });
        };
        if work < SMALL {
            (0..units.len()).for_each(unit);
        } else {
            self.pool.run(units.len(), unit);
        }
    }

    fn input<'x>(&self, product: &Product<'_>, x: &'x Activations) -> Input<'x> {
        let Some(kernels) = self.integer(product.matrix) else {
            return Input::Rows;
        };
        let a32 = x.a32(&self.pool);
        if kernels.blocked.is_none() || product.tokens.len() < BLOCKED_TOKENS {
            return Input::Rows;
        }
        match product.tokens {
            Tokens::All(_) => Input::Tiles(x.tiles(&self.pool)),
            Tokens::Some(list) => {
                let token = |i: usize| list[i] as usize;
                Input::OwnTiles(Tiles::new(a32, list.len(), token, &self.pool))
            }
        }
    }

    /// Panels of 32 rows: each is packed once and multiplied with all tiles of tokens.
    fn panels(
        &self,
        product: &Product<'_>,
        rows: Range<usize>,
        tiles: &Tiles,
        scratch: &mut Scratch,
    ) {
        let Product {
            matrix,
            tokens,
            out,
            ..
        } = product;
        let Some(kernels) = self.integer(matrix).and_then(|k| k.blocked) else {
            unreachable!("tiles are made only for these kernels");
        };
        let panels = rows.len().div_ceil(PANEL_ROWS);
        if scratch.panels.len() < panels {
            scratch.panels.resize_with(panels, Default::default);
        }
        for p in 0..panels {
            let start = rows.start + p * PANEL_ROWS;
            let end = (start + PANEL_ROWS).min(rows.end);
            (kernels.pack)(
                matrix.bytes(start..end),
                matrix.row_bytes(),
                &mut scratch.panels[p],
            );
        }
        scratch.sums.clear();
        scratch
            .sums
            .resize(panels * tokens.len(), [0.0; PANEL_ROWS]);
        let slice = (SLICE_BLOCKS / tiles.supers().max(1)).clamp(1, 8);
        for strand in (0..8).step_by(slice) {
            let strands = strand..(strand + slice).min(8);
            let mut sums = scratch.sums.as_mut_slice();
            for tile in 0..tiles.len() {
                for panel in &scratch.panels[..panels] {
                    let own;
                    (own, sums) = sums.split_at_mut(tiles.tokens(tile));
                    (kernels.tile)(panel, tiles, tile, strands.clone(), own);
                }
            }
        }
        let first = rows.start - product.rows.start;
        let mut sums = scratch.sums.iter();
        let mut token = 0;
        for tile in 0..tiles.len() {
            for p in 0..panels {
                let start = p * PANEL_ROWS;
                let n = PANEL_ROWS.min(rows.len() - start);
                for (t, sums) in sums.by_ref().take(tiles.tokens(tile)).enumerate() {
                    let at = (token + t) * product.rows.len() + first + start;
                    // SAFETY: units of a product have disjoint rows.
                    unsafe { out.write(at, &sums[..n]) };
                }
            }
            token += tiles.tokens(tile);
        }
    }

    fn integer(&self, matrix: &Matrix) -> Option<integer::Kernels> {
        integer::kernels(matrix.ty(), self.isa).filter(|_| !self.exact)
    }

    /// Rows one by one: each is unpacked once and multiplied with all tokens.
    fn rows(
        &self,
        product: &Product<'_>,
        rows: Range<usize>,
        x: &Activations,
        scratch: &mut Scratch,
    ) {
        let Product {
            matrix,
            tokens,
            out,
            ..
        } = product;
        let n = rows.len();
        scratch.out.resize(n * tokens.len(), 0.0);
        if let Some(kernels) = self.integer(matrix) {
            let x = x.a32(&self.pool);
            scratch.codes.resize(x.supers());
            for (i, row) in rows.clone().enumerate() {
                (kernels.unpack)(matrix.bytes(row..row + 1), &mut scratch.codes);
                for t in 0..tokens.len() {
                    scratch.out[t * n + i] = (kernels.dot)(&scratch.codes, x.token(tokens.get(t)));
                }
            }
        } else {
            let dot = float::kernels(self.isa).dot;
            scratch.floats.resize(matrix.cols(), 0.0);
            for (i, row) in rows.clone().enumerate() {
                self.decode_row(matrix, row, &mut scratch.floats);
                for t in 0..tokens.len() {
                    scratch.out[t * n + i] = dot(&scratch.floats, x.token(tokens.get(t)));
                }
            }
        }
        let first = rows.start - product.rows.start;
        for (t, values) in scratch.out.chunks_exact(n).enumerate() {
            // SAFETY: units of a product have disjoint rows.
            unsafe { out.write(t * product.rows.len() + first, values) };
        }
    }
}

fn product<'a>(
    matrix: &'a Matrix,
    rows: Range<usize>,
    tokens: Tokens<'a>,
    out: &'a mut [f32],
) -> Product<'a> {
    assert!(rows.end <= matrix.rows(), "{matrix:?} has no rows {rows:?}");
    assert_eq!(out.len(), rows.len() * tokens.len(), "output of {matrix:?}");
    Product {
        matrix,
        rows,
        tokens,
        out: Out::new(out),
    }
}

impl std::fmt::Debug for Compute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compute")
            .field("isa", &self.isa)
            .field("exact", &self.exact)
            .field("threads", &self.pool.threads())
            .finish()
    }
}
