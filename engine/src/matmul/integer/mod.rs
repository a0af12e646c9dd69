//! Products of 8-bit codes; the arithmetic is described in [`super`].

mod portable;

use gristmill_gguf::TensorType;
use gristmill_quantize::Isa;

use super::activations::A32Token;
use super::codes::{self, CodeRow, Codes};

/// The kernels of one type on one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// Unpacks a stored row into a buffer of the right size.
    pub unpack: fn(&[u8], &mut CodeRow),
    /// The product of an unpacked row and a token.
    pub dot: fn(&CodeRow, A32Token<'_>) -> f32,
}

fn of<T: Codes>(_isa: Isa) -> Kernels {
    Kernels {
        unpack: codes::unpack_row::<T>,
        dot: portable::dot::<T::Shape>,
    }
}

/// The kernels of a type; `None` if its products are not made of integers. The CPU must have the
/// instruction set.
pub(super) fn kernels(ty: TensorType, isa: Isa) -> Option<Kernels> {
    Some(match ty {
        TensorType::Q4_0 => of::<codes::Q4_0>(isa),
        TensorType::Q4_1 => of::<codes::Q4_1>(isa),
        TensorType::Q5_0 => of::<codes::Q5_0>(isa),
        TensorType::Q5_1 => of::<codes::Q5_1>(isa),
        TensorType::Q8_0 => of::<codes::Q8_0>(isa),
        TensorType::Q2_K => of::<codes::Q2_K>(isa),
        TensorType::Q3_K => of::<codes::Q3_K>(isa),
        TensorType::Q4_K => of::<codes::Q4_K>(isa),
        TensorType::Q5_K => of::<codes::Q5_K>(isa),
        TensorType::Q6_K => of::<codes::Q6_K>(isa),
        _ => return None,
    })
}

/// Whether a type's products are made of integers.
pub(super) fn has(ty: TensorType) -> bool {
    kernels(ty, Isa::Portable).is_some()
}
