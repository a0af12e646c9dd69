//! Fields of the configuration that change what a model computes, and that nobody heeded.

mod fields;
mod kinds;
mod values;

use serde_json::Value as Json;

pub(crate) use kinds::check_kinds;
pub(crate) use values::{refuse, unheeded_scaling};

use crate::config::{Config, as_f64};

/// Fields that change the graph of some architecture, with the value that changes nothing.
const FIELDS: &[(&str, Neutral)] = &[
    ("alibi", Neutral::Flag(false)),
    (
        "apply_residual_connection_post_layernorm",
        Neutral::Flag(false),
    ),
    ("attention_chunk_size", Neutral::Absent),
    ("attention_in_multiplier", Neutral::Number(1.0)),
    ("attention_k_eq_v", Neutral::Flag(false)),
    ("attention_multiplier", Neutral::HeadScale),
    ("attention_out_multiplier", Neutral::Number(1.0)),
    ("attention_sink", Neutral::Flag(false)),
    ("attn_logit_softcapping", Neutral::Number(0.0)),
    ("clip_qkv", Neutral::Absent),
    ("embedding_multiplier", Neutral::Number(1.0)),
    ("final_logit_softcapping", Neutral::Number(0.0)),
    ("input_jitter_noise", Neutral::Any),
    ("key_multiplier", Neutral::Number(1.0)),
    ("layer_norm_epsilon", Neutral::Number(1e-5)),
    ("lm_head_multiplier", Neutral::Number(1.0)),
    ("logit_scale", Neutral::Number(1.0)),
    ("logits_scaling", Neutral::Number(1.0)),
    ("mamba_norm_before_gate", Neutral::Flag(false)),
    ("mup_enabled", Neutral::Flag(true)),
    ("n_shared_experts", Neutral::Number(0.0)),
    ("num_experts", Neutral::Number(0.0)),
    ("num_local_experts", Neutral::Number(0.0)),
    ("n_routed_experts", Neutral::Number(0.0)),
    ("partial_rotary_factor", Neutral::Number(1.0)),
    (
        "position_embedding_type",
        Neutral::Text(&["absolute", "rope", "rope_gptj", "rotary"]),
    ),
    ("query_pre_attn_scalar", Neutral::HeadLength),
    ("residual_multiplier", Neutral::Number(1.0)),
    ("rope_local_base_freq", Neutral::Number(10000.0)),
    ("rope_theta", Neutral::Number(10000.0)),
    ("rotary_emb_base", Neutral::Number(10000.0)),
    ("rotary_pct", Neutral::Number(1.0)),
    ("routed_scaling_factor", Neutral::Number(1.0)),
    ("router_scale", Neutral::Number(1.0)),
    ("scale_attn_by_inverse_layer_idx", Neutral::Flag(false)),
    ("scale_depth", Neutral::Absent),
    ("scale_emb", Neutral::Number(1.0)),
    ("swiglu_limit", Neutral::Number(0.0)),
    ("use_cla", Neutral::Flag(false)),
    ("use_double_wide_mlp", Neutral::Flag(false)),
    ("vocab_parallel_scale", Neutral::Number(1.0)),
];

/// The value of a field that leaves a graph as it is.
#[derive(Debug, Clone, Copy)]
enum Neutral {
    Flag(bool),
    Number(f64),
    /// One of these words.
    Text(&'static [&'static str]),
    /// One over the root of a head's length: how scores are scaled without the field.
    HeadScale,
    /// A head's length, of which the scale of the scores is made.
    HeadLength,
    /// Only its absence.
    Absent,
    /// Every value: the field matters to training alone.
    Any,
}

impl Neutral {
    fn admits(self, value: &Json, config: &Config) -> bool {
        let number = as_f64(value);
        let near = |expected: f64| {
            number.is_some_and(|number| (number - expected).abs() <= 1e-6 * expected.abs())
        };
        let head = || config.head_dim().ok().map(f64::from);
        match self {
            Self::Flag(flag) => value.as_bool() == Some(flag),
            Self::Number(expected) => near(expected),
            Self::Text(words) => value.as_str().is_some_and(|word| words.contains(&word)),
            Self::HeadScale => head().is_some_and(|length| near(length.sqrt().recip())),
            Self::HeadLength => head().is_some_and(near),
            Self::Absent => false,
            Self::Any => true,
        }
    }
}

/// Values that a graph has built in, where GGUF has no key for them.
const BUILT_IN: [(&str, &str, f64); 7] = [
    ("afmoe", "global_attn_every_n_layers", 4.0),
    ("cohere2", "sliding_window_pattern", 4.0),
    ("gpt-oss", "swiglu_limit", 7.0),
    ("llama4", "attention_chunk_size", 8192.0),
    ("minicpm3", "dim_model_base", 256.0),
    ("minicpm3", "scale_depth", 1.4),
    ("minicpm3", "scale_emb", 12.0),
];

/// Mixtures whose graph brings the weights of the chosen experts to a sum of one; those of others
/// do so where a key says it.
const NORMALISED: [&str; 5] = [
    "lfm2moe",
    "qwen35moe",
    "qwen3moe",
    "qwen3next",
    "qwen3vlmoe",
];

/// What of the configuration has no effect though it changes the model: one warning for each field.
/// Called when everything that is heeded has been asked for.
pub(crate) fn unheeded(config: &Config, architecture: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (field, neutral) in FIELDS {
        if let Some(value) = config.stated(field)
            && !config.is_heeded(field)
            && !neutral.admits(value, config)
            && !BUILT_IN.iter().any(|(of, name, fixed)| {
                (*of, name) == (architecture, field) && as_f64(value) == Some(*fixed)
            })
        {
            found.push(format!("`{field}` is {value}"));
        }
    }
    for (of, field, fixed) in BUILT_IN {
        if of == architecture
            && let Some(value) = config.stated(field)
            && !FIELDS.iter().any(|(known, _)| *known == field)
            && as_f64(value) != Some(fixed)
        {
            found.push(format!("`{field}` is {value}"));
        }
    }
    if let Some(normalised) = config.stated("norm_topk_prob").and_then(Json::as_bool)
        && !config.is_heeded("norm_topk_prob")
        && normalised != NORMALISED.contains(&architecture)
    {
        found.push(format!("`norm_topk_prob` is {normalised}"));
    }
    if let Some(window) = config.stated("sliding_window")
        && !config.is_heeded("sliding_window")
        && config.stated("use_sliding_window") != Some(&Json::Bool(false))
        && let Some(window) = window.as_u64()
        && window > 0
        && config
            .stated("max_position_embeddings")
            .and_then(Json::as_u64)
            > Some(window)
    {
        found.push(format!("`sliding_window` is {window}"));
    }
    let mut warnings: Vec<String> = found
        .into_iter()
        .map(|fact| unheeded_fact(&fact, architecture))
        .collect();
    warnings.extend(unknown(config, architecture));
    warnings
}

/// The warning for a fact of the configuration.
fn unheeded_fact(fact: &str, architecture: &str) -> String {
    format!(
        "config.json: {fact}, which the {architecture} graph of GGUF does not heed: results will differ \
         from the model's own"
    )
}

/// One word on the fields that neither conversion nor these tables know, but for those that are off.
fn unknown(config: &Config, architecture: &str) -> Option<String> {
    let judged = |field: &str| {
        FIELDS.iter().any(|(known, _)| *known == field)
            || values::is_judged(field)
            || BUILT_IN
                .iter()
                .any(|(of, known, _)| (*of, *known) == (architecture, field))
            || ["sliding_window", "use_sliding_window", "norm_topk_prob"].contains(&field)
    };
    let off = |value: &Json| match value {
        Json::Bool(on) => !on,
        Json::Number(number) => number.as_f64() == Some(0.0),
        Json::String(text) => text.is_empty(),
        // Lists and tables are what sub-models, quantizations and patterns of layers are made of.
        _ => true,
    };
    let fields = config.json().as_object()?;
    let named: Vec<String> = fields
        .iter()
        .filter(|(field, value)| {
            !(off(value) || config.is_heeded(field) || judged(field) || fields::is_known(field))
        })
        .map(|(field, value)| format!("`{field}` ({value})"))
        .collect();
    (!named.is_empty()).then(|| {
        format!(
            "config.json: nothing is known of {}; if that changes what the model computes, results \
             will differ from the model's own",
            named.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn named(config: Json) -> Vec<String> {
        let config = Config::new(&config);
        // What a plain decoder asks for.
        config.hidden().unwrap();
        config.heads().unwrap();
        unheeded(&config, "llama")
    }

    #[test]
    fn neutral_values_pass_and_others_are_named() {
        let base = json!({"hidden_size": 64, "num_attention_heads": 4});
        let with = |field: &str, value: Json| {
            let mut config = base.clone();
            config[field] = value;
            named(config)
        };
        for (field, neutral, other) in [
            ("clip_qkv", json!(null), json!(8.0)),
            ("alibi", json!(false), json!(true)),
            ("logit_scale", json!(1), json!(0.5)),
            ("rope_theta", json!(10000), json!(500_000)),
            ("norm_topk_prob", json!(false), json!(true)),
            (
                "position_embedding_type",
                json!("absolute"),
                json!("relative_key"),
            ),
            ("attn_logit_softcapping", json!(0.0), json!(30.0)),
            ("attention_multiplier", json!(0.25), json!(0.2)),
            ("query_pre_attn_scalar", json!(16), json!(32)),
            ("num_experts", json!(0), json!(8)),
        ] {
            assert_eq!(with(field, neutral), [""; 0], "{field}");
            let found = with(field, other);
            assert_eq!(found.len(), 1, "{field}: {found:?}");
            assert!(found[0].contains(field), "{found:?}");
        }
        let window = |own: Json| {
            let mut config = base.clone();
            config
                .as_object_mut()
                .unwrap()
                .extend(own.as_object().unwrap().clone());
            named(config).len()
        };
        assert_eq!(
            window(json!({"sliding_window": 8, "max_position_embeddings": 64})),
            1
        );
        assert_eq!(
            window(json!({"sliding_window": 64, "max_position_embeddings": 64})),
            0
        );
        let unused = json!({
            "sliding_window": 8, "max_position_embeddings": 64, "use_sliding_window": false
        });
        assert_eq!(window(unused), 0);
    }

    #[test]
    fn unknown_fields_are_named_together() {
        let found = named(json!({
            "hidden_size": 64, "num_attention_heads": 4, "torch_dtype": "bfloat16", "use_cache": true,
            "attention_dropout": 0.1, "my_scale": 0.5, "my_switch": true, "my_other": false
        }));
        let [warning] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(
            warning.contains("`my_scale` (0.5), `my_switch` (true);"),
            "{warning}"
        );
    }

    #[test]
    fn what_is_asked_for_is_heeded() {
        let config = Config::new(&json!({"logit_scale": 0.5}));
        assert_eq!(unheeded(&config, "llama").len(), 1);
        config.f64(&["logit_scale"]).unwrap();
        assert_eq!(unheeded(&config, "llama"), [""; 0]);
    }
}
