//! The main road as a user walks it: the built command on the fixture model.

mod common;

use std::fs;
use std::path::Path;

use common::{fixture, grist, json, stderr};
use serde_json::Value;

/// The first so many bytes of a fixture text, in a file of its own.
fn head_of(text: &str, bytes: usize, folder: &Path) -> String {
    let whole = fs::read(fixture().join(text)).expect("the text");
    let path = folder.join(text);
    fs::write(&path, &whole[..bytes]).expect("a short text");
    path.to_str().expect("a plain path").to_owned()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn a_release_makes_checks_and_measures() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = head_of("heldout.txt", 12_000, folder.path());
    let calibration = head_of("calibration.txt", 12_000, folder.path());
    let out = folder.path().join("out");
    let source = fixture();
    let arguments = [
        "release",
        source.to_str().expect("a plain path"),
        "-o",
        out.to_str().expect("a plain path"),
        "--types",
        "Q8_0,q4_k_m",
        "--text",
        &text,
        "--calibration",
        &calibration,
        "--json",
    ];
    let report = json(&grist(arguments));
    let variants = report["variants"].as_array().expect("variants");
    let types: Vec<_> = variants.iter().filter_map(|v| v["type"].as_str()).collect();
    assert_eq!(types, ["Q8_0", "Q4_K_M"]);
    let kl = |at: usize| variants[at]["kl_mean"].as_f64().expect("a number");
    assert!(
        kl(0) > 0.0 && kl(0) < 3e-4 && kl(0) < kl(1) && kl(1) < 5e-3,
        "{} {}",
        kl(0),
        kl(1)
    );
    for variant in variants {
        assert!(variant["prompt_tokens_per_second"].as_f64() > Some(0.0));
        assert_eq!(variant["imatrix"], "imatrix.gguf");
        let file = out.join(variant["file"].as_str().expect("a name"));
        assert_eq!(
            Some(fs::metadata(&file).expect("the file").len()),
            variant["size_bytes"].as_u64()
        );
        let check = grist([
            "check",
            file.to_str().expect("a plain path"),
            "--level",
            "data",
        ]);
        assert!(check.status.success(), "{}", stderr(&check));
    }
    let made = files(&out);
    for name in [
        "README.md",
        "imatrix.gguf",
        "report.json",
        "novelist-6m-BF16.gguf",
        "novelist-6m-Q4_K_M.gguf",
    ] {
        assert!(
            made.iter().any(|made| made == name),
            "{name} is not in {made:?}"
        );
    }
    let stored: Value =
        serde_json::from_slice(&fs::read(out.join("report.json")).expect("the report"))
            .expect("JSON");
    assert_eq!(stored, report);
    let card = grist(["card", out.to_str().expect("a plain path")]);
    assert!(card.status.success(), "{}", stderr(&card));
    assert!(card.stdout == fs::read(out.join("README.md")).expect("the card"));

    // A rerun finds everything done; a file with other bytes under the same name is made again.
    let again = grist(arguments);
    assert_eq!(json(&again), report);
    assert_eq!(
        stderr(&again).matches("is there already").count(),
        4,
        "{}",
        stderr(&again)
    );
    let damaged = out.join("novelist-6m-Q8_0.gguf");
    let good = fs::read(&damaged).expect("the file");
    let mut bytes = good.clone();
    bytes[good.len() / 2] ^= 1;
    fs::write(&damaged, bytes).expect("damage");
    let repaired = grist(arguments);
    assert_eq!(
        stderr(&repaired).matches("is there already").count(),
        3,
        "{}",
        stderr(&repaired)
    );
    assert!(
        fs::read(&damaged).expect("the file") == good,
        "made again with the same bytes"
    );
}

#[test]
fn files_of_others_are_not_replaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("novelist-6m-BF16.gguf");
    fs::write(&path, "precious").expect("a file");
    let source = fixture();
    let source = source.to_str().expect("a plain path");
    let out = folder.path().to_str().expect("a plain path");
    let refused = grist(["release", source, "-o", out, "--types", "Q8_0"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("--force"), "{}", stderr(&refused));
    let refused = grist([
        "convert",
        source,
        "-o",
        path.to_str().expect("a plain path"),
    ]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert_eq!(fs::read(&path).expect("the file"), b"precious");
}

#[test]
fn bad_input_gets_two_lines_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let text = at("short.txt");
    fs::write(&text, "Too short.").expect("a text");
    let copy = |name: &str, change: &dyn Fn(&Path)| {
        let to = at(name);
        fs::create_dir(&to).expect("a folder");
        for file in files(&fixture()) {
            fs::copy(fixture().join(&file), to.join(&file)).expect("a copy");
        }
        change(&to);
        to
    };
    let config = |to: &Path, from: &str, with: &str| {
        let path = to.join("config.json");
        let text = fs::read_to_string(&path).expect("the configuration");
        assert!(text.contains(from));
        fs::write(path, text.replace(from, with)).expect("another configuration");
    };
    let no_class = copy("no-class", &|to| {
        config(to, "\"architectures\"", "\"other\"");
    });
    let unknown = copy("unknown", &|to| {
        config(to, "LlamaForCausalLM", "LlamaForCausalLN");
    });
    let truncated = copy("truncated", &|to| {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(to.join("model.safetensors"))
            .expect("the weights");
        file.set_len(1_000_000).expect("a shorter file");
    });
    let not_finite = copy("not-finite", &|to| {
        let path = to.join("model.safetensors");
        let mut bytes = fs::read(&path).expect("the weights");
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&[0xC0, 0x7F]);
        fs::write(path, bytes).expect("other weights");
    });
    let out = at("out");
    let cases: [(&Path, &str, &str); 5] = [
        (&no_class, "heldout.txt", "architectures"),
        (&unknown, "heldout.txt", "LlamaForCausalLM"),
        (&truncated, "heldout.txt", "model.safetensors"),
        (&not_finite, "heldout.txt", "row"),
        (
            &fixture(),
            text.to_str().expect("a plain path"),
            "short.txt",
        ),
    ];
    for (source, text, names) in cases {
        let text = fixture().join(text);
        let output = grist([
            "release",
            source.to_str().expect("a plain path"),
            "-o",
            out.to_str().expect("a plain path"),
            "--types",
            "Q4_K_M",
            "--no-imatrix",
            "--text",
            text.to_str().expect("a plain path"),
        ]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{source:?}: {message}");
        let lines: Vec<&str> = message
            .lines()
            .filter(|line| !line.starts_with("wrote"))
            .collect();
        assert!(lines[0].starts_with("error: "), "{message}");
        assert!(message.contains(names), "{names} is not named in {message}");
        assert!(
            out.join("novelist-6m-Q4_K_M.gguf").metadata().is_err(),
            "a file is left"
        );
    }
    let unknown_type = grist([
        "release",
        source_of(&fixture()),
        "-o",
        source_of(&out),
        "--types",
        "Q4_K_N",
    ]);
    assert_eq!(unknown_type.status.code(), Some(2));
    assert!(
        stderr(&unknown_type).contains("did you mean `Q4_K_"),
        "{}",
        stderr(&unknown_type)
    );
}

fn source_of(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn bench_measures_what_was_asked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let model = folder.path().join("model.gguf");
    let model = model.to_str().expect("a plain path");
    let source = fixture();
    let source = source.to_str().expect("a plain path");
    let converted = grist(["convert", source, "-o", model]);
    assert!(converted.status.success(), "{}", stderr(&converted));
    let found = json(&grist([
        "bench", model, "-p", "16", "-n", "0", "-r", "1", "-j", "1", "--json",
    ]));
    assert_eq!(found["prompt_tokens"], 16);
    assert_eq!(found["threads"], 1);
    let row = &found["models"][0];
    assert!(row["prompt_tokens_per_second"].as_f64() > Some(0.0));
    assert!(row["generation_tokens_per_second"].is_null());
    assert_eq!(
        row["size_bytes"].as_u64(),
        fs::metadata(model).ok().map(|m| m.len())
    );
}
