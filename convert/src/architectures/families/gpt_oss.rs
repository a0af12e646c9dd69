//! gpt-oss: experts in MXFP4 or BF16, gate and up rows alternating.

use super::super::{Action, Architecture, Model, Named, PLAIN, Param, Part, Rule};
use super::{CORE, MOE, QKV, layer_of, shaped};
use crate::Error;
use crate::expr::{Expr, Strided};
use crate::storage::mxfp4;

pub(super) const ALL: &[Architecture] = &[Architecture {
    name: "gpt-oss",
    classes: &["GptOssForCausalLM"],
    parts: &[CORE, QKV, MOE, &[Part::AttnPostNorm, Part::AttnSinks]],
    params: &[
        Param::Base,
        Param::U32("attention.sliding_window", &["sliding_window"]),
        Param::U32("expert_feed_forward_length", &["intermediate_size"]),
    ],
    rules: &[
        Rule("*_blocks", Action::Elsewhere),
        Rule("*_scales", Action::Elsewhere),
        Rule("*.sinks", Action::Replace("sinks", "sinks.weight")),
        Rule(
            "*.experts.down_proj_bias",
            Action::Replace("down_proj_bias", "down_proj.bias"),
        ),
        Rule("*.experts.gate_up_proj_bias", Action::With(split_bias)),
        Rule("*.experts.down_proj", Action::With(transposed_down)),
        Rule("*.experts.gate_up_proj", Action::With(transposed_gate_up)),
    ],
    generated: packed_experts,
    ..PLAIN
}];

/// Every second row of each slice.
fn alternating(name: &str, expr: &Expr, first: u64) -> Result<Expr, Error> {
    let [_, rows, experts] = *expr.shape() else {
        return Err(Error::tensor(name, "is no stack of matrices"));
    };
    let half = rows / 2;
    let view = Strided::new(first, [(experts, rows), (half, 2)]);
    shaped(name, expr.rows_view(view, &[half, experts]))
}

fn gate_up(name: &str, expr: &Expr) -> Result<Vec<Named>, Error> {
    let layer = layer_of(name)?;
    Ok(vec![
        (
            format!("blk.{layer}.ffn_gate_exps.weight"),
            alternating(name, expr, 0)?,
        ),
        (
            format!("blk.{layer}.ffn_up_exps.weight"),
            alternating(name, expr, 1)?,
        ),
    ])
}

fn transposed_gate_up(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    gate_up(name, &shaped(name, expr.transpose())?)
}

fn transposed_down(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let layer = layer_of(name)?;
    let down = shaped(name, expr.transpose())?;
    Ok(vec![(format!("blk.{layer}.ffn_down_exps.weight"), down)])
}

fn split_bias(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let layer = layer_of(name)?;
    let half = expr.row_len() / 2;
    let every_second = |first| shaped(name, expr.columns(Strided::new(first, [(half, 2)])));
    Ok(vec![
        (format!("blk.{layer}.ffn_gate_exps.bias"), every_second(0)?),
        (format!("blk.{layer}.ffn_up_exps.bias"), every_second(1)?),
    ])
}

/// Experts stored as MXFP4 blocks and scales, in ggml's order of nibbles; nothing is rounded.
fn packed_experts(model: &Model) -> Result<Vec<Named>, Error> {
    let mut out = super::super::rope::factors(model)?;
    for blocks in model.tensors {
        let Some(name) = blocks.name.strip_suffix("_blocks") else {
            continue;
        };
        let scales_name = format!("{name}_scales");
        let scales = model
            .stored(&scales_name)
            .ok_or_else(|| Error::tensor(&scales_name, "is missing"))?;
        let expr = mxfp4::expr(blocks, scales)?;
        if name.ends_with("gate_up_proj") {
            out.extend(gate_up(name, &expr)?);
        } else {
            let layer = layer_of(name)?;
            out.push((format!("blk.{layer}.ffn_down_exps.weight"), expr));
        }
    }
    Ok(out)
}
