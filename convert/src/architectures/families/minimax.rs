//! MiniMax: norms of queries and keys, sigmoid routing, and, since the third, attention to chosen
//! blocks of keys.

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, MOE, QK_NORM, QKV, SHARED, split_gate_up};
use crate::Error;
use crate::config::as_u32;
use crate::expr::Expr;

const M2: Architecture = Architecture {
    name: "minimax-m2",
    classes: &["MiniMaxM2ForCausalLM"],
    parts: &[
        CORE,
        QKV,
        QK_NORM,
        MOE,
        &[Part::FfnNorm, Part::FfnExpProbsB],
    ],
    params: &[
        Param::Base,
        Param::U32("expert_feed_forward_length", &["intermediate_size"]),
        Param::U32("rope.dimension_count", &["rotary_dim"]),
    ],
    ..PLAIN
};

pub(super) const ALL: &[Architecture] = &[
    M2,
    Architecture {
        name: "minimax-m3",
        classes: &[
            "MiniMaxM3SparseForCausalLM",
            "MiniMaxM3SparseForConditionalGeneration",
            "MiniMaxM3VLForCausalLM",
        ],
        parts: &[
            CORE,
            QKV,
            QK_NORM,
            FFN,
            MOE,
            SHARED,
            &[
                Part::FfnNorm,
                Part::FfnExpProbsB,
                Part::IndexerQProj,
                Part::IndexerKProj,
                Part::IndexerQNorm,
                Part::IndexerKNorm,
            ],
        ],
        params: &[
            Param::Base,
            Param::U32("expert_feed_forward_length", &["intermediate_size"]),
            Param::U32("rope.dimension_count", &["rotary_dim"]),
            Param::U32Or("expert_shared_count", &["n_shared_experts"], 1),
            Param::F32("expert_weights_scale", &["routed_scaling_factor"]),
            Param::SetBool("expert_weights_norm", true),
            Param::With(sparse),
        ],
        rules: &[
            Rule("*norm.weight", Action::AddOne),
            // As transformers saves it.
            Rule("*.gate_up_proj.weight", Action::With(gate_up)),
            Rule(
                "*.self_attn.indexer.*",
                Action::Replace("indexer.", "index_"),
            ),
        ],
        ..M2
    },
];

/// The indexer's sizes, which the published configuration has in a table of its own, and the layers
/// without experts.
fn sparse(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let table = config.get("sparse_attention_config");
    for (key, own, flat) in [
        ("head_count", "sparse_num_index_heads", "index_n_heads"),
        ("key_length", "sparse_index_dim", "index_head_dim"),
        ("top_k", "sparse_topk_blocks", "index_topk_blocks"),
        ("block_size", "sparse_block_size", "index_block_size"),
        ("local_blocks", "sparse_local_block", "index_local_blocks"),
    ] {
        let listed = table.and_then(|table| as_u32(table.get(own)?));
        let value = match listed {
            Some(value) => value,
            None => config.u32(&[flat])?,
        };
        keys.set(&format!("attention.indexer.{key}"), value);
    }
    let dense = match (
        config.list("moe_layer_freq"),
        config.list("mlp_layer_types"),
    ) {
        (Some(list), _) => {
            let dense = list.iter().take_while(|every| as_u32(every) == Some(0));
            dense.count() as u32
        }
        (None, Some(types)) => super::interleaved::leading_dense(types),
        (None, None) => 0,
    };
    keys.set("leading_dense_block_count", dense);
    Ok(())
}

fn gate_up(_: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let part = |part: &str| name.replace("gate_up_proj", part);
    split_gate_up(name, &expr, &part("gate_proj"), &part("up_proj"))
}
