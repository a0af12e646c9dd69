//! What is checked before a byte is written: that the tensors, the configuration and the
//! vocabulary are one model.

use std::collections::BTreeMap;

use gristmill_gguf::check::{Finding, Severity, check_source};

use gristmill_gguf::schema::keys;
use gristmill_gguf::{Source, Subject, TensorType};
use rayon::prelude::*;
use serde_json::Value as Json;

use crate::Error;
use crate::architectures::Mapped;
use crate::config::Config;
use crate::expr::Expr;

/// The largest number of F16.
const F16_MAX: f32 = 65504.0;

/// Dimensions that a tensor may have in GGUF.
const MAX_DIMS: usize = 4;

/// Rows that are read at a time.
const ROWS: u64 = 64;

/// Weights of a floating type: integers are what a quantization left behind.
pub(crate) fn check_types(mapped: &[Mapped]) -> Result<(), Error> {
    match mapped.iter().find_map(|tensor| tensor.expr.integers()) {
        None => Ok(()),
        Some(stored) => Err(Error::tensor(
            &stored.name,
            format!(
                "holds integers ({}) where weights are expected, and config.json names no \
                 quantization",
                stored.dtype
            ),
        )),
    }
}

/// Tensors that hold something, in every layer that the configuration states, with shapes that
/// follow from the metadata. Returns what is odd and may be a variant that the rules do not know.
///
/// # Errors
/// If the configuration contradicts the weights.
pub(crate) fn check(planned: &dyn Source) -> Result<Vec<String>, Error> {
    for info in planned.tensors() {
        let refuse = |reason: String| Err(Error::tensor(info.name.to_string(), reason));
        if info.elements() == 0 {
            return refuse(format!("is empty: its shape is {:?}", info.shape));
        }
        if info.shape.len() > MAX_DIMS {
            return refuse(format!(
                "has {} dimensions, and GGUF has {MAX_DIMS}",
                info.shape.len()
            ));
        }
    }
    let mut contradictions: Vec<String> = layers(planned).into_iter().collect();
    contradictions.extend(leading_dense(planned));
    let mut odd = Vec::new();
    for finding in check_source(planned) {
        if finding.severity != Severity::Error {
            continue;
        }
        let fact = format!("{}{}", finding.subject, finding.message);
        if may_vary(&finding) {
            odd.push(format!("config.json and the weights: {fact}"));
        } else {
            contradictions.push(fact);
        }
    }
    match contradictions.split_first() {
        None => Ok(odd),
        Some((first, others)) => Err(Error::Contradiction {
            first: first.clone(),
            further: others.len(),
        }),
    }
}

/// Whether a finding is about a part that models of one architecture have in some layers only
/// (routers, shared experts, recurrent parts), or in several shapes (norms of queries and keys).
fn may_vary(finding: &Finding) -> bool {
    const IN_SOME_LAYERS: [&str; 4] = ["_inp", "_shexp", ".ssm_", ".shortconv"];
    const OF_HEADS: [&str; 2] = ["attn_q_norm", "attn_k_norm"];
    let Subject::Tensor(name) = &finding.subject else {
        return false;
    };
    let name = name.to_string();
    let parts = match finding.code {
        "tensor-missing" => &IN_SOME_LAYERS[..],
        "tensor-shape" => &OF_HEADS[..],
        _ => return false,
    };
    name.starts_with("blk.") && parts.iter().any(|part| name.contains(part))
}

/// Where the layers with experts begin, if the configuration states another layer.
fn leading_dense(planned: &dyn Source) -> Option<String> {
    let metadata = planned.metadata();
    let architecture = keys::architecture(metadata)?;
    let stated = metadata.u64(keys::of(architecture, "leading_dense_block_count"))?;
    let sparse = planned.tensors().iter().filter_map(|info| {
        let name = std::str::from_utf8(&info.name).ok()?;
        let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
        part.starts_with("ffn_down_exps")
            .then(|| layer.parse::<u64>().ok())?
    });
    let first = sparse.min()?;
    // Experts may be in every n-th layer only, the first of them later than stated.
    let step = ["interleave_moe_layer_step", "moe_every_n_layers"]
        .iter()
        .filter_map(|key| metadata.u64(keys::of(architecture, key)))
        .max()
        .unwrap_or(1);
    let expected = stated..stated.saturating_add(step.max(1));
    (!expected.contains(&first)).then(|| {
        format!(
            "it states {stated} layers without experts, and layer {first} is the first with some"
        )
    })
}

/// A vocabulary that has no rows in the embedding, or leaves some of them out.
///
/// # Errors
/// If more tokens are stated than there are rows.
pub(crate) fn check_vocabulary(stated: u32, rows: u64) -> Result<Option<String>, Error> {
    let stated = u64::from(stated);
    // Some embeddings are filled up to a round number.
    const ROUND: u64 = 64;
    if stated > rows.saturating_add(ROUND) {
        return Err(Error::Contradiction {
            first: format!("`vocab_size` is {stated}, and the embedding has {rows} rows"),
            further: 0,
        });
    }
    Ok((rows > stated.saturating_add(ROUND)).then(|| {
        format!("config.json: `vocab_size` is {stated}; the embedding's {rows} rows are taken")
    }))
}

/// What is said of weights that are called quantized and are stored plainly.
pub(crate) fn plainly_stored(inputs: &[(String, Expr)], config: &Config) -> Option<String> {
    let scheme = config.stated("quantization_config")?;
    let method = scheme.get("quant_method")?.as_str()?;
    let plain = inputs.iter().all(|(_, expr)| expr.is_plain());
    (plain && method != "mxfp4").then(|| {
        format!(
            "config.json: `quantization_config` says {method}, and no tensor is stored so: all \
             weights are taken as they are"
        )
    })
}

/// Layers that have no tensors, and tensors beyond the last layer.
fn layers(planned: &dyn Source) -> Option<String> {
    let metadata = planned.metadata();
    let architecture = keys::architecture(metadata)?;
    let stated = metadata.u64(keys::of(architecture, "block_count"))?;
    // By stack: an encoder and a decoder have layers of their own.
    let mut stacks: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for info in planned.tensors() {
        let name = std::str::from_utf8(&info.name).ok()?;
        for stack in ["blk.", "enc.blk.", "dec.blk."] {
            let rest = name.strip_prefix(stack).unwrap_or_default();
            if let Some(layer) = rest.split('.').next().and_then(|layer| layer.parse().ok()) {
                stacks.entry(stack).or_default().push(layer);
            }
        }
    }
    for (stack, mut found) in stacks {
        found.sort_unstable();
        found.dedup();
        // A decoder may have another number of layers than its encoder.
        let expected = match stack {
            "dec.blk." => metadata
                .u64(keys::of(architecture, "decoder_block_count"))
                .unwrap_or(stated),
            _ => stated,
        };
        let missing = (0..expected).find(|layer| found.binary_search(layer).is_err());
        if let Some(layer) = missing {
            return Some(format!(
                "it states {expected} layers, and layer {layer} has no tensors ({} layers are stored)",
                found.len()
            ));
        }
        if let Some(last) = found.last().filter(|&&last| last >= expected) {
            return Some(format!(
                "it states {expected} layers, and layer {last} is stored too"
            ));
        }
    }
    None
}

/// Names under which the output's weights are stored.
const HEADS: [&str; 4] = [
    "lm_head.weight",
    "output.weight",
    "embed_out.weight",
    "language_model.lm_head.weight",
];

/// A stored output that the configuration ties to the embedding, for [`Tied::check`].
pub(crate) struct Tied {
    name: String,
    head: Expr,
}

impl Tied {
    /// The head among the inputs, if the configuration says that it is the embedding.
    pub(crate) fn find(inputs: &[(String, Expr)], config: &Config) -> Option<Self> {
        let tied = config.stated("tie_word_embeddings")?.as_bool()?;
        let (name, head) = inputs
            .iter()
            .find(|(name, _)| HEADS.contains(&name.as_str()))?;
        tied.then(|| Self {
            name: name.clone(),
            head: head.clone(),
        })
    }

    /// Compares it with the embedding.
    ///
    /// # Errors
    /// If they differ.
    pub(crate) fn check(&self, mapped: &[Mapped]) -> Result<(), Error> {
        let embedding = mapped.iter().find(|t| t.name == "token_embd.weight");
        let Some(embedding) = embedding.map(|tensor| &tensor.expr) else {
            return Ok(());
        };
        let differs = |row: u64| Error::UntiedHead {
            head: self.name.clone(),
            embedding: "token_embd.weight".into(),
            row,
        };
        if self.head.shape() != embedding.shape() {
            return Err(differs(self.head.row_count().min(embedding.row_count())));
        }
        let rows = self.head.row_count();
        let first = (0..rows.div_ceil(ROWS))
            .into_par_iter()
            .filter_map(|part| {
                let range = part * ROWS..rows.min((part + 1) * ROWS);
                let same = |row: u64| {
                    let own = self.head.f32_rows(row..row + 1).ok()?;
                    Some(embedding.f32_rows(row..row + 1).ok()? == own)
                };
                let found = range.clone().find(|&row| same(row) == Some(false));
                self.head.release(range.clone());
                embedding.release(range);
                found
            })
            .min();
        first.map_or(Ok(()), |row| Err(differs(row)))
    }
}

/// Refuses a model that has no output of its own and says that it does not share the embedding's:
/// programs would take the embedding for it.
pub(crate) fn check_head(mapped: &[Mapped], config: &Config, class: &str) -> Result<(), Error> {
    let untied = config.stated("tie_word_embeddings").and_then(Json::as_bool) == Some(false);
    let predicts = class.ends_with("ForCausalLM") || class.ends_with("LMHeadModel");
    // Of models in several parts each may have a word on this.
    let whole = config.stated("text_config").is_none();
    let has_head = mapped.iter().any(|tensor| tensor.name == "output.weight");
    if untied && predicts && whole && !has_head {
        return Err(Error::Config {
            field: "tie_word_embeddings".into(),
            reason: "is false, and no output (lm_head.weight) is stored".into(),
        });
    }
    Ok(())
}

/// How many values of a tensor are finite and become infinite in F16.
pub(crate) fn overflows(expr: &Expr, to: TensorType) -> u64 {
    if to != TensorType::F16 || expr.ty() == TensorType::F16 || expr.ty().is_quantized() {
        return 0;
    }
    let rows = expr.row_count();
    (0..rows.div_ceil(ROWS))
        .into_par_iter()
        .map(|part| {
            let range = part * ROWS..rows.min((part + 1) * ROWS);
            let values = expr.f32_rows(range.clone()).unwrap_or_default();
            expr.release(range);
            let beyond =
                |value: &&f32| value.is_finite() && half::f16::from_f32(**value).is_infinite();
            // Most rows are settled by their largest magnitude.
            let largest = values
                .iter()
                .fold(0f32, |most, value| most.max(value.abs()));
            if largest <= F16_MAX && !values.iter().any(|value| value.is_infinite()) {
                return 0;
            }
            values.iter().filter(beyond).count() as u64
        })
        .sum()
}
