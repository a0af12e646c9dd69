//! GLM 4 and 4.5.

use super::super::{Action, Architecture, PLAIN, Param, Part, Rule};
use super::{CORE, FFN, MOE, NEXTN, QK_NORM, QKV, SHARED, partial_rotary};

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "glm4",
        classes: &["Glm4ForCausalLM"],
        parts: &[
            CORE,
            QKV,
            &[
                Part::FfnNorm,
                Part::FfnDown,
                Part::FfnUp,
                Part::AttnPostNorm,
                Part::FfnPostNorm,
            ],
        ],
        params: &[
            Param::Base,
            Param::With(|model, keys| partial_rotary(model, keys, 0.5)),
        ],
        ..PLAIN
    },
    Architecture {
        name: "glm4moe",
        classes: &["Glm4MoeForCausalLM"],
        parts: &[
            CORE,
            QKV,
            QK_NORM,
            FFN,
            MOE,
            SHARED,
            NEXTN,
            &[Part::AttnPostNorm, Part::FfnExpProbsB],
        ],
        params: &[
            Param::Base,
            Param::With(|model, keys| partial_rotary(model, keys, 0.5)),
            Param::MaybeU32("expert_feed_forward_length", &["moe_intermediate_size"]),
            Param::MaybeU32("expert_shared_count", &["n_shared_experts"]),
            Param::MaybeU32("leading_dense_block_count", &["first_k_dense_replace"]),
            Param::SetU32("expert_gating_func", 2),
            Param::MaybeF32("expert_weights_scale", &["routed_scaling_factor"]),
            Param::With(|model, keys| {
                if let Some(norm) = model.config.bool("norm_topk_prob") {
                    keys.set("expert_weights_norm", norm);
                }
                Ok(())
            }),
            Param::MaybeU32("nextn_predict_layers", &["num_nextn_predict_layers"]),
        ],
        rules: &[Rule("*.rotary_emb.*", Action::Drop)],
        extra_layers: |model| {
            Ok(model
                .config
                .opt_u32(&["num_nextn_predict_layers"])?
                .unwrap_or_default())
        },
        ..PLAIN
    },
];
