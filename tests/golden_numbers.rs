//! Importance, perplexity and divergence of the fixture model beside llama.cpp's figures.

mod common;

use std::path::{Path, PathBuf};

use common::{fixture, golden, grist, json, text};
use gristmill_quantize::importance::Importance;
use serde_json::Value;

/// Perplexity may differ by this share from llama.cpp's, which quantizes activations otherwise.
const PERPLEXITY: f64 = 0.005;
/// The same where nothing is quantized.
const PERPLEXITY_UNQUANTIZED: f64 = 0.0005;
/// Divergence above llama.cpp's own: a share, or an amount, whichever is more.
const DIVERGENCE: (f64, f64) = (0.02, 1e-4);
/// Divergence from that of the decoded weights, likewise.
const EXACT_DIVERGENCE: (f64, f64) = (0.02, 2e-5);

/// A preset as llama.cpp made and measured it.
struct Expected {
    preset: String,
    imatrix: bool,
    perplexity: f64,
    kl: f64,
    /// With activations in f32, where measured.
    exact_kl: Option<f64>,
}

fn expected(model: &Path) -> (f64, Vec<Expected>) {
    let file = std::fs::read(model.join("llama_cpp_reference.json")).expect("the reference");
    let reference: Value = serde_json::from_slice(&file).expect("JSON");
    let presets = reference["presets"].as_array().expect("presets").iter();
    let presets = presets
        .filter(|preset| preset["status"] == "ok")
        .map(|preset| Expected {
            preset: preset["preset"].as_str().expect("a name").to_owned(),
            imatrix: preset["imatrix"].as_bool().expect("a truth value"),
            perplexity: preset["ppl"].as_f64().expect("a number"),
            kl: preset["kld_mean"].as_f64().expect("a number"),
            exact_kl: preset["dequantized"]["kld_mean"].as_f64(),
        });
    let base = reference["base"]["ppl"].as_f64().expect("a number");
    (base, presets.collect())
}

/// The files of some presets at effort `reference`.
fn quantized(base: &Path, presets: &[&Expected], imatrix: Option<&Path>) -> Vec<PathBuf> {
    if presets.is_empty() {
        return Vec::new();
    }
    let folder = base.parent().expect("a folder");
    let folder = folder.join(if imatrix.is_some() { "with" } else { "without" });
    let types: Vec<&str> = presets.iter().map(|p| p.preset.as_str()).collect();
    let types = types.join(",");
    let mut arguments = vec![
        "quantize",
        text(base),
        "-o",
        text(&folder),
        "--types",
        &types,
    ];
    arguments.extend(["--effort", "reference"]);
    if let Some(imatrix) = imatrix {
        arguments.extend(["--imatrix", text(imatrix)]);
    }
    let output = grist(&arguments);
    assert!(output.status.success(), "{}", common::stderr(&output));
    let file = |preset: &&Expected| folder.join(format!("base-{}.gguf", preset.preset));
    presets.iter().map(file).collect()
}

/// Measures presets both ways and lists what is out of bounds.
fn measure(wanted: impl Fn(&Expected) -> bool) {
    let Some(model) = golden("model") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = folder.path().join("base.gguf");
    let source = fixture();
    let output = grist(["convert", text(&source), "--type", "f32", "-o", text(&base)]);
    assert!(output.status.success(), "{}", common::stderr(&output));
    let (base_perplexity, presets) = expected(&model);
    let presets: Vec<Expected> = presets.into_iter().filter(wanted).collect();
    assert!(!presets.is_empty());
    let (with, without): (Vec<_>, Vec<_>) = presets.iter().partition(|preset| preset.imatrix);
    let mut files = quantized(&base, &with, Some(&model.join("imatrix.gguf")));
    files.extend(quantized(&base, &without, None));
    let presets: Vec<&Expected> = with.into_iter().chain(without).collect();

    let held_out = source.join("heldout.txt");
    let mut wrong = Vec::new();
    for exact in [false, true] {
        let measured: Vec<(&Expected, &PathBuf)> = (presets.iter().copied().zip(&files))
            .filter(|(preset, _)| !exact || preset.exact_kl.is_some())
            .collect();
        let mut arguments = vec!["compare", text(&base)];
        arguments.extend(measured.iter().map(|(_, file)| text(file)));
        arguments.extend(["-f", text(&held_out), "-c", "512", "--chunks", "104"]);
        arguments.extend(["--no-speed", "--json"]);
        arguments.extend(exact.then_some("--exact"));
        let report = json(&grist(&arguments));
        let found = report["base"]["perplexity"].as_f64().expect("a number");
        if (found / base_perplexity - 1.0).abs() > PERPLEXITY_UNQUANTIZED {
            wrong.push(format!(
                "base: perplexity {found}, expected {base_perplexity}"
            ));
        }
        let variants = report["variants"].as_array().expect("variants");
        assert_eq!(variants.len(), measured.len());
        for (variant, (expected, _)) in variants.iter().zip(measured) {
            let perplexity = variant["perplexity"].as_f64().expect("a number");
            let kl = variant["kl_mean"].as_f64().expect("a number");
            let label = format!("{} (importance: {})", expected.preset, expected.imatrix);
            println!("{label}, exact {exact}: perplexity {perplexity:.5}, KL {kl:.6}");
            if !exact && (perplexity / expected.perplexity - 1.0).abs() > PERPLEXITY {
                wrong.push(format!(
                    "{label}: perplexity {perplexity}, llama.cpp's {}",
                    expected.perplexity
                ));
            }
            let within = |bound: f64, (share, amount): (f64, f64)| (bound * share).max(amount);
            let off = match expected.exact_kl.filter(|_| exact) {
                Some(bound) => (kl - bound).abs() > within(bound, EXACT_DIVERGENCE),
                None => kl > expected.kl + within(expected.kl, DIVERGENCE),
            };
            if off {
                wrong.push(format!(
                    "{label}: exact {exact}, KL {kl}, llama.cpp's {}, of decoded weights {:?}",
                    expected.kl, expected.exact_kl
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{} presets measured both ways", presets.len());
}

#[test]
fn figures_agree_with_llama_cpp() {
    measure(|preset| preset.imatrix && preset.preset == "Q4_K_M");
}

#[test]
#[ignore = "minutes: cargo test --release --test golden_numbers -- --ignored"]
fn figures_of_every_preset_agree_with_llama_cpp() {
    measure(|_| true);
}

#[test]
fn importance_equals_llama_imatrix() {
    let Some(model) = golden("model") else {
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (base, matrix) = (
        folder.path().join("base.gguf"),
        folder.path().join("m.gguf"),
    );
    let source = fixture();
    let output = grist(["convert", text(&source), "--type", "f32", "-o", text(&base)]);
    assert!(output.status.success(), "{}", common::stderr(&output));
    let calibration = source.join("calibration.txt");
    let arguments = ["-f", text(&calibration), "-c", "512", "-o", text(&matrix)];
    let output = grist(["imatrix", text(&base)].iter().chain(&arguments));
    assert!(output.status.success(), "{}", common::stderr(&output));
    let found = Importance::read(&matrix).expect("our matrix").entries;
    let expected = Importance::read(&model.join("imatrix.gguf")).expect("llama.cpp's matrix");
    let expected = expected.entries;
    assert!(found.keys().eq(expected.keys()));
    let mut worst = 0f64;
    for ((name, found), expected) in found.iter().zip(expected.values()) {
        assert_eq!(found.counts, expected.counts, "{name}");
        assert_eq!(found.sums.len(), expected.sums.len(), "{name}");
        for (column, (&found, &expected)) in found.sums.iter().zip(&expected.sums).enumerate() {
            let off = f64::from((found - expected).abs() / expected.abs());
            assert!(
                off <= 1e-3,
                "{name}, column {column}: {found} instead of {expected}"
            );
            worst = worst.max(off);
        }
    }
    println!("{} entries, off by {worst:.1e} at most", expected.len());
}
