//! Encoders.

use serde_json::Value as Json;

use super::super::{Action, Architecture, Keys, Model, Named, PLAIN, Param, Part, Rule};
use super::{FFN, QKV, shaped};
use crate::Error;
use crate::config::as_u32;
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
    params: &[Param::Base, Param::With(encoder)],
    rules: &[
        Rule("bert.*", Action::Replace("bert.", "")),
        Rule("*.gamma", Action::Replace(".gamma", ".weight")),
        Rule("*.beta", Action::Replace(".beta", ".bias")),
        Rule("embeddings.position_ids", Action::Drop),
        Rule("pooler.*", Action::Drop),
        Rule("cls.predictions*", Action::Drop),
        Rule("cls.seq_relationship*", Action::Drop),
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
    ],
    ..BERT
};

pub(super) const ALL: &[Architecture] = &[
    Architecture {
        classes: &["BertModel", "BertForMaskedLM", "CamembertModel"],
        ..BERT
    },
    Architecture {
        classes: &[
            "RobertaModel",
            "RobertaForMaskedLM",
            "XLMRobertaModel",
            "XLMRobertaForMaskedLM",
        ],
        ..ROBERTA
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
        classes: &["ModernBertModel", "ModernBertForMaskedLM"],
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
        classes: &["EuroBertModel", "EuroBertForMaskedLM"],
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
        rules: &[Rule("model.*", Action::Replace("model.", ""))],
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
    let mode = |field: &str| pooling.get(field).and_then(Json::as_bool) == Some(true);
    if mode("pooling_mode_mean_tokens") {
        Ok(Some(1))
    } else if mode("pooling_mode_cls_token") {
        Ok(Some(2))
    } else if mode("pooling_mode_lasttoken") {
        Ok(Some(3))
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
