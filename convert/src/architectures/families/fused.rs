//! Decoders that store several projections in one matrix which the file holds apart.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, QKV, gather, layer_of, qkv_views, shaped};
use crate::Error;
use crate::expr::{Expr, Strided};

/// Where the layout of rows comes from: a key that nothing reads, but that files have.
const ORIGINAL_LAYOUT: Param = Param::SetStr("tensor_data_layout", "Meta AI original pth");

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "internlm2",
        classes: &["InternLM2ForCausalLM"],
        parts: &[CORE, QKV, FFN, &[Part::FfnNorm]],
        rules: &[Rule("*.attention.wqkv.*", Action::With(by_group))],
        ..PLAIN
    },
    Architecture {
        name: "baichuan",
        classes: &["BaichuanForCausalLM", "BaiChuanForCausalLM"],
        parts: &[CORE, QKV, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        params: &[Param::Base, ORIGINAL_LAYOUT, Param::With(head_rows)],
        rules: &[Rule("*.W_pack.weight", Action::With(thirds))],
        ..PLAIN
    },
    Architecture {
        name: "xverse",
        classes: &["XverseForCausalLM"],
        parts: &[CORE, QKV, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        params: &[Param::Base, ORIGINAL_LAYOUT, Param::With(head_rows)],
        rules: super::llama::PERMUTED,
        ..PLAIN
    },
    Architecture {
        name: "orion",
        classes: &["OrionForCausalLM"],
        parts: &[CORE, QKV, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        params: &[
            Param::FileType,
            ORIGINAL_LAYOUT,
            Param::U32(
                "context_length",
                &[
                    "max_sequence_length",
                    "max_position_embeddings",
                    "model_max_length",
                ],
            ),
            Param::U32("embedding_length", &["hidden_size"]),
            Param::With(blocks),
            Param::U32("feed_forward_length", &["intermediate_size"]),
            Param::U32("attention.head_count", &["num_attention_heads"]),
            Param::U32(
                "attention.head_count_kv",
                &["num_key_value_heads", "num_attention_heads"],
            ),
            // LayerNorm's, whatever the field is called.
            Param::F32("attention.layer_norm_epsilon", &["rms_norm_eps"]),
        ],
        ..PLAIN
    },
    Architecture {
        name: "codeshell",
        classes: &["CodeShellForCausalLM"],
        parts: &[
            CORE,
            &[Part::AttnQkv, Part::FfnNorm, Part::FfnDown, Part::FfnUp],
        ],
        params: &[
            Param::U32("context_length", &["n_positions"]),
            Param::U32("embedding_length", &["n_embd"]),
            Param::With(|model, keys| {
                let width = model.config.u32(&["n_embd"])?.saturating_mul(4);
                keys.set("feed_forward_length", width);
                blocks(model, keys)
            }),
            Param::U32("attention.head_count", &["n_head"]),
            Param::U32("attention.head_count_kv", &["num_query_groups"]),
            Param::F32("attention.layer_norm_epsilon", &["layer_norm_epsilon"]),
            Param::FileType,
            Param::SetF32("rope.freq_base", 10000.0),
            Param::SetStr("rope.scaling.type", "linear"),
            Param::SetF32("rope.scaling.factor", 1.0),
        ],
        ..PLAIN
    },
    Architecture {
        name: "refact",
        classes: &["GPTRefactForCausalLM"],
        parts: &[CORE, QKV, FFN, &[Part::FfnNorm]],
        params: &[
            Param::U32("context_length", &["n_positions"]),
            Param::U32("embedding_length", &["n_embd"]),
            Param::With(|model, keys| {
                // Two thirds of four times the width, in whole 256s.
                let width = u64::from(model.config.u32(&["n_embd"])?) * 8 / 3;
                keys.set("feed_forward_length", width.next_multiple_of(256) as u32);
                blocks(model, keys)
            }),
            Param::U32("attention.head_count", &["n_head"]),
            Param::SetU32("attention.head_count_kv", 1),
            Param::F32("attention.layer_norm_rms_epsilon", &["layer_norm_epsilon"]),
            Param::FileType,
        ],
        rules: &[
            Rule("*.attn.q.weight", Action::With(query)),
            Rule("*.attn.kv.weight", Action::With(key_value)),
            Rule("*.mlp.gate_up_proj.weight", Action::With(gate_up)),
        ],
        ..PLAIN
    },
];

fn blocks(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    keys.set("block_count", model.block_count()?);
    Ok(())
}

/// Rotary dimensions: the width over the heads.
fn head_rows(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let dim = model.config.hidden()? / model.config.heads()?.max(1);
    keys.set("rope.dimension_count", dim);
    Ok(())
}

/// Queries, keys and values as tensors of their own, the first two for rotation by pairs.
pub(super) fn apart(
    name: &str,
    expr: &Expr,
    views: [Strided; 3],
    heads: [u64; 2],
) -> Result<Vec<Named>, Error> {
    let layer = layer_of(name)?;
    let suffix = if name.ends_with(".bias") {
        "bias"
    } else {
        "weight"
    };
    let mut out = Vec::with_capacity(3);
    for (at, (part, view)) in ["q", "k", "v"].into_iter().zip(views).enumerate() {
        let mut rows = shaped(name, gather(expr, &[view]))?;
        if let Some(&heads) = heads.get(at) {
            rows = shaped(name, rows.permute_heads(heads))?;
        }
        out.push((format!("blk.{layer}.attn_{part}.{suffix}"), rows));
    }
    Ok(out)
}

/// Groups of query heads, a key head and a value head.
fn by_group(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let config = &model.config;
    let (heads, groups) = (u64::from(config.heads()?), u64::from(config.kv_heads()?));
    let dim = u64::from(config.hidden()?) / heads.max(1);
    let views = qkv_views(groups, heads / groups.max(1), dim);
    apart(name, &expr, views, [heads, groups])
}

fn thirds(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let third = expr.row_count() / 3;
    let views = [0, 1, 2].map(|part| Strided::range(part * third..(part + 1) * third));
    let heads = u64::from(model.config.heads()?);
    let groups = u64::from(model.config.kv_heads()?);
    apart(name, &expr, views, [heads, groups])
}

fn query(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    Ok(vec![(
        format!("blk.{}.attn_q.weight", layer_of(name)?),
        expr,
    )])
}

fn key_value(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    halves(name, &expr, ["attn_k", "attn_v"])
}

fn gate_up(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    halves(name, &expr, ["ffn_gate", "ffn_up"])
}

fn halves(name: &str, expr: &Expr, stems: [&str; 2]) -> Result<Vec<Named>, Error> {
    let layer = layer_of(name)?;
    let names = stems.map(|stem| format!("blk.{layer}.{stem}.weight"));
    super::split_gate_up(name, expr, &names[0], &names[1])
}
