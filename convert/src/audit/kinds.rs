//! Fields whose value is of another kind than every program expects, which would count as absent.

use serde_json::Value as Json;

use crate::Error;
use crate::config::{Config, as_f64};

/// Numbers, or lists with a number for each layer.
const NUMBERS: [&str; 22] = [
    "attention_multiplier",
    "embedding_multiplier",
    "final_logit_softcapping",
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "logits_scaling",
    "max_position_embeddings",
    "moe_intermediate_size",
    "norm_eps",
    "num_attention_heads",
    "num_experts_per_tok",
    "num_hidden_layers",
    "num_key_value_heads",
    "partial_rotary_factor",
    "residual_multiplier",
    "rms_norm_eps",
    "rope_theta",
    "routed_scaling_factor",
    "vocab_size",
];

/// Numbers of the rotary parameters.
const ROTARY: [&str; 9] = [
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "high_freq_factor",
    "low_freq_factor",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_theta",
];

const FLAGS: [&str; 3] = [
    "norm_topk_prob",
    "tie_word_embeddings",
    "use_sliding_window",
];

/// The width of the model, which is one number.
const ONE: &str = "hidden_size";

/// Checks the kinds of values.
///
/// # Errors
/// If a number or a flag is something else.
pub(crate) fn check_kinds(config: &Config) -> Result<(), Error> {
    let is_number = |value: &Json| value.is_null() || as_f64(value).is_some();
    let wrong = |field: &str, value: &Json, kind: &str| {
        Err(Error::config(field, format!("is {value}, not a {kind}")))
    };
    for field in NUMBERS {
        if let Some(value) = config.stated(field) {
            let list = value.as_array().filter(|_| field != ONE);
            // Per kind of layer in some configurations.
            let fits = match list {
                Some(list) => list.iter().all(is_number),
                None => is_number(value) || value.is_object(),
            };
            if !fits {
                return wrong(field, value, "number");
            }
        }
    }
    for field in FLAGS {
        if let Some(value) = config.stated(field)
            && value.as_bool().is_none()
            && !matches!(value.as_u64(), Some(0 | 1))
        {
            return wrong(field, value, "flag");
        }
    }
    for field in ROTARY {
        if let Some(value) = config
            .stated("rope_parameters")
            .and_then(|rope| rope.get(field))
            && !(is_number(value) || value.is_array())
        {
            return wrong(field, value, "number");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_kinds_are_refused() {
        for (config, field) in [
            (json!({"rope_theta": "1e4"}), "rope_theta"),
            (json!({"hidden_size": [64]}), "hidden_size"),
            (
                json!({"rope_scaling": {"type": "linear", "factor": "x"}}),
                "factor",
            ),
            (json!({"tie_word_embeddings": "no"}), "tie_word_embeddings"),
            (
                json!({"num_attention_heads": [4, "4"]}),
                "num_attention_heads",
            ),
        ] {
            let error = check_kinds(&Config::new(&config)).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        }
        let config = json!({
            "rope_theta": 1e4, "hidden_size": 64, "tie_word_embeddings": false, "head_dim": null,
            "num_attention_heads": [4, 8], "rms_norm_eps": {"__float__": "Infinity"}
        });
        check_kinds(&Config::new(&config)).unwrap();
    }
}
