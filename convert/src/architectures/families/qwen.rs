//! Qwen 2 and 3, dense and with experts.

use super::super::{Architecture, PLAIN, Param, Part};
use super::{CORE, FFN, MOE, QK_NORM, QKV, SHARED};

/// Widths of the experts.
const MOE_PARAMS: &[Param] = &[
    Param::Base,
    Param::MaybeU32("expert_feed_forward_length", &["moe_intermediate_size"]),
    Param::MaybeU32(
        "expert_shared_feed_forward_length",
        &["shared_expert_intermediate_size"],
    ),
];

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "qwen2",
        classes: &["Qwen2ForCausalLM", "Qwen2Model"],
        parts: &[CORE, QKV, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        ..PLAIN
    },
    Architecture {
        name: "qwen3",
        classes: &["Qwen3ForCausalLM", "Qwen3Model"],
        parts: &[CORE, QKV, QK_NORM, FFN, &[Part::RopeFreqs, Part::FfnNorm]],
        ..PLAIN
    },
    Architecture {
        name: "qwen2moe",
        classes: &["Qwen2MoeForCausalLM"],
        parts: &[
            CORE,
            QKV,
            MOE,
            SHARED,
            &[Part::FfnNorm, Part::FfnGateInpShexp],
        ],
        params: MOE_PARAMS,
        ..PLAIN
    },
    Architecture {
        name: "qwen3moe",
        classes: &["Qwen3MoeForCausalLM"],
        parts: &[CORE, QKV, QK_NORM, MOE, &[Part::FfnNorm]],
        params: MOE_PARAMS,
        ..PLAIN
    },
];
