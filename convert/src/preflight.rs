//! What is checked before a byte is written: that the tensors, the configuration and the
//! vocabulary are one model.

use std::collections::BTreeMap;

use gristmill_gguf::check::{Finding, Severity, check_source};

use gristmill_gguf::schema::keys;
use gristmill_gguf::{Source, Subject, TensorType};
use rayon::prelude::*;

use crate::Error;
use crate::architectures::Mapped;
use crate::config::Config;
use crate::expr::Expr;

/// The largest number of F16.
const F16_MAX: f32 = 65504.0;

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
        if info.elements() == 0 {
            return Err(Error::tensor(
                info.name.to_string(),
                format!("is empty: its shape is {:?}", info.shape),
            ));
        }
    }
    let mut contradictions: Vec<String> = layers(planned).into_iter().collect();
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
/// (routers, shared experts, recurrent parts), or in several shapes (norms).
fn may_vary(finding: &Finding) -> bool {
    const IN_SOME_LAYERS: [&str; 4] = ["_inp", "_shexp", ".ssm_", ".shortconv"];
    let Subject::Tensor(name) = &finding.subject else {
        return false;
    };
    let name = name.to_string();
    name.starts_with("blk.")
        && (IN_SOME_LAYERS.iter().any(|part| name.contains(part))
            || finding.code == "tensor-shape" && name.contains("_norm"))
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
