//! Which type a converted tensor is written in.

use std::str::FromStr;

use gristmill_gguf::TensorType;

use crate::expr::Expr;

/// The type that a conversion writes its matrices in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Output {
    /// The stored type if that is BF16 or F16, else F16.
    #[default]
    Auto,
    /// F32 throughout.
    F32,
    /// F16, norms and the like in F32.
    F16,
    /// BF16, norms and the like in F32.
    BF16,
    /// Q8_0, norms and the like in F32.
    Q8_0,
}

/// A word that is no output type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown output type `{0}`: known are auto, f32, f16, bf16, q8_0")]
pub struct UnknownOutput(pub String);

impl FromStr for Output {
    type Err = UnknownOutput;

    fn from_str(word: &str) -> Result<Self, UnknownOutput> {
        Ok(match word.to_ascii_lowercase().as_str() {
            "auto" => Self::Auto,
            "f32" => Self::F32,
            "f16" => Self::F16,
            "bf16" => Self::BF16,
            "q8_0" => Self::Q8_0,
            _ => return Err(UnknownOutput(word.to_owned())),
        })
    }
}

impl Output {
    /// The type that matrices get: for `Auto` that of the first stored tensor of two or more
    /// dimensions that is BF16 or F16.
    pub(crate) fn tensor_type<'a>(self, inputs: impl IntoIterator<Item = &'a Expr>) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::BF16 => TensorType::BF16,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Auto => {
                let matrices = inputs.into_iter().filter(|expr| expr.shape().len() >= 2);
                let mut types = matrices.map(Expr::ty);
                types
                    .find(|ty| matches!(ty, TensorType::BF16 | TensorType::F16))
                    .unwrap_or(TensorType::F16)
            }
        }
    }
}

/// `general.file_type` of a file whose matrices have this type, but for those that `kept` says are
/// stored in blocks.
pub(crate) fn file_type(ty: TensorType, kept: Option<TensorType>) -> u32 {
    match (ty, kept) {
        (TensorType::Q8_0, _) => 7,
        (_, Some(TensorType::MXFP4)) => 38,
        (_, Some(TensorType::NVFP4)) => 39,
        (TensorType::F16, _) => 1,
        (TensorType::BF16, _) => 32,
        _ => 0,
    }
}

/// Names (of GGUF) whose tensors are read as F32 by every graph.
const ALWAYS_F32: [&str; 16] = [
    "ffn_gate_inp.weight",
    "ffn_gate_inp_shexp.weight",
    "position_embd.weight",
    "token_types.weight",
    "ssm_conv1d.weight",
    "ssm_conv1d_q.weight",
    "ssm_conv1d_k.weight",
    "ssm_conv1d_v.weight",
    "shortconv.conv.weight",
    "time_mix_first.weight",
    "altup_correct_coef.weight",
    "altup_predict_coef.weight",
    "indexer.proj.weight",
    "indexer.q_proj.weight",
    "indexer.k_proj.weight",
    "time_mix_lerp_fused.weight",
];

/// The type of one tensor in a file whose matrices have type `wanted`. Blocks that are stored
/// stay as they are; rows that are no whole number of blocks become F16.
pub(crate) fn type_of(name: &str, expr: &Expr, wanted: TensorType) -> TensorType {
    if expr.ty().is_quantized() {
        return expr.ty();
    }
    let always = ALWAYS_F32
        .iter()
        .any(|suffix| name.strip_suffix(suffix).is_some_and(is_prefix));
    let vector = expr.shape().len() <= 1;
    if vector || name.ends_with("_norm.weight") || always || !is_weight(name) {
        return TensorType::F32;
    }
    if wanted.row_bytes(expr.row_len()).is_none() {
        return TensorType::F16;
    }
    wanted
}

fn is_prefix(rest: &str) -> bool {
    rest.is_empty() || rest.ends_with('.')
}

fn is_weight(name: &str) -> bool {
    [".weight", ".lora_a", ".lora_b"]
        .iter()
        .any(|suffix| name.ends_with(suffix))
}
