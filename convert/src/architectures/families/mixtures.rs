//! Decoders whose only peculiarity is how their experts are routed and named.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::llama::{PARAMS, rope_dimension};
use super::{CORE, FFN, MOE, QK_NORM, QKV, SHARED, flag, layer_of, shaped, split_gate_up};
use crate::Error;
use crate::config::{as_f64, as_u32};
use crate::expr::Expr;

pub(super) const GATE_UP_DOWN: &[&str] = &["gate_proj", "up_proj", "down_proj"];

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "dots1",
        classes: &["Dots1ForCausalLM"],
        parts: &[
            CORE,
            QKV,
            QK_NORM,
            FFN,
            MOE,
            SHARED,
            &[Part::FfnNorm, Part::FfnExpProbsB],
        ],
        params: &[
            Param::Base,
            Param::MaybeU32("expert_feed_forward_length", &["moe_intermediate_size"]),
            Param::MaybeU32("leading_dense_block_count", &["first_k_dense_replace"]),
            Param::MaybeU32("expert_shared_count", &["n_shared_experts"]),
            Param::MaybeF32("expert_weights_scale", &["routed_scaling_factor"]),
            Param::With(|model, keys| {
                keys.set("expert_weights_norm", flag(&model.config, "norm_topk_prob"));
                Ok(())
            }),
        ],
        ..PLAIN
    },
    Architecture {
        name: "afmoe",
        expert_order: GATE_UP_DOWN,
        classes: &["AfmoeForCausalLM"],
        parts: &[
            CORE,
            QKV,
            QK_NORM,
            FFN,
            MOE,
            SHARED,
            &[
                Part::RopeFreqs,
                Part::AttnPostNorm,
                Part::AttnGate,
                Part::FfnPreNorm,
                Part::FfnPostNorm,
                Part::FfnExpProbsB,
            ],
        ],
        params: &[
            Param::Base,
            Param::U32("vocab_size", &["vocab_size"]),
            Param::With(rope_dimension),
            Param::MaybeU32("expert_shared_count", &["num_shared_experts"]),
            Param::MaybeU32("expert_feed_forward_length", &["moe_intermediate_size"]),
            Param::MaybeU32("leading_dense_block_count", &["num_dense_layers"]),
            Param::With(|model, keys| {
                if let Some(norm) = model.config.bool("route_norm") {
                    keys.set("expert_weights_norm", norm);
                }
                Ok(())
            }),
            Param::MaybeF32("expert_weights_scale", &["route_scale"]),
            Param::MaybeU32("attention.sliding_window", &["sliding_window"]),
        ],
        rules: &[Rule(
            "*.mlp.expert_bias",
            Action::Replace("expert_bias", "expert_bias.bias"),
        )],
        ..PLAIN
    },
    Architecture {
        name: "ernie4_5-moe",
        expert_order: GATE_UP_DOWN,
        classes: &["Ernie4_5_MoeForCausalLM"],
        parts: &[
            CORE,
            QKV,
            FFN,
            MOE,
            SHARED,
            &[Part::FfnNorm, Part::FfnExpProbsB],
        ],
        params: &[Param::Base, Param::With(ernie)],
        rules: &[Rule("*mtp_*", Action::Drop)],
        ..PLAIN
    },
    Architecture {
        name: "llama4",
        classes: &["Llama4ForCausalLM", "Llama4ForConditionalGeneration"],
        parts: &[
            CORE,
            QKV,
            FFN,
            MOE,
            SHARED,
            &[Part::RopeFreqs, Part::FfnNorm],
        ],
        defaults: |config| {
            if let Some(width) = config.get("intermediate_size_mlp").cloned() {
                config.set("prefix_dense_intermediate_size", width);
            }
        },
        params: &[Param::With(llama4)],
        rules: &[
            Rule("*.experts.gate_up_proj", Action::With(transposed_gate_up)),
            Rule("*.experts.down_proj", Action::With(transposed_down)),
        ],
        ..PLAIN
    },
    Architecture {
        name: "dbrx",
        classes: &["DbrxForCausalLM"],
        parts: &[CORE, MOE, &[Part::AttnQkv, Part::AttnOutNorm]],
        params: &[Param::With(dbrx)],
        rules: &[
            Rule("*.experts.mlp.w1", Action::With(expert_matrices)),
            Rule("*.experts.mlp.v1", Action::With(expert_matrices)),
            Rule("*.experts.mlp.w2", Action::With(expert_matrices)),
        ],
        ..PLAIN
    },
];

fn ernie(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    keys.set("expert_count", config.u32(&["moe_num_experts"])?);
    keys.set("expert_used_count", config.u32(&["moe_k"])?);
    keys.set(
        "interleave_moe_layer_step",
        config.u32(&["moe_layer_interval"])?,
    );
    keys.set(
        "leading_dense_block_count",
        config.u32(&["moe_layer_start_index"])?,
    );
    let width = config.u32(&["moe_intermediate_size"])?;
    keys.set("expert_feed_forward_length", width);
    if let Some(shared) = config.opt_u32(&["moe_num_shared_experts"])? {
        keys.set("expert_shared_count", shared);
        // The reference's width; the tensors show their own.
        if let Some(width) = config.opt_u32(&["intermediate_size"])?
            && shared > 0
        {
            let heads = config.kv_heads()?.max(1);
            keys.set("expert_shared_feed_forward_length", width / heads);
        }
    }
    Ok(())
}

fn llama4(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    for param in PARAMS {
        param.write(model, keys)?;
    }
    let config = &model.config;
    keys.set(
        "interleave_moe_layer_step",
        config.u32(&["interleave_moe_layer_step"])?,
    );
    keys.set(
        "expert_feed_forward_length",
        config.u32(&["intermediate_size"])?,
    );
    if let Some(types) = config.list("layer_types")
        && types.iter().all(|ty| ty.as_str() == Some("full_attention"))
    {
        keys.set("attention.sliding_window", 0u32);
    }
    Ok(())
}

pub(super) fn transposed_gate_up(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let layer = layer_of(name)?;
    split_gate_up(
        name,
        &shaped(name, expr.transpose())?,
        &format!("blk.{layer}.ffn_gate_exps.weight"),
        &format!("blk.{layer}.ffn_up_exps.weight"),
    )
}

pub(super) fn transposed_down(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let down = shaped(name, expr.transpose())?;
    Ok(vec![(format!("{name}.weight"), down)])
}

fn dbrx(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let number = |path: &str| -> Result<f64, Error> {
        let value = config.json().pointer(path).and_then(as_f64);
        value.ok_or_else(|| Error::config(path, "is missing or no number"))
    };
    keys.set("block_count", model.block_count()?);
    keys.set("context_length", config.u32(&["max_seq_len"])?);
    keys.set("embedding_length", config.u32(&["d_model"])?);
    keys.set(
        "feed_forward_length",
        number("/ffn_config/ffn_hidden_size")? as u32,
    );
    keys.set("attention.head_count", config.u32(&["n_heads"])?);
    keys.set(
        "attention.head_count_kv",
        number("/attn_config/kv_n_heads")? as u32,
    );
    keys.set("rope.freq_base", number("/attn_config/rope_theta")? as f32);
    keys.set(
        "attention.clamp_kqv",
        number("/attn_config/clip_qkv")? as f32,
    );
    keys.set(
        "expert_count",
        number("/ffn_config/moe_num_experts")? as u32,
    );
    keys.set("expert_used_count", number("/ffn_config/moe_top_k")? as u32);
    keys.set("attention.layer_norm_epsilon", 1e-5f32);
    keys.file_type();
    Ok(())
}

/// Matrices of all experts, one below the other, as a stack; the way down is stored transposed.
fn expert_matrices(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let count = model.config.json().pointer("/ffn_config/moe_num_experts");
    let count = u64::from(count.and_then(as_u32).unwrap_or(0)).max(1);
    let shape = [expr.row_len(), expr.row_count() / count, count];
    let mut stack = shaped(name, expr.reshape(&shape))?;
    if name.ends_with(".w2") {
        stack = shaped(name, stack.transpose())?;
    }
    Ok(vec![(format!("{name}.weight"), stack)])
}
