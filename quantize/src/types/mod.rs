//! Tensor types: decoding, encoding, validation.
//!
//! A type is one file here: a unit struct that implements [`Format`], and one row in [`CODECS`].

mod floats;
mod format;
mod improve;
mod iq1_m;
mod iq1_s;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_s;
mod iq3_xxs;
mod iq4_nl;
mod iq4_xs;
mod k_quant;
mod lattice;
mod legacy;
mod mxfp4;
mod nvfp4;
mod packing;
mod q1_0;
mod q2_0;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod ternary;
mod tq1_0;
mod tq2_0;

pub(crate) use format::{Codec, Format, Rows};
pub use format::{Effort, ImportanceUse};

use gristmill_gguf::{TensorType, invalid_blocks};

use crate::isa::{Isa, IsaError};

/// Every type that decodes and encodes here.
static CODECS: &[Codec] = &[
    Codec::of::<floats::F32, 4, 1>(),
    Codec::of::<floats::F16, 2, 1>(),
    Codec::of::<floats::Bf16, 2, 1>(),
    Codec::of::<iq2_xxs::Iq2Xxs, 66, 256>(),
    Codec::of::<iq2_xs::Iq2Xs, 74, 256>(),
    Codec::of::<iq3_xxs::Iq3Xxs, 98, 256>(),
    Codec::of::<iq1_s::Iq1S, 50, 256>(),
    Codec::of::<iq4_nl::Iq4Nl, 18, 32>(),
    Codec::of::<iq3_s::Iq3S, 110, 256>(),
    Codec::of::<iq2_s::Iq2S, 82, 256>(),
    Codec::of::<iq4_xs::Iq4Xs, 136, 256>(),
    Codec::of::<iq1_m::Iq1M, 56, 256>(),
    Codec::of::<tq1_0::Tq1_0, 54, 256>(),
    Codec::of::<tq2_0::Tq2_0, 66, 256>(),
    Codec::of::<mxfp4::Mxfp4, 17, 32>(),
    Codec::of::<nvfp4::Nvfp4, 36, 64>(),
    Codec::of::<q1_0::Q1_0, 18, 128>(),
    Codec::of::<q2_0::Q2_0, 18, 64>(),
    Codec::of::<q4_0::Q4_0, 18, 32>(),
    Codec::of::<q4_1::Q4_1, 20, 32>(),
    Codec::of::<q5_0::Q5_0, 22, 32>(),
    Codec::of::<q5_1::Q5_1, 24, 32>(),
    Codec::of::<q8_0::Q8_0, 34, 32>(),
    Codec::of::<q2_k::Q2K, 84, 256>(),
    Codec::of::<q3_k::Q3K, 110, 256>(),
    Codec::of::<q4_k::Q4K, 144, 256>(),
    Codec::of::<q5_k::Q5K, 176, 256>(),
    Codec::of::<q6_k::Q6K, 210, 256>(),
];

/// Why rows could not be decoded, encoded or accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The type holds no weights: an integer, f64 or activation type.
    #[error("{0} is not a type for weights: it can be neither decoded nor encoded")]
    NoCodec(TensorType),
    /// The row is not a whole number of blocks.
    #[error("{ty} holds blocks of {block} values: a row of {row_len} does not divide into them")]
    RowLength {
        /// The type.
        ty: TensorType,
        /// Values in a row.
        row_len: usize,
        /// Values in a block.
        block: usize,
    },
    /// A buffer has the wrong size.
    #[error("{ty}: {what} should hold {expected}, not {found}")]
    Size {
        /// The type.
        ty: TensorType,
        /// Which buffer.
        what: &'static str,
        /// Elements it should hold.
        expected: usize,
        /// Elements it holds.
        found: usize,
    },
    /// The type cannot be encoded without importance.
    #[error("{0} cannot be encoded without importance")]
    ImportanceRequired(TensorType),
    /// A block holds what no encoder writes.
    #[error("{ty} block {block}: {} that is not finite", if ty.is_quantized() { "a scale" } else { "a value" })]
    Invalid {
        /// The type.
        ty: TensorType,
        /// Index of the block in the given bytes.
        block: usize,
    },
    /// `GRIST_CPU` cannot be followed.
    #[error(transparent)]
    Isa(#[from] IsaError),
}

fn codec(ty: TensorType) -> Result<&'static Codec, Error> {
    CODECS
        .iter()
        .find(|codec| codec.ty == ty)
        .ok_or(Error::NoCodec(ty))
}

/// The types that decode and encode here, in order of id.
pub fn supported() -> impl Iterator<Item = TensorType> {
    TensorType::all().filter(|&ty| codec(ty).is_ok())
}

/// What the encoder of `ty` does with importance at effort `reference`. At effort `best` every
/// quantized type but Q1_0 uses it where it is given.
///
/// # Errors
/// If the type has no encoder.
pub fn importance_use(ty: TensorType) -> Result<ImportanceUse, Error> {
    Ok(codec(ty)?.importance)
}

/// Decodes whole blocks to f32, bit for bit as ggml does.
///
/// # Errors
/// If the type has no decoder, `bytes` is no whole number of blocks, or `values` does not hold
/// exactly what they decode to.
pub fn decode(ty: TensorType, bytes: &[u8], values: &mut [f32]) -> Result<(), Error> {
    decode_on(Isa::detect()?, ty, bytes, values)
}

/// [`decode`] on a given instruction set.
///
/// # Errors
/// As [`decode`].
pub fn decode_on(isa: Isa, ty: TensorType, bytes: &[u8], values: &mut [f32]) -> Result<(), Error> {
    let codec = codec(ty)?;
    let blocks = whole_blocks(ty, bytes)?;
    check_size(ty, "the output", blocks * ty.layout().values, values.len())?;
    (codec.decode)(isa, bytes, values);
    Ok(())
}

/// Encodes rows of `row_len` values that lie one after another in `values` into `bytes`, which
/// must hold exactly the encoded rows. `importance`, if given, has `row_len` weights for the
/// columns, the same for every row. Every row is encoded by itself: the bytes do not depend on how
/// rows are grouped into calls. Values that are not finite give bytes without meaning.
///
/// # Errors
/// If the type has no encoder, a row is no whole number of blocks, a buffer has the wrong size, or
/// the type needs importance and none is given.
pub fn encode(
    ty: TensorType,
    effort: Effort,
    values: &[f32],
    row_len: usize,
    importance: Option<&[f32]>,
    bytes: &mut [u8],
) -> Result<(), Error> {
    encode_on(
        Isa::detect()?,
        ty,
        effort,
        values,
        row_len,
        importance,
        bytes,
    )
}

/// [`encode`] on a given instruction set; the bytes are the same on all.
///
/// # Errors
/// As [`encode`].
pub fn encode_on(
    isa: Isa,
    ty: TensorType,
    effort: Effort,
    values: &[f32],
    row_len: usize,
    importance: Option<&[f32]>,
    bytes: &mut [u8],
) -> Result<(), Error> {
    let codec = codec(ty)?;
    let layout = ty.layout();
    if row_len == 0 || !row_len.is_multiple_of(layout.values) {
        let block = layout.values;
        return Err(Error::RowLength { ty, row_len, block });
    }
    let whole_rows = values.len() / row_len * row_len;
    check_size(ty, "the input", whole_rows, values.len())?;
    check_size(
        ty,
        "the output",
        values.len() / layout.values * layout.bytes,
        bytes.len(),
    )?;
    match importance {
        Some(importance) => check_size(ty, "importance", row_len, importance.len())?,
        None if codec.importance == ImportanceUse::Required => {
            return Err(Error::ImportanceRequired(ty));
        }
        None => {}
    }
    let rows = Rows {
        isa,
        values,
        row_len,
        importance,
    };
    (codec.encode)(&rows, effort, bytes);
    Ok(())
}

/// Checks that the scales of every block are finite, as ggml does when it loads or writes rows.
///
/// # Errors
/// If the type has no decoder, `bytes` is no whole number of blocks, or a block is invalid.
pub fn validate(ty: TensorType, bytes: &[u8]) -> Result<(), Error> {
    codec(ty)?;
    whole_blocks(ty, bytes)?;
    match invalid_blocks(ty, bytes).next() {
        Some(block) => Err(Error::Invalid { ty, block }),
        None => Ok(()),
    }
}

fn whole_blocks(ty: TensorType, bytes: &[u8]) -> Result<usize, Error> {
    let block = ty.layout().bytes;
    let blocks = bytes.len() / block;
    check_size(ty, "the blocks", blocks * block, bytes.len())?;
    Ok(blocks)
}

fn check_size(
    ty: TensorType,
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), Error> {
    if expected == found {
        Ok(())
    } else {
        Err(Error::Size {
            ty,
            what,
            expected,
            found,
        })
    }
}
