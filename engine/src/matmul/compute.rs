//! The driver of products: what is computed where, and by whom.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use gristmill_gguf::TensorType;
use gristmill_quantize::Isa;
use gristmill_quantize::types::decode_on;

use super::activations::Activations;
use super::float::Stored;
use super::matrix::Matrix;
use super::panels::{Plan, multiply_panels, pack_panels};
use super::product::{Product, Tokens};
use super::{BLOCK, PANEL_ROWS, RowSums, float, integer};
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

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    floats: Vec<f32>,
    out: Vec<f32>,
    integer_panels: Vec<integer::Panel>,
    float_panels: Vec<float::Panel>,
    sums: Vec<RowSums>,
}

/// How a product is computed, and from what.
enum Input<'a> {
    /// Row by row, from the activations themselves.
    Rows,
    /// By panels of codes.
    Integer(integer::Blocked, Tiles<'a, integer::Tiles>),
    /// By panels of f32.
    Float(float::Blocked, Tiles<'a, float::Tiles>),
}

/// Tiles of all tokens, which other products share, or of those routed to an expert.
enum Tiles<'a, T> {
    Shared(&'a T),
    Own(T),
}

impl<T> std::ops::Deref for Tiles<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Tiles::Shared(tiles) => tiles,
            Tiles::Own(tiles) => tiles,
        }
    }
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
            .map(|(matrix, out)| {
                Product::new(matrix, 0..matrix.rows(), Tokens::All(x.tokens()), out)
            })
            .collect();
        self.run(&products, x);
    }

    /// The product of some rows only; `out` is token-major, tokens x `rows.len()`.
    ///
    /// # Panics
    /// If the sizes do not agree.
    pub fn mul_rows(&self, matrix: &Matrix, rows: Range<usize>, x: &Activations, out: &mut [f32]) {
        self.run(
            &[Product::new(matrix, rows, Tokens::All(x.tokens()), out)],
            x,
        );
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
                all.push(Product::new(
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
            self.decode_rows(matrix, row..row + 1, out);
        }
    }

    fn decode_rows(&self, matrix: &Matrix, rows: Range<usize>, out: &mut [f32]) {
        decode_on(self.isa, matrix.ty(), matrix.bytes(rows), out)
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
                _ => PANEL_ROWS * panel_group(x.cols()),
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
                Input::Integer(kernels, tiles) => {
                    integer_panels(*kernels, product, rows, tiles, scratch);
                }
                Input::Float(kernels, tiles) => {
                    self.float_panels(*kernels, product, rows, tiles, scratch);
                }
            });
        };
        if work < SMALL {
            (0..units.len()).for_each(unit);
        } else {
            self.pool.run(units.len(), unit);
        }
    }

    fn input<'x>(&self, product: &Product<'_>, x: &'x Activations) -> Input<'x> {
        let pool = &self.pool;
        let integer = self.integer(product.matrix);
        if integer.is_some() {
            x.a32(self.isa, pool); // by all threads, not by the first unit
        }
        if product.tokens.len() < BLOCKED_TOKENS {
            return Input::Rows;
        }
        match (integer, float::kernels(self.isa).blocked) {
            (
                Some(integer::Kernels {
                    blocked: Some(kernels),
                    ..
                }),
                _,
            ) => Input::Integer(
                kernels,
                match product.tokens {
                    Tokens::All(_) => Tiles::Shared(x.tiles(self.isa, pool)),
                    Tokens::Some(list) => {
                        let token = |i: usize| list[i] as usize;
                        let a32 = x.a32(self.isa, pool);
                        Tiles::Own(integer::Tiles::new(a32, list.len(), token, pool))
                    }
                },
            ),
            (None, Some(kernels)) => Input::Float(
                kernels,
                match product.tokens {
                    Tokens::All(_) => Tiles::Shared(x.float_tiles(pool)),
                    Tokens::Some(list) => {
                        let token = |i: usize| list[i] as usize;
                        Tiles::Own(float::Tiles::new(x, list.len(), token, pool))
                    }
                },
            ),
            _ => Input::Rows,
        }
    }

    fn float_panels(
        &self,
        kernels: float::Blocked,
        product: &Product<'_>,
        rows: Range<usize>,
        tiles: &float::Tiles,
        scratch: &mut Scratch,
    ) {
        let matrix = product.matrix;
        let floats = &mut scratch.floats;
        let pack = |panel: &mut float::Panel, rows: Range<usize>| {
            let stored = match matrix.ty() {
                TensorType::F32 => bytemuck::try_cast_slice(matrix.bytes(rows.clone())).ok(),
                _ => None,
            };
            let values = stored.unwrap_or_else(|| {
                floats.resize(rows.len() * matrix.cols(), 0.0);
                self.decode_rows(matrix, rows, floats);
                floats
            });
            (kernels.pack)(values, matrix.cols(), panel);
        };
        let panels = pack_panels(&mut scratch.float_panels, rows.clone(), pack);
        let plan = Plan {
            strands: float::STRANDS,
            strand_bytes: panels[0].steps() * PANEL_ROWS * size_of::<f32>(),
            tiles: (0..tiles.len()).map(|tile| tiles.tokens(tile)).collect(),
        };
        multiply_panels(
            product,
            rows,
            &plan,
            panels,
            &mut scratch.sums,
            |panel, tile, strands, sums| {
                (kernels.tile)(panel, tiles, tile, strands, sums);
            },
        );
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
        let Product { matrix, tokens, .. } = product;
        let n = rows.len();
        scratch.out.resize(n * tokens.len(), 0.0);
        if let Some(kernels) = self.integer(matrix) {
            let x = x.a32(self.isa, &self.pool);
            let x: Vec<_> = (0..tokens.len()).map(|t| x.token(tokens.get(t))).collect();
            let mut products = [0.0; integer::ROW_TOKENS];
            for (i, row) in rows.clone().enumerate() {
                let bytes = matrix.bytes(row..row + 1);
                let mut out = scratch.out[i..].iter_mut().step_by(n);
                for x in x.chunks(integer::ROW_TOKENS) {
                    let products = &mut products[..x.len()];
                    (kernels.row)(bytes, x, products);
                    out.by_ref()
                        .zip(products)
                        .for_each(|(out, product)| *out = *product);
                }
            }
        } else {
            let dot = float::kernels(self.isa).dot;
            scratch.floats.resize(matrix.cols(), 0.0);
            for (i, row) in rows.clone().enumerate() {
                let (stored, row) = match matrix.ty() {
                    TensorType::F32 => (Stored::F32, matrix.bytes(row..row + 1)),
                    TensorType::F16 => (Stored::F16, matrix.bytes(row..row + 1)),
                    TensorType::BF16 => (Stored::Bf16, matrix.bytes(row..row + 1)),
                    _ => {
                        self.decode_rows(matrix, row..row + 1, &mut scratch.floats);
                        (Stored::F32, bytemuck::cast_slice(&scratch.floats))
                    }
                };
                for t in 0..tokens.len() {
                    scratch.out[t * n + i] = dot(stored, row, x.token(tokens.get(t)));
                }
            }
        }
        for (t, values) in scratch.out.chunks_exact(n).enumerate() {
            // SAFETY: units of a product have disjoint rows.
            unsafe { product.write(t, rows.start, values) };
        }
    }
}

fn integer_panels(
    kernels: integer::Blocked,
    product: &Product<'_>,
    rows: Range<usize>,
    tiles: &integer::Tiles,
    scratch: &mut Scratch,
) {
    let matrix = product.matrix;
    let pack = |panel: &mut integer::Panel, rows: Range<usize>| {
        (kernels.pack)(matrix.bytes(rows), matrix.row_bytes(), panel);
    };
    let panels = pack_panels(&mut scratch.integer_panels, rows.clone(), pack);
    let plan = Plan {
        strands: integer::STRANDS,
        strand_bytes: tiles.supers() * BLOCK * PANEL_ROWS,
        tiles: (0..tiles.len()).map(|tile| tiles.tokens(tile)).collect(),
    };
    multiply_panels(
        product,
        rows,
        &plan,
        panels,
        &mut scratch.sums,
        |panel, tile, strands, sums| {
            (kernels.tile)(panel, tiles, tile, strands, sums);
        },
    );
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
