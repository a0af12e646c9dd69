//! The architectures, a file for each family.

mod bailing;
mod bert;
mod cohere;
mod deci;
mod deepseek;
mod diffusion;
mod exaone;
mod falcon;
mod fused;
mod gemma;
mod glm;
mod gpt;
mod gpt_oss;
mod granite;
mod hunyuan;
mod interleaved;
mod lfm2;
mod llama;
mod mamba;
mod minicpm;
mod minimax;
mod mixtures;
mod nemotron;
mod olmo;
mod phi;
mod plain;
mod qwen;
mod qwen_next;
mod ssm;
mod t5;

use serde_json::Value as Json;

use super::names::Part;
use super::params::Keys;
use super::rules::{Named, shape_error};
use super::{Architecture, Model};
use crate::Error;
use crate::config::Config;
use crate::expr::{Expr, ShapeError, Strided};

/// Every architecture.
pub(super) const ALL: &[&[Architecture]] = &[
    bailing::ALL,
    bert::ALL,
    cohere::ALL,
    deci::ALL,
    deepseek::ALL,
    diffusion::ALL,
    exaone::ALL,
    falcon::ALL,
    fused::ALL,
    gemma::ALL,
    glm::ALL,
    gpt::ALL,
    gpt_oss::ALL,
    granite::ALL,
    hunyuan::ALL,
    interleaved::ALL,
    lfm2::ALL,
    llama::ALL,
    mamba::ALL,
    minicpm::ALL,
    minimax::ALL,
    mixtures::ALL,
    nemotron::ALL,
    olmo::ALL,
    phi::ALL,
    plain::ALL,
    qwen::ALL,
    qwen_next::ALL,
    ssm::ALL,
    t5::ALL,
];

/// Kinds of tensors that nearly every decoder has.
const CORE: &[Part] = &[
    Part::TokenEmbd,
    Part::OutputNorm,
    Part::Output,
    Part::AttnNorm,
    Part::AttnOut,
];
/// Separate query, key and value projections.
const QKV: &[Part] = &[Part::AttnQ, Part::AttnK, Part::AttnV];
/// Norms of queries and keys.
const QK_NORM: &[Part] = &[Part::AttnQNorm, Part::AttnKNorm];
/// A gated feed-forward network.
const FFN: &[Part] = &[Part::FfnGate, Part::FfnDown, Part::FfnUp];
/// Routed experts.
const MOE: &[Part] = &[
    Part::FfnGateInp,
    Part::FfnGateExp,
    Part::FfnDownExp,
    Part::FfnUpExp,
];
/// Experts that every token goes through.
const SHARED: &[Part] = &[Part::FfnGateShexp, Part::FfnDownShexp, Part::FfnUpShexp];
/// Latent attention.
const MLA: &[Part] = &[
    Part::AttnQA,
    Part::AttnQB,
    Part::AttnKvAMqa,
    Part::AttnKvANorm,
    Part::AttnQANorm,
    Part::AttnKB,
    Part::AttnVB,
];
/// Multi-token prediction.
const NEXTN: &[Part] = &[
    Part::NextnEhProj,
    Part::NextnEmbedTokens,
    Part::NextnEnorm,
    Part::NextnHnorm,
    Part::NextnSharedHeadHead,
    Part::NextnSharedHeadNorm,
];
/// State space of Mamba 2.
const SSM: &[Part] = &[
    Part::SsmIn,
    Part::SsmConv1d,
    Part::SsmDt,
    Part::SsmA,
    Part::SsmD,
    Part::SsmNorm,
    Part::SsmOut,
];

/// A result of a shape operation, with the tensor's name in its error.
fn shaped(name: &str, expr: Result<Expr, ShapeError>) -> Result<Expr, Error> {
    expr.map_err(|error| shape_error(name, &error))
}

/// Halves of the rows of every slice: stacked `gate` and `up` matrices of experts.
fn split_gate_up(name: &str, expr: &Expr, gate: &str, up: &str) -> Result<Vec<Named>, Error> {
    let (rows, outer) = match *expr.shape() {
        [_, rows] => (rows, None),
        [_, rows, slices] => (rows, Some(slices)),
        _ => (1, None),
    };
    if rows % 2 != 0 {
        return Err(Error::tensor(name, "does not hold two halves"));
    }
    let half = rows / 2;
    let view = |offset: u64| {
        let view = match outer {
            Some(slices) => expr.rows_view(
                Strided::new(offset, [(slices, rows), (half, 1)]),
                &[half, slices],
            ),
            None => expr.rows_view(Strided::range(offset..offset + half), &[half]),
        };
        shaped(name, view)
    };
    Ok(vec![
        (gate.to_owned(), view(0)?),
        (up.to_owned(), view(half)?),
    ])
}

/// Rows (or values of a bias) of several views, one view after another.
fn gather(expr: &Expr, views: &[Strided]) -> Result<Expr, ShapeError> {
    let parts: Vec<Expr> = views
        .iter()
        .map(|view| expr.reorder(view))
        .collect::<Result<_, _>>()?;
    let rows = views.iter().map(Strided::len).sum();
    if let [_] = expr.shape() {
        let columns = parts
            .iter()
            .map(|part| part.reshape(&[1, part.elements()]))
            .collect::<Result<_, _>>()?;
        return Expr::concat(columns, &[rows])?.reshape(&[rows]);
    }
    Expr::concat(parts, &[rows])
}

/// Query, key and value rows that stand together, head by head: `groups` groups of `q` query
/// heads, a key head and a value head, each of `dim` rows. All queries come first, then all keys.
fn regroup_qkv(expr: &Expr, groups: u64, q: u64, dim: u64) -> Result<Expr, ShapeError> {
    gather(expr, &qkv_views(groups, q, dim))
}

/// Where the queries, the keys and the values of such groups stand.
fn qkv_views(groups: u64, q: u64, dim: u64) -> [Strided; 3] {
    let group = (q + 2) * dim;
    let view =
        |first: u64, heads: u64| Strided::new(first * dim, [(groups, group), (heads * dim, 1)]);
    [view(0, q), view(q, 1), view(q + 1, 1)]
}

/// `rope.dimension_count`: the rotated part of a head.
fn partial_rotary(model: &Model, keys: &mut Keys, default: f64) -> Result<(), Error> {
    let factor = model
        .config
        .rope_f64("partial_rotary_factor")
        .unwrap_or(default);
    let dim = f64::from(model.config.head_dim()?) * factor;
    keys.set("rope.dimension_count", dim as u32);
    Ok(())
}

/// Which layers are of a kind, by `layer_types`; `None` where the configuration does not list them.
fn layer_types(config: &Config, kind: &str) -> Option<Vec<bool>> {
    let types = config.list("layer_types")?;
    Some(types.iter().map(|ty| ty.as_str() == Some(kind)).collect())
}

/// The layer's number in a name, for rules that only see names of layers.
fn layer_of(name: &str) -> Result<u32, Error> {
    super::layer(name).ok_or_else(|| Error::tensor(name, "names no layer"))
}

/// Numbers of a list in the configuration, as f32 after arithmetic in f64.
fn floats(config: &Config, field: &'static str) -> Result<Vec<f64>, Error> {
    let list = config
        .list(field)
        .ok_or_else(|| Error::config(field, "is no list"))?;
    list.iter()
        .map(crate::config::as_f64)
        .collect::<Option<_>>()
        .ok_or_else(|| Error::config(field, "has an item that is no number"))
}

/// A field as a flag; absent is false.
fn flag(config: &Config, field: &str) -> bool {
    config.get(field).and_then(Json::as_bool).unwrap_or(false)
}
