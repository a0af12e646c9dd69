//! What becomes of stored tensors, by name.

use super::Model;
use crate::Error;
use crate::expr::{Arithmetic, Expr, ShapeError};

/// A pattern of names (in which `*` stands for any text) and what happens to tensors of such a
/// name.
pub(crate) struct Rule(pub(crate) &'static str, pub(crate) Action);

/// A tensor under way: the name by which it will be looked up, and its rows.
pub(crate) type Named = (String, Expr);

/// What a rule does.
pub(crate) enum Action {
    /// The tensor is not needed.
    Drop,
    /// Generated tensors are made of it.
    Elsewhere,
    /// Not needed if the output shares the embedding's weights.
    DropIfTied,
    /// Rows (or values of a bias) of the query heads from halves to pairs.
    PermuteQ,
    /// The same for the key heads.
    PermuteK,
    /// Norms that store `w` and compute with `1 + w`.
    AddOne,
    /// `A_log` to `A = -exp(A_log)`.
    NegExp,
    /// Dimensions of one removed.
    Squeeze,
    /// First two dimensions swapped.
    Transpose,
    /// Values rounded to -s, 0 and s, where s is their mean magnitude.
    Ternary,
    /// A part of the name replaced.
    Replace(&'static str, &'static str),
    /// Whatever needs code; the results go on through the rules that follow.
    With(fn(&Model, &str, Expr) -> Result<Vec<Named>, Error>),
}

impl Action {
    pub(super) fn apply(&self, model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
        let heads = |count: u32| {
            // A quantized weight's factor goes the way of the weight, unchanged.
            if expr.elements() == 1 {
                return Ok(vec![(name.to_owned(), expr.clone())]);
            }
            expr.permute_heads(count.into())
                .map(|expr| vec![(name.to_owned(), expr)])
                .map_err(|error| shape_error(name, &error))
        };
        let keep = |expr: Result<Expr, ShapeError>| {
            expr.map(|expr| vec![(name.to_owned(), expr)])
                .map_err(|error| shape_error(name, &error))
        };
        match self {
            Self::Drop | Self::Elsewhere => Ok(Vec::new()),
            Self::DropIfTied => {
                if model.config.bool("tie_word_embeddings").unwrap_or(false) {
                    Ok(Vec::new())
                } else {
                    keep(Ok(expr))
                }
            }
            Self::PermuteQ => heads(model.config.heads()?),
            Self::PermuteK => heads(model.config.kv_heads()?),
            Self::AddOne => keep(Ok(expr.compute(Arithmetic::Add(1.0)))),
            Self::NegExp => keep(Ok(expr.compute(Arithmetic::NegExp))),
            Self::Ternary => keep(Ok(expr.ternary())),
            Self::Squeeze => keep(expr.squeeze()),
            Self::Transpose => keep(expr.transpose()),
            Self::Replace(from, to) => Ok(vec![(name.replacen(from, to, 1), expr)]),
            Self::With(apply) => apply(model, name, expr),
        }
    }
}

/// A shape that does not fit, as an error of the tensor.
pub(super) fn shape_error(name: &str, error: &ShapeError) -> Error {
    Error::tensor(name, error.to_string())
}

/// Whether a name matches a pattern in which `*` stands for any text.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches(
            "*.q_proj.*",
            "model.layers.0.self_attn.q_proj.weight"
        ));
        assert!(!matches(
            "*.q_proj.*",
            "model.layers.0.self_attn.q_proj_bias"
        ));
        assert!(matches("lm_head.weight", "lm_head.weight"));
        assert!(!matches("lm_head.weight", "x.lm_head.weight"));
        assert!(matches(
            "model.*norm*.weight",
            "model.layers.3.q_norm.weight"
        ));
        assert!(!matches("a*a", "a"));
    }
}
