//! Importance matrices: what is refused before work starts, what is only said, and that an interrupted
//! collection goes on.

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::{fixture, grist, json, stderr, text};
use gristmill_engine::tokenizer::Tokenizer;
use gristmill_engine::{LoadOptions, Model, SessionOptions};
use gristmill_gguf::{File, Source};
use gristmill_perplexity::evaluate::{Error, Observer};
use gristmill_perplexity::importance::{self, State};
use gristmill_perplexity::protocol::Chunks;
use gristmill_quantize::importance::{Entry, Importance};

/// The fixture model as GGUF.
fn base(folder: &Path) -> PathBuf {
    let path = folder.join("base.gguf");
    let output = grist(["convert", text(&fixture()), "-o", text(&path), "-q"]);
    assert!(output.status.success(), "{}", stderr(&output));
    path
}

/// Equal importance for all matrices of layers.
fn equal(model: &Path) -> Importance {
    let file = File::open(model).expect("a model");
    let matrices = file.tensors().iter().filter(|tensor| {
        tensor.name.starts_with(b"blk.") && tensor.name.ends_with(b".weight") && tensor.dims() == 2
    });
    Importance {
        entries: matrices
            .map(|tensor| {
                let entry = Entry {
                    sums: vec![1.0; tensor.row_len() as usize],
                    counts: vec![1],
                };
                (tensor.name.clone(), entry)
            })
            .collect(),
        chunk_size: Some(512),
        ..Importance::default()
    }
}

const ENTRY: &str = "blk.1.attn_q.weight";

fn entry(matrix: &mut Importance) -> &mut Entry {
    matrix.entries.get_mut(ENTRY.as_bytes()).expect("the entry")
}

#[test]
fn unfit_importance_is_refused_and_nothing_is_written() {
    type Change = fn(&mut Importance);
    let cases: [(Change, &str, &str); 8] = [
        (|m| entry(m).sums[3] = f32::NAN, "Q4_K_M", "value 3 is NaN"),
        (
            |m| entry(m).sums[5] = f32::INFINITY,
            "Q4_K_M",
            "value 5 is inf",
        ),
        (|m| entry(m).sums[7] = -1.0, "Q4_K_M", "value 7 is -1"),
        (|m| entry(m).sums.fill(0.0), "Q4_K_M", "values are zero"),
        (
            |m| entry(m).sums.truncate(100),
            "Q4_K_M",
            "100 values, but the tensor has",
        ),
        (
            |m| {
                let entries = std::mem::take(&mut m.entries).into_iter();
                m.entries = entries
                    .map(|(n, e)| ([b"other.", &n[..]].concat().into(), e))
                    .collect();
            },
            "Q4_K_M",
            "of another model",
        ),
        (
            |m| m.entries.clear(),
            "IQ2_XS",
            "an importance matrix without entries",
        ),
        (
            |m| {
                m.entries.remove(ENTRY.as_bytes());
            },
            "IQ2_XS",
            "has no entry for this tensor",
        ),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let (model, out) = (base(folder.path()), folder.path().join("out"));
    let path = folder.path().join("matrix.gguf");
    for (change, preset, message) in cases {
        let mut matrix = equal(&model);
        change(&mut matrix);
        matrix.write(&path, true).expect("written");
        let arguments = ["quantize", text(&model), "--imatrix", text(&path)];
        let output = grist(
            arguments
                .iter()
                .chain(&["--types", preset, "-o", text(&out)]),
        );
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{message}: {said}");
        assert!(said.contains(message), "{message}: {said}");
        let written = std::fs::read_dir(&out).map_or(0, Iterator::count);
        assert_eq!(written, 0, "{message}");
    }
}

#[test]
fn entries_too_many_or_too_few_are_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, path) = (base(folder.path()), folder.path().join("matrix.gguf"));
    let mut matrix = equal(&model);
    let extra = matrix.entries.remove(ENTRY.as_bytes()).expect("the entry");
    matrix.entries.insert("blk.99.attn_q.weight".into(), extra);
    matrix.write(&path, true).expect("written");
    let arguments = ["quantize", text(&model), "--imatrix", text(&path), "-v"];
    let more = ["--types", "Q4_K_M", "--dry-run", "-o", text(folder.path())];
    let said = stderr(&grist(arguments.iter().chain(&more)));
    let foreign = "1 entries of the importance matrix are of no tensor here, the first is blk.99";
    assert!(said.contains(foreign), "{said}");
    let without = format!("encoded without importance, the first is {ENTRY}");
    assert!(said.contains(&without), "{said}");
}

#[test]
fn experts_that_saw_few_tokens_are_said() {
    let Some(golden) = common::golden("types/e2e/moe") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("matrix.gguf");
    let mut matrix = Importance::read(&golden.join("importance.gguf")).expect("a matrix");
    let stack = matrix
        .entries
        .iter_mut()
        .find(|(_, entry)| entry.counts.len() > 1);
    let (name, entry) = stack.expect("experts");
    let columns = entry.sums.len() / entry.counts.len();
    entry.counts.fill(1000);
    entry.counts[0] = 0;
    entry.sums[..columns].fill(0.0);
    entry.counts[1] = 63;
    let expected = format!("{name}: 2 of {} experts saw fewer", entry.counts.len());
    matrix.write(&path, true).expect("written");
    let source = golden.join("source.gguf");
    let arguments = ["quantize", text(&source), "--imatrix", text(&path)];
    let more = ["--types", "Q4_K_M", "--dry-run", "-o", text(folder.path())];
    let said = stderr(&grist(arguments.iter().chain(&more)));
    assert!(
        said.contains(&expected) && said.contains("(1 none)"),
        "{said}"
    );
}

#[test]
fn an_interrupted_collection_goes_on_to_the_same_matrix() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = LoadOptions { threads: Some(1) };
    let model = Model::open(&base(folder.path()), &options).expect("a model");
    let tokenizer = Tokenizer::from_metadata(model.metadata()).expect("a tokenizer");
    let calibration = std::fs::read(fixture().join("calibration.txt")).expect("a text");
    let tokens = tokenizer.encode(&calibration[..60_000], true, false);
    // A hundred chunks are three batches.
    let chunks = Chunks::new(tokens, 64, Some(100), None).expect("chunks");
    let state = State {
        path: folder.path().join("state"),
        identity: "this model and text".into(),
    };
    let seen = AtomicUsize::new(0);
    let collect = |state: Option<&State>, interrupt: bool| {
        let interrupted = AtomicBool::new(false);
        let observer = Observer {
            progress: &|more| {
                seen.fetch_add(more, Ordering::Relaxed);
                interrupted.store(interrupt, Ordering::Relaxed);
            },
            interrupted: &interrupted,
        };
        importance::collect(
            &model,
            &SessionOptions::default(),
            &chunks,
            "text",
            state,
            &observer,
        )
    };
    let whole = collect(None, false).expect("a matrix");
    for _ in 0..2 {
        // Each goes on where the one before stopped.
        let stopped = collect(Some(&state), true);
        assert!(matches!(stopped, Err(Error::Interrupted)));
    }
    let other = State {
        path: state.path.clone(),
        identity: "another".into(),
    };
    seen.store(0, Ordering::Relaxed);
    let again = collect(Some(&state), false).expect("a matrix");
    assert_eq!(again, whole);
    assert_eq!(seen.load(Ordering::Relaxed), 100);
    // A state of something else is not taken up.
    assert_eq!(collect(Some(&other), false).expect("a matrix"), whole);
    state.remove();
    assert!(!state.path.exists());
}

/// However many outputs: the source is read and decoded once, and the parts stay if asked for.
#[test]
fn one_pass_serves_all_outputs_and_keeps_the_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = base(folder.path());
    let split = folder.path().join("split.gguf");
    let arguments = [
        "split",
        text(&model),
        "--split-max-tensors",
        "7",
        "-o",
        text(&split),
    ];
    let output = grist(arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let mut names = std::fs::read_dir(folder.path()).expect("the folder");
    let part = names.find_map(|entry| {
        let path = entry.expect("an entry").path();
        text(&path).contains("split-00003-of-").then_some(path)
    });
    let parts = File::open(&part.expect("a part")).expect("a set");
    let quantize = |types: &str, out: &str, more: &[&str]| {
        let out = folder.path().join(out);
        let source = &parts.parts()[0].path;
        let arguments = ["quantize", text(source), "--types", types, "-o", text(&out)];
        json(&grist(arguments.iter().chain(&["--json"]).chain(more)))
    };
    let one = quantize("Q4_K_M", "one", &[]);
    let five = quantize("Q4_K_M,Q8_0,Q2_K,IQ4_XS,Q6_K", "five", &["--keep-split"]);
    let bytes: u64 = (parts.tensors().iter())
        .filter_map(gristmill_gguf::TensorInfo::bytes)
        .sum();
    assert_eq!(one[0]["source_bytes"], bytes);
    for output in five.as_array().expect("outputs") {
        for figure in ["source_bytes", "decoded_values"] {
            assert_eq!(output[figure], one[0][figure], "{figure}");
        }
        let first = output["files"][0].as_str().expect("a file");
        let made = File::open(first.as_ref()).expect("a set");
        let places = |file: &File| -> Vec<_> {
            let tensors = file.tensors().iter().enumerate();
            tensors
                .map(|(i, t)| (t.name.clone(), file.part(i)))
                .collect()
        };
        assert_eq!(places(&made), places(&parts), "{first}");
    }
    // The order decides which layers get more bits, not here: the types are those of one file.
    let types = |output: &serde_json::Value| {
        let tensors = output["tensors"].as_array().expect("tensors").iter();
        let pairs = tensors.map(|t| (t["name"].to_string(), t["to"].to_string()));
        pairs.collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(types(&five[0]), types(&one[0]));
}
