//! The keys and tensors that the architecture needs, with their shapes.

use std::collections::HashSet;

use super::Findings;
use super::Severity::{Error, Note, Warning};
use super::vocabulary;
use crate::error::Subject;
use crate::schema::required::{Required, required};
use crate::schema::sizes::Sizes;
use crate::schema::{keys, tensors};
use crate::source::{Source, TensorInfo};
use crate::value::Value;

/// llama.cpp has arrays of this many layers and experts.
const LAYER_LIMIT: u64 = 512;
const EXPERT_LIMIT: u64 = 1024;

/// Checks a model as a whole.
pub(super) fn check_model(file: &dyn Source, findings: &mut Findings<'_>) {
    let metadata = file.metadata();
    let kind = metadata.str(keys::TYPE).unwrap_or("model");
    if kind != "model" {
        let message = format!("a file of type `{kind}` is checked by its structure and data alone");
        let subject = Subject::Key(keys::TYPE.into());
        findings.add(Note, "model-kind", subject, None, message);
        return;
    }
    let Some(sizes) = Sizes::new(metadata) else {
        // A finding about the structure says so.
        return;
    };
    check_numbers(sizes, findings);
    vocabulary::check_vocabulary(metadata, findings);
    if file.tensors().is_empty() {
        let message = "no tensors: a vocabulary without a model";
        findings.add(Note, "no-tensors", Subject::File, None, message);
        return;
    }
    let rules = required(sizes.architecture());
    match rules {
        Some(rules) => check_required(file, sizes, rules, findings),
        None => {
            let known = tensors::known(sizes.architecture()).is_some();
            let message = match known {
                true => "what this architecture needs is not known here",
                false => "unknown architecture",
            };
            let severity = if known { Note } else { Warning };
            let subject = Subject::Key(keys::ARCHITECTURE.into());
            findings
                .add(severity, "arch-unknown", subject, None, message)
                .llama_cpp_refuses = !known;
        }
    }
    check_tensors(file, sizes, rules.is_some(), findings);
}

fn key_subject(sizes: Sizes<'_>, name: &str) -> Subject {
    Subject::Key(keys::of(sizes.architecture(), name).into())
}

/// Ranges and relations of numbers, as llama.cpp asserts them.
fn check_numbers(sizes: Sizes<'_>, findings: &mut Findings<'_>) {
    let mut wrong = |name: &str, message: String| {
        findings
            .add(
                Error,
                "hparam-range",
                key_subject(sizes, name),
                None,
                message,
            )
            .refused();
    };
    let blocks = sizes.number("block_count");
    if let Some(blocks) = blocks.filter(|blocks| !(1..=LAYER_LIMIT).contains(blocks)) {
        wrong(
            "block_count",
            format!("{blocks}: expected 1 to {LAYER_LIMIT}"),
        );
    }
    let experts = sizes.number("expert_count").unwrap_or(0);
    if experts > EXPERT_LIMIT {
        wrong(
            "expert_count",
            format!("{experts}: expected at most {EXPERT_LIMIT}"),
        );
    }
    if let Some(used) = sizes.number("expert_used_count") {
        if used > experts {
            let message = format!("{used}, but there are {experts} experts");
            wrong("expert_used_count", message);
        } else if experts > 0 && used == 0 {
            wrong("expert_used_count", format!("0 of {experts} experts"));
        }
    } else if experts > 0 && sizes.value("expert_used_count").is_none() {
        wrong(
            "expert_used_count",
            format!("missing, with {experts} experts"),
        );
    }
    if let Some(groups) = sizes
        .number("expert_group_count")
        .filter(|&groups| groups > 1)
    {
        let used = sizes.number("expert_group_used_count").unwrap_or(0);
        if !experts.is_multiple_of(groups) || groups >= experts {
            let message = format!("{groups} groups of {experts} experts");
            wrong("expert_group_count", message);
        } else if used == 0 || used >= groups {
            wrong(
                "expert_group_used_count",
                format!("{used} of {groups} groups"),
            );
        }
    }
    let attends = required(sizes.architecture()).is_some_and(|rules| {
        let needed = rules.tensors.iter().flatten();
        needed
            .into_iter()
            .any(|stem| stem.ends_with(".attn_output"))
    });
    if attends && sizes.number("attention.head_count") == Some(0) {
        wrong("attention.head_count", "0: expected 1 at least".into());
    }
    for layer in 0..blocks.unwrap_or(0).min(LAYER_LIMIT) as u32 {
        let heads = sizes.of_layer("attention.head_count", Some(layer));
        let kv = sizes.of_layer("attention.head_count_kv", Some(layer));
        if let (Some(heads), Some(kv)) = (heads, kv)
            && heads > 0
            && kv > 0
            && heads % kv != 0
        {
            let message = format!("{kv} in layer {layer} does not divide the {heads} heads");
            wrong("attention.head_count_kv", message);
            break;
        }
    }
    for name in [
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "expert_feed_forward_length",
    ] {
        if let (Some(Value::Array(array)), Some(blocks)) = (sizes.value(name), blocks)
            && (array.len() as u64) != blocks
        {
            let message = format!(
                "an array of {}: expected one for each of {blocks} layers",
                array.len()
            );
            findings
                .add(
                    Error,
                    "key-array-length",
                    key_subject(sizes, name),
                    None,
                    message,
                )
                .refused();
        }
    }
    let name = "rope.scaling.type";
    if let Some(found) = sizes.value(name).and_then(Value::as_str)
        && !["none", "linear", "yarn", "longrope"].contains(&found)
    {
        let message = format!("`{found}`: expected none, linear, yarn or longrope");
        findings
            .add(
                Error,
                "hparam-value",
                key_subject(sizes, name),
                None,
                message,
            )
            .refused();
    }
}

fn check_required(
    file: &dyn Source,
    sizes: Sizes<'_>,
    rules: &Required,
    findings: &mut Findings<'_>,
) {
    for name in &rules.keys {
        if sizes.value(name).is_none() {
            findings
                .add(
                    Error,
                    "key-missing",
                    key_subject(sizes, name),
                    None,
                    "missing",
                )
                .refused();
        }
    }
    let blocks = sizes.number("block_count").unwrap_or(0).min(LAYER_LIMIT);
    // Layers for predicting several tokens have tensors of their own.
    let layers = blocks.saturating_sub(sizes.number("nextn_predict_layers").unwrap_or(0));
    // The last layers may read the keys and values of an earlier one.
    let shared = sizes.number("attention.shared_kv_layers").unwrap_or(0);
    let names: HashSet<&[u8]> = file
        .tensors()
        .iter()
        .map(|info| info.name.as_slice())
        .collect();
    for alternatives in &rules.tensors {
        let per_layer = alternatives.iter().any(|stem| stem.contains("{}"));
        let stored = ["blk.{}.attn_k", "blk.{}.attn_v", "blk.{}.attn_k_norm"];
        let numbers = match (per_layer, stored.contains(&alternatives[0])) {
            (false, _) => 0..1,
            (true, true) => 0..layers.saturating_sub(shared),
            (true, false) => 0..layers,
        };
        let missing: Vec<u64> = numbers
            .filter(|layer| {
                !alternatives
                    .iter()
                    .any(|stem| names.contains(name_of(stem, *layer).as_bytes()))
            })
            .collect();
        let Some(&first) = missing.first() else {
            continue;
        };
        let others = alternatives[1..].iter().map(|stem| name_of(stem, first));
        let instead: String = others.map(|name| format!(" (or `{name}`)")).collect();
        let message = match missing.len() {
            1 => format!("missing{instead}"),
            count => format!("missing{instead}, as in {} further layers", count - 1),
        };
        let subject = Subject::Tensor(name_of(alternatives[0], first).into());
        findings
            .add(Error, "tensor-missing", subject, None, message)
            .refused();
    }
}

fn name_of(stem: &str, layer: u64) -> String {
    format!("{}.weight", stem.replace("{}", &layer.to_string()))
}

/// Names and shapes of the tensors that are there.
fn check_tensors(file: &dyn Source, sizes: Sizes<'_>, sure: bool, findings: &mut Findings<'_>) {
    let known = tensors::known(sizes.architecture()).filter(|known| known.complete);
    let blocks = sizes.number("block_count");
    for info in file.tensors() {
        let Ok(name) = std::str::from_utf8(&info.name) else {
            continue;
        };
        let parsed = tensors::parse(name);
        let subject = || Subject::Tensor(info.name.clone());
        let in_layers = parsed.stem.starts_with("blk.{}.");
        if let (true, Some(layer), Some(blocks)) = (in_layers, parsed.layer, blocks)
            && u64::from(layer) >= blocks
        {
            let message = format!("the model has {blocks} layers, counted from 0");
            findings
                .add(Warning, "tensor-extra", subject(), None, message)
                .refused();
        } else if let Some(known) = known
            && !known.stems.contains(parsed.stem.as_str())
        {
            let message = format!("no tensor of a {} model", sizes.architecture());
            findings
                .add(Warning, "tensor-extra", subject(), None, message)
                .refused();
        }
        // The rules of the other architectures were not held against real models.
        if sure
            && let Some(expected) = sizes.shape(&parsed.stem, parsed.suffix, parsed.layer)
            && trimmed(&expected) != trimmed(&info.shape)
        {
            let message = format!(
                "shape {:?}: expected {expected:?} by the metadata",
                info.shape
            );
            findings
                .add(Error, "tensor-shape", subject(), None, message)
                .refused();
        }
        check_type(info, &parsed, findings);
    }
}

/// Norms and biases are small and sensitive: every converter leaves them in f32.
fn check_type(info: &TensorInfo, name: &tensors::Name<'_>, findings: &mut Findings<'_>) {
    if info.ty.is_quantized() && (info.dims() == 1 || name.stem.ends_with("_norm")) {
        let message = format!("a vector in type {}: no program expects that", info.ty);
        let subject = Subject::Tensor(info.name.clone());
        findings.add(Warning, "tensor-type-odd", subject, None, message);
    }
}

/// A shape without trailing ones.
fn trimmed(shape: &[u64]) -> &[u64] {
    let ones = shape.iter().rev().take_while(|&&dim| dim == 1).count();
    &shape[..(shape.len() - ones).max(1)]
}
