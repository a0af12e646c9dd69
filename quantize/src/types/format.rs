//! What a tensor type provides, and its row in the registry.

use gristmill_gguf::{TensorType, f16_scales};

use crate::half::{f16_to_f32, f32_to_f16};
use crate::isa::Isa;
use crate::search::unshrunk::unshrink;
use crate::simd::{Kernel, Simd, dispatch};

/// How hard an encoder searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Effort {
    /// ggml's bytes.
    Reference,
    /// The least error that a search of about the same time finds in the same format.
    #[default]
    Best,
}

impl Effort {
    /// Name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Best => "best",
        }
    }
}

/// What an encoder does with importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImportanceUse {
    /// Nothing.
    Ignored,
    /// Uses it where it is given.
    Optional,
    /// Cannot do without.
    Required,
}

/// Rows to encode: lengths are checked to fit.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Instruction set to run on.
    pub(crate) isa: Isa,
    /// The rows, one after another.
    pub(crate) values: &'a [f32],
    /// Values in a row.
    pub(crate) row_len: usize,
    /// A weight for each column.
    pub(crate) importance: Option<&'a [f32]>,
}

impl<'a> Rows<'a> {
    /// The blocks of all rows in order, each with its slice of the importance.
    pub(crate) fn blocks<const VALUES: usize>(
        &self,
    ) -> impl Iterator<Item = (&'a [f32; VALUES], Option<&'a [f32; VALUES]>)> + use<'a, VALUES>
    {
        let per_row = self.row_len / VALUES;
        let importance = self.importance.map(|all| all.as_chunks().0);
        self.values
            .as_chunks()
            .0
            .iter()
            .enumerate()
            .map(move |(i, block)| (block, importance.map(|all| &all[i % per_row])))
    }
}

/// A tensor type of `BYTES` bytes per block of `VALUES` values.
pub(crate) trait Format<const BYTES: usize, const VALUES: usize> {
    /// Its name in the file.
    const TYPE: TensorType;
    /// What `encode` at effort `reference` does with importance.
    const IMPORTANCE: ImportanceUse;

    /// Whether effort `best` stretches what it finds, see [`crate::search::unshrunk`].
    const STRETCHED: bool = true;

    /// Decodes a block, with ggml's operations in ggml's order. Must be `#[inline(always)]`.
    fn decode<S: Simd>(simd: S, block: &[u8; BYTES], values: &mut [f32; VALUES]);

    /// Encodes all rows into as many blocks as they have.
    fn encode(rows: &Rows<'_>, effort: Effort, blocks: &mut [[u8; BYTES]]);

    /// Multiplies what the block decodes to by `factor`, as nearly as its scales can hold.
    #[inline(always)]
    fn rescale(block: &mut [u8; BYTES], factor: f32) {
        for &at in f16_scales(Self::TYPE) {
            let bits = rescaled(u16::from_le_bytes([block[at], block[at + 1]]), factor);
            block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        }
    }
}

/// A [`Format`] behind function pointers: a row of the registry.
pub(crate) struct Codec {
    pub(crate) ty: TensorType,
    pub(crate) importance: ImportanceUse,
    pub(crate) decode: fn(Isa, &[u8], &mut [f32]),
    pub(crate) encode: fn(&Rows<'_>, Effort, &mut [u8]),
}

impl Codec {
    /// The registry row of a format.
    pub(crate) const fn of<T, const BYTES: usize, const VALUES: usize>() -> Self
    where
        T: Format<BYTES, VALUES>,
    {
        Self {
            ty: T::TYPE,
            importance: T::IMPORTANCE,
            decode: decode::<T, BYTES, VALUES>,
            encode: |rows, effort, bytes| {
                let blocks = bytes.as_chunks_mut().0;
                T::encode(rows, effort, blocks);
                if effort == Effort::Best && T::TYPE.is_quantized() && T::STRETCHED {
                    unshrink::<T, BYTES, VALUES>(rows, blocks);
                }
            },
        }
    }
}

fn decode<T: Format<BYTES, VALUES>, const BYTES: usize, const VALUES: usize>(
    isa: Isa,
    bytes: &[u8],
    values: &mut [f32],
) {
    let blocks = bytes.as_chunks().0;
    let values = values.as_chunks_mut().0;
    dispatch(
        isa,
        Decode::<T, BYTES, VALUES> {
            blocks,
            values,
            format: std::marker::PhantomData,
        },
    );
}

struct Decode<'a, T, const BYTES: usize, const VALUES: usize> {
    blocks: &'a [[u8; BYTES]],
    values: &'a mut [[f32; VALUES]],
    format: std::marker::PhantomData<T>,
}

impl<T: Format<BYTES, VALUES>, const BYTES: usize, const VALUES: usize> Kernel
    for Decode<'_, T, BYTES, VALUES>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (block, values) in self.blocks.iter().zip(self.values) {
            T::decode(simd, block, values);
        }
    }
}

/// The bits of an f16 multiplied by a factor; unchanged where the product is beyond its range.
#[inline(always)]
pub(crate) fn rescaled(bits: u16, factor: f32) -> u16 {
    let product = f32_to_f16(f16_to_f32(bits) * factor);
    if f16_to_f32(product).is_finite() {
        product
    } else {
        bits
    }
}

/// The f16 stored at byte `at` of a block.
#[inline(always)]
pub(crate) fn f16_at<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}
