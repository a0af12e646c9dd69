//! Whole files against `llama-quantize`, from one job with all presets.

#[path = "../../fixtures/golden.rs"]
mod golden;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use gristmill_gguf::File;
use gristmill_quantize::Effort;
use gristmill_quantize::importance::Importance;
use gristmill_quantize::job::{Control, Job, JobError, NamedImportance, Output, Target};
use gristmill_quantize::plan::PlanError;
use gristmill_quantize::preset::Preset;
use gristmill_quantize::recipe::Recipe;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

fn output(preset: Preset, folder: &Path) -> Output {
    Output {
        path: folder.join(format!("{preset}.gguf")),
        target: Target::Quantized(Recipe {
            effort: Effort::Reference,
            ..preset.into()
        }),
        split: None,
        part: None,
        replace: false,
    }
}

fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(std::fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs all presets on one model; returns files compared and presets refused.
fn run(folder: &Path, with_importance: bool) -> (usize, usize) {
    let source = File::open(&folder.join("source.gguf")).unwrap();
    let matrix = Importance::read(&folder.join("importance.gguf")).unwrap();
    let expected: Json =
        serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let kind = if with_importance {
        "importance"
    } else {
        "plain"
    };
    let importance = with_importance.then_some(NamedImportance {
        matrix: &matrix,
        file: "importance.gguf",
    });
    let scratch = tempfile::tempdir().unwrap();
    let job = |outputs| Job {
        source: &source,
        base: None,
        importance,
        outputs,
    };
    let mut outputs = Vec::new();
    let mut refused = 0;
    for (name, expected) in expected.as_object().unwrap() {
        let output = output(name.parse().unwrap(), scratch.path());
        let planned = job(vec![output.clone()]).plan();
        if let Some(message) = expected[kind]["message"].as_str() {
            let error = planned.map_or_else(Some, |planned| planned.outputs()[0].refusal());
            let same = match error {
                Some(JobError::ImportanceMissing { given: false, .. }) => {
                    message.contains("requires an imatrix")
                }
                Some(JobError::Plan(PlanError::NoFallback { .. })) => {
                    message.contains("no tensor type fallback")
                }
                _ => false,
            };
            assert!(same, "{name}: {message}");
            refused += 1;
            continue;
        }
        let planned = planned.unwrap();
        let refusal = planned.outputs()[0].refusal();
        assert!(refusal.is_none(), "{name}: {refusal:?}");
        let bytes = planned.outputs()[0].size_bytes();
        assert_eq!(Some(bytes), expected[kind]["file_bytes"].as_u64(), "{name}");
        outputs.push(output);
    }
    let planned = job(outputs).plan().unwrap();
    let report = planned
        .run(&Control {
            progress: &|_| {},
            cancel: &AtomicBool::new(false),
        })
        .unwrap();
    assert_eq!(report.source_bytes, planned.source_bytes());
    let mut wrong = Vec::new();
    for output in planned.outputs() {
        let name = output.path().file_stem().unwrap().to_str().unwrap();
        if sha256(output.path()) != expected[name][kind]["file_sha256"] {
            wrong.push(name.to_owned());
        }
    }
    assert!(wrong.is_empty(), "{} {kind}: {wrong:?}", folder.display());
    (planned.outputs().len(), refused)
}

#[test]
fn every_preset() {
    let Some(folder) = golden::golden("types/e2e") else {
        return;
    };
    let mut counts = (0, 0);
    for model in ["dense", "moe"] {
        for with_importance in [false, true] {
            let (files, refused) = run(&folder.join(model), with_importance);
            counts = (counts.0 + files, counts.1 + refused);
        }
    }
    println!(
        "{} whole files equal, {} presets refused",
        counts.0, counts.1
    );
    assert_eq!(counts.0 + counts.1, 4 * 35);
}
