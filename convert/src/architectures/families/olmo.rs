//! OLMo 1 to 3 and OLMoE.

use super::super::{Action, Architecture, Keys, Model, PLAIN, Param, Part, Rule};
use super::llama::PERMUTED;
use super::{CORE, FFN, MOE, QK_NORM, QKV, layer_types};
use crate::Error;
use crate::config::Config;

const OLMO2: Architecture = Architecture {
    name: "olmo2",
    parts: &[
        CORE,
        QKV,
        QK_NORM,
        FFN,
        &[Part::AttnPostNorm, Part::FfnPostNorm],
    ],
    ..PLAIN
};

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        name: "olmo",
        classes: &["OlmoForCausalLM", "OLMoForCausalLM"],
        parts: &[QKV, FFN, &[Part::TokenEmbd, Part::Output, Part::AttnOut]],
        params: &[
            Param::Base,
            Param::SetF32("attention.layer_norm_epsilon", 1e-5),
            Param::MaybeF32("attention.clamp_kqv", &["clip_qkv"]),
        ],
        rules: PERMUTED,
        ..PLAIN
    },
    Architecture {
        classes: &["Olmo2ForCausalLM"],
        ..OLMO2
    },
    Architecture {
        classes: &["Olmo3ForCausalLM"],
        defaults: local_rope,
        params: &[Param::Base, Param::With(sliding_window)],
        ..OLMO2
    },
    Architecture {
        name: "olmoe",
        classes: &["OlmoeForCausalLM"],
        parts: &[CORE, QKV, QK_NORM, MOE, &[Part::FfnNorm]],
        defaults: |config| config.set_default("rms_norm_eps", 1e-5),
        params: &[
            Param::Base,
            Param::BoolUnless("expert_weights_norm", "norm_topk_prob", false),
        ],
        rules: &[Rule("*.rotary_emb.*", Action::Drop)],
        ..PLAIN
    },
];

/// The class gives layers with a window the base of the others.
fn local_rope(config: &mut Config) {
    if let Some(base) = config.rope_f64("rope_theta") {
        config.set_local_rope_default(base);
    }
}

fn sliding_window(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let config = &model.config;
    let Some(window) = config.opt_u32(&["sliding_window"])? else {
        return Ok(());
    };
    keys.set("attention.sliding_window", window);
    let every_fourth = || {
        (1..=config.layers().unwrap_or(0))
            .map(|n| n % 4 != 0)
            .collect()
    };
    let pattern = layer_types(config, "sliding_attention").unwrap_or_else(every_fourth);
    keys.set("attention.sliding_window_pattern", pattern);
    Ok(())
}
