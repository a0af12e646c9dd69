//! Every tensor of the trained model under every preset, straight from its checkpoint, against the
//! files that llama.cpp made of it.

#[path = "../../fixtures/golden.rs"]
mod golden;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use gristmill_convert::{Checkpoint, Conversion, Options, Output as Precision};
use gristmill_gguf::{File, Source as _};
use gristmill_quantize::Effort;
use gristmill_quantize::importance::Importance;
use gristmill_quantize::job::{Control, Job, NamedImportance, Output, Target};
use gristmill_quantize::preset::Preset;
use gristmill_quantize::recipe::Recipe;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

fn short_hash(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Compares a file's tensors with what is expected; returns how many agree.
fn compare(run: &str, path: &Path, expected: &Json) -> usize {
    let file = File::open(path).unwrap();
    let expected = expected[run]
        .as_object()
        .unwrap_or_else(|| panic!("no run {run}"));
    assert_eq!(file.tensors().len(), expected.len(), "{run}");
    for (tensor, info) in file.tensors().iter().enumerate() {
        let expected = &expected[&info.name.to_string()];
        assert_eq!(info.ty.name(), expected[0], "{run} {}", info.name);
        let hash = short_hash(file.tensor_bytes(tensor));
        assert_eq!(hash, expected[1], "{run} {} {}", info.name, info.ty);
    }
    file.tensors().len()
}

#[test]
fn every_tensor_of_every_preset() {
    let Some(folder) = golden::golden("model") else {
        return;
    };
    let expected: Json =
        serde_json::from_slice(&std::fs::read(folder.join("llama_cpp_tensors.json")).unwrap())
            .unwrap();
    let checkpoint = Checkpoint::open(&folder.join("novelist-6m")).unwrap();
    let convert = |output| {
        let options = Options {
            output,
            ..Options::default()
        };
        Conversion::new(&checkpoint, &options).unwrap()
    };
    let scratch = tempfile::tempdir().unwrap();
    let control = Control {
        progress: &|_| {},
        cancel: &AtomicBool::new(false),
    };
    let output = |path, target| Output {
        path,
        target,
        split: None,
        part: None,
        replace: false,
    };
    let (mut tensors, mut runs) = (0, 0);

    let exact = convert(Precision::F32);
    for (name, precision) in [
        ("F32", Precision::F32),
        ("F16", Precision::F16),
        ("BF16", Precision::BF16),
    ] {
        let conversion = convert(precision);
        let target = Target::Converted(conversion.types().to_vec());
        let path = scratch.path().join(format!("{name}.gguf"));
        let job = Job {
            source: &conversion,
            base: None,
            importance: None,
            outputs: vec![output(path.clone(), target)],
        };
        job.plan().unwrap().run(&control).unwrap();
        tensors += compare(&format!("convert/{name}"), &path, &expected);
        runs += 1;
    }

    let matrix = Importance::read(&folder.join("imatrix.gguf")).unwrap();
    for kind in ["plain", "imatrix"] {
        let names: Vec<&str> = expected
            .as_object()
            .unwrap()
            .keys()
            .filter_map(|run| run.split_once('/'))
            .filter(|(_, of)| *of == kind)
            .map(|(name, _)| name)
            .collect();
        assert!(!names.is_empty());
        let path = |name: &str| scratch.path().join(format!("{name}-{kind}.gguf"));
        let outputs = names.iter().map(|name| {
            let preset: Preset = name.parse().unwrap();
            let effort = Effort::Reference;
            let recipe = Recipe {
                effort,
                ..preset.into()
            };
            output(path(name), Target::Quantized(recipe))
        });
        let job = Job {
            source: &exact,
            base: Some(exact.types()),
            importance: (kind == "imatrix").then_some(NamedImportance {
                matrix: &matrix,
                file: "imatrix.gguf",
            }),
            outputs: outputs.collect(),
        };
        job.plan().unwrap().run(&control).unwrap();
        for name in names {
            tensors += compare(&format!("{name}/{kind}"), &path(name), &expected);
            runs += 1;
        }
    }
    println!("{tensors} tensors of {runs} files equal");
    assert_eq!(runs, expected.as_object().unwrap().len());
}
