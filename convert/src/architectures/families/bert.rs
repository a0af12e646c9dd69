//! Encoders.

use bstr::BString;
use gristmill_gguf::{Array, Value};
use serde_json::Value as Json;

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::{FFN, QK_NORM, QKV, shaped};
use crate::Error;
use crate::config::{Config, as_u32};
use crate::expr::Expr;

/// Embeddings and output norms of encoders that normalise after the sum.
const POST_NORM: &[Part] = &[
    Part::TokenEmbd,
    Part::TokenEmbdNorm,
    Part::TokenTypes,
    Part::PosEmbd,
    Part::OutputNorm,
    Part::AttnOutNorm,
    Part::AttnQkv,
    Part::AttnOut,
    Part::LayerOutNorm,
];

const BERT: Architecture = Architecture {
    name: "bert",
    parts: &[
        POST_NORM,
        QKV,
        &[Part::FfnDown, Part::FfnUp, Part::Cls, Part::ClsOut],
    ],
    params: &[Param::Base, Param::With(encoder), Param::With(labels)],
    rules: &[
        Rule("bert.*", Action::Replace("bert.", "")),
        Rule("*.gamma", Action::Replace(".gamma", ".weight")),
        Rule("*.beta", Action::Replace(".beta", ".bias")),
        Rule("embeddings.position_ids", Action::Drop),
        Rule("pooler.*", Action::Drop),
        Rule("cls.predictions*", Action::Drop),
        Rule("cls.seq_relationship*", Action::Drop),
        CLASSIFIER,
    ],
    ..PLAIN
};

const ROBERTA: Architecture = Architecture {
    defaults: |config| {
        // Positions start after the padding token's id.
        if let (Ok(Some(pad)), Ok(Some(length))) = (
            config.opt_u32(&["pad_token_id"]),
            config.opt_u32(&["max_position_embeddings"]),
        ) {
            config.set("max_position_embeddings", length.saturating_sub(pad + 1));
        }
    },
    rules: &[
        Rule("roberta.*", Action::Replace("roberta.", "")),
        Rule("*.gamma", Action::Replace(".gamma", ".weight")),
        Rule("*.beta", Action::Replace(".beta", ".bias")),
        Rule("embeddings.position_ids", Action::Drop),
        Rule("pooler.*", Action::Drop),
        Rule("lm_head.*", Action::Drop),
        Rule(
            "embeddings.position_embeddings.weight",
            Action::With(without_padding),
        ),
        CLASSIFIER,
    ],
    ..BERT
};

/// A classifier with names for its classes is the output layer itself.
const CLASSIFIER: Rule = Rule("classifier.*", Action::With(named_classifier));

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        classes: &[
            "BertModel",
            "BertForMaskedLM",
            "BertForSequenceClassification",
        ],
        ..BERT
    },
    Architecture {
        classes: &[
            "CamembertModel",
            "RobertaModel",
            "RobertaForMaskedLM",
            "XLMRobertaModel",
            "XLMRobertaForMaskedLM",
            "RobertaForSequenceClassification",
            "XLMRobertaForSequenceClassification",
        ],
        ..ROBERTA
    },
    Architecture {
        classes: &[
            "DistilBertModel",
            "DistilBertForMaskedLM",
            "DistilBertForSequenceClassification",
        ],
        params: &[
            Param::SetF32("attention.layer_norm_epsilon", 1e-12),
            Param::Base,
            Param::With(encoder),
            Param::With(labels),
        ],
        rules: &[
            Rule("distilbert.*", Action::Replace("distilbert.", "")),
            Rule("vocab_*", Action::Drop),
            CLASSIFIER,
        ],
        ..BERT
    },
    Architecture {
        name: "jina-bert-v2",
        classes: &["JinaBertModel", "JinaBertForMaskedLM"],
        parts: &[POST_NORM, QKV, QK_NORM, FFN, &[Part::AttnNorm2, Part::Cls]],
        ..BERT
    },
    Architecture {
        name: "neo-bert",
        classes: &[
            "NeoBERT",
            "NeoBERTLMHead",
            "NeoBERTForSequenceClassification",
        ],
        parts: &[&[
            Part::TokenEmbd,
            Part::AttnNorm,
            Part::AttnQkv,
            Part::AttnOut,
            Part::FfnNorm,
            Part::FfnDown,
            Part::FfnUp,
            Part::EncOutputNorm,
            Part::Cls,
            Part::ClsOut,
        ]],
        params: &[
            Param::Base,
            Param::With(encoder),
            Param::With(labels),
            Param::With(|model, keys| {
                let width = u64::from(model.config.u32(&["intermediate_size"])?) * 2 / 3;
                keys.set("feed_forward_length", width as u32);
                keys.set("rope.freq_base", 10000.0f32);
                keys.set("rope.scaling.type", "none");
                let epsilon = model.config.opt_f64(&["norm_eps"])?.unwrap_or(1e-6);
                keys.set("attention.layer_norm_rms_epsilon", epsilon as f32);
                keys.set("pooling_type", 2u32);
                Ok(())
            }),
        ],
        rules: &[
            Rule("decoder.*", Action::Drop),
            Rule("model.*", Action::Replace("model.", "")),
            CLASSIFIER,
        ],
        ..PLAIN
    },
    Architecture {
        name: "nomic-bert",
        classes: &["NomicBertModel"],
        parts: &[POST_NORM, FFN],
        defaults: |config| {
            // Trained on 2048 tokens; more needs scaling that the file does not state.
            for field in ["max_position_embeddings", "n_ctx", "n_positions"] {
                if config.get(field).is_some() {
                    config.set(field, 2048);
                }
            }
        },
        params: &[
            Param::Base,
            Param::With(encoder),
            Param::MaybeF32("rope.freq_base", &["rotary_emb_base"]),
        ],
        ..BERT
    },
    Architecture {
        name: "modern-bert",
        classes: &[
            "ModernBertModel",
            "ModernBertForMaskedLM",
            "ModernBertForSequenceClassification",
        ],
        parts: &[&[
            Part::TokenEmbd,
            Part::TokenEmbdNorm,
            Part::OutputNorm,
            Part::AttnNorm,
            Part::AttnOut,
            Part::AttnQkv,
            Part::FfnUp,
            Part::FfnDown,
            Part::FfnNorm,
            Part::Cls,
            Part::ClsOut,
            Part::ClsNorm,
        ]],
        params: &[
            Param::Base,
            Param::With(encoder),
            Param::With(classifier_pooling),
            Param::U32("attention.sliding_window", &["local_attention"]),
            Param::U32(
                "attention.sliding_window_pattern",
                &["global_attn_every_n_layers"],
            ),
            Param::SetStr("rope.scaling.type", "none"),
            Param::U32("vocab_size", &["vocab_size"]),
            Param::With(|model, keys| {
                if let Some(activation) = model.config.str("hidden_activation") {
                    keys.set("hidden_activation", activation);
                }
                Ok(())
            }),
        ],
        rules: &[
            Rule("model.*", Action::Replace("model.", "")),
            Rule("head.*", Action::Drop),
            Rule("decoder.*", Action::Drop),
        ],
        ..PLAIN
    },
    Architecture {
        name: "eurobert",
        classes: &[
            "EuroBertModel",
            "EuroBertForMaskedLM",
            "JinaEmbeddingsV5Model",
        ],
        parts: &[
            QKV,
            FFN,
            &[
                Part::TokenEmbd,
                Part::OutputNorm,
                Part::AttnNorm,
                Part::AttnOut,
                Part::FfnNorm,
            ],
        ],
        params: &[
            Param::Base,
            Param::With(encoder),
            Param::SetStr("rope.scaling.type", "none"),
            Param::With(classifier_pooling),
        ],
        rules: &[
            Rule("lm_head.*", Action::Drop),
            Rule("model.*", Action::Replace("model.", "")),
        ],
        ..PLAIN
    },
];

/// No mask, and how token states become one vector.
fn encoder(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    keys.set("attention.causal", false);
    if let Some(pooling) = pooling(model)? {
        keys.set("pooling_type", pooling);
    }
    Ok(())
}

/// The pooling that a sentence-transformers folder states.
pub(super) fn pooling(model: &Model) -> Result<Option<u32>, Error> {
    let Some(modules) = model.files.json("modules.json")? else {
        return Ok(None);
    };
    let path = modules.as_array().into_iter().flatten().find_map(|module| {
        let kind = module.get("type")?.as_str()?;
        kind.ends_with("Pooling")
            .then(|| module.get("path")?.as_str())?
    });
    let Some(path) = path else {
        return Ok(None);
    };
    let file = format!("{path}/config.json");
    let Some(pooling) = model.files.json(&file)? else {
        return Ok(None);
    };
    let named = match pooling.get("pooling_mode").and_then(Json::as_str) {
        Some("mean") => Some(1),
        Some("cls") => Some(2),
        Some("lasttoken") => Some(3),
        _ => None,
    };
    let mode = |field: &str| pooling.get(field).and_then(Json::as_bool) == Some(true);
    if mode("pooling_mode_mean_tokens") {
        Ok(Some(1))
    } else if mode("pooling_mode_cls_token") {
        Ok(Some(2))
    } else if mode("pooling_mode_lasttoken") {
        Ok(Some(3))
    } else if named.is_some() {
        Ok(named)
    } else {
        Err(Error::file(
            &model.files.root().join(file),
            "states a pooling that is none of mean, cls and last token",
        ))
    }
}

fn classifier_pooling(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    let kind = match model.config.str("classifier_pooling") {
        Some("mean") => 1u32,
        Some("cls") => 2,
        _ => return Ok(()),
    };
    keys.set("classifier.pooling_type", kind);
    Ok(())
}

/// Position rows up to and including the padding token's are never used.
fn without_padding(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let skipped = match model.config.get("pad_token_id").and_then(as_u32) {
        Some(pad) => u64::from(pad) + 1,
        None => 0,
    };
    let rows = expr.row_count();
    if skipped >= rows {
        return Err(Error::tensor(name, format!("has only {rows} rows")));
    }
    let kept = shaped(name, expr.slice(skipped..rows))?;
    Ok(vec![(name.to_owned(), kept)])
}

/// Names of a classifier's classes, unless they are the two that stand for none.
fn class_names(config: &Config) -> Option<Vec<BString>> {
    let labels = config.get("id2label")?.as_object()?;
    let mut labels: Vec<(u32, &str)> = labels
        .iter()
        .filter_map(|(id, label)| Some((id.parse().ok()?, label.as_str()?)))
        .collect();
    labels.sort_unstable();
    if labels.len() == 2 && labels[0].1 == "LABEL_0" {
        return None;
    }
    Some(labels.into_iter().map(|(_, label)| label.into()).collect())
}

fn labels(model: &Model, keys: &mut Keys) -> Result<(), Error> {
    if let Some(names) = class_names(&model.config) {
        keys.set(
            "classifier.output_labels",
            Value::Array(Array::String(names)),
        );
    }
    Ok(())
}

fn named_classifier(model: &Model, name: &str, expr: Expr) -> Result<Vec<Named>, Error> {
    let name = match (class_names(&model.config), name) {
        (Some(_), "classifier.weight") => "classifier.out_proj.weight",
        (Some(_), "classifier.bias") => "classifier.out_proj.bias",
        _ => name,
    };
    Ok(vec![(name.to_owned(), expr)])
}
