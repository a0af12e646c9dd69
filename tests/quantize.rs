//! `grist quantize` from outside: what it writes, prints and refuses.

mod common;

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

fn grist(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("grist"));
    command.arg("quantize").args(arguments).current_dir(folder);
    command
}

fn sha256(path: &Path) -> String {
    let digest = Sha256::digest(std::fs::read(path).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn writes_the_reference_files_and_their_recipes() {
    let Some(golden) = common::golden("types/e2e/dense") else {
        return;
    };
    let expected: Json =
        serde_json::from_slice(&std::fs::read(golden.join("expected.json")).unwrap()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().to_str().unwrap();
    let arguments = [
        "source.gguf",
        "--types",
        "q4_k_m,IQ2_XS,Q8_0",
        "--imatrix",
        "importance.gguf",
        "-o",
        out,
        "--effort",
        "reference",
        "--save-recipe",
        "--json",
    ];
    let output = grist(&arguments, &golden)
        .assert()
        .success()
        .get_output()
        .clone();
    let printed: Json = serde_json::from_slice(&output.stdout).unwrap();
    for (at, preset) in ["Q4_K_M", "IQ2_XS", "Q8_0"].into_iter().enumerate() {
        let expected = &expected[preset]["importance"];
        let path = scratch.path().join(format!("source-{preset}.gguf"));
        assert_eq!(sha256(&path), expected["file_sha256"].as_str().unwrap());
        let printed = &printed[at];
        assert_eq!(printed["type"], preset);
        assert_eq!(printed["size_bytes"], expected["file_bytes"]);
        let tensors = printed["tensors"].as_array().unwrap();
        for (tensor, expected) in tensors.iter().zip(expected["tensors"].as_array().unwrap()) {
            assert_eq!(
                (&tensor["name"], &tensor["to"]),
                (&expected[0], &expected[1])
            );
            assert!(tensor["reason"] == "rule" && tensor["from"].is_string());
        }
        // The recipe makes the same file again.
        let recipe = path.with_extension("toml");
        let again = scratch.path().join(format!("again-{preset}.gguf"));
        let arguments = [
            "source.gguf",
            "--recipe",
            recipe.to_str().unwrap(),
            "--imatrix",
            "importance.gguf",
            "-o",
            again.to_str().unwrap(),
        ];
        grist(&arguments, &golden).assert().success();
        assert_eq!(sha256(&again), sha256(&path), "{preset}");
    }
}

#[test]
fn plans_without_writing() {
    let Some(golden) = common::golden("types/e2e/dense") else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().to_str().unwrap();
    let arguments = [
        "source.gguf",
        "--types",
        "Q4_K_M,IQ1_S",
        "-o",
        out,
        "--dry-run",
        "--json",
        "--tensor-type",
        "attn_v=Q8_0",
    ];
    let output = grist(&arguments, &golden)
        .assert()
        .success()
        .get_output()
        .clone();
    let printed: Json = serde_json::from_slice(&output.stdout).unwrap();
    let tensors = printed[0]["tensors"].as_array().unwrap();
    let value = tensors
        .iter()
        .find(|t| t["name"] == "blk.1.attn_v.weight")
        .unwrap();
    assert_eq!(
        (&value["to"], &value["reason"]),
        (&"Q8_0".into(), &"override".into())
    );
    assert_eq!(value["shape"], serde_json::json!([256, 32]));
    assert!(printed[0]["bits_per_weight"].as_f64().unwrap() > 4.0);
    let warned = String::from_utf8_lossy(&output.stderr);
    assert!(warned.contains("needs an importance matrix"), "{warned}");
    assert!(names(scratch.path()).is_empty());
}

#[test]
fn refuses_with_a_reason_and_leaves_nothing() {
    let Some(golden) = common::golden("types/e2e/dense") else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().to_str().unwrap();
    let model = scratch.path().join("model.gguf");
    std::fs::copy(golden.join("source.gguf"), &model).unwrap();
    let model = model.to_str().unwrap();
    for (arguments, code, message) in [
        (
            vec![model, "--types", "IQ2_XS", "-o", out],
            3,
            "needs an importance matrix",
        ),
        (
            vec![model, "--types", "Q4KM", "-o", out],
            2,
            "did you mean `Q4_K_M`?",
        ),
        (
            vec![
                model,
                "--types",
                "Q4_K_M",
                "--tensor-type",
                "a=Q4K",
                "-o",
                out,
            ],
            2,
            "`Q4_K`",
        ),
        (
            vec![model, "--types", "Q4_K_M", "--part", "4/3", "-o", out],
            2,
            "I/N",
        ),
        (
            vec![model, "--types", "Q4_K_M", "--prune-layers", "9", "-o", out],
            2,
            "layer 9",
        ),
        (
            vec![model, "--types", "F16", "-o", model],
            2,
            "is the input",
        ),
        (
            vec![model, "--types", "F16", "-o", model, "--force"],
            2,
            "is the input",
        ),
        (
            vec![model, "--types", "F16,Q8_0", "-o", "x.gguf"],
            2,
            "is one file",
        ),
        (
            vec!["absent.gguf", "--types", "F16", "-o", out],
            3,
            "absent.gguf",
        ),
        (
            vec![model, "--types", "Q8_0", "--imatrix", model, "-o", out],
            3,
            "is this a model?",
        ),
    ] {
        let output = grist(&arguments, scratch.path())
            .assert()
            .code(code)
            .get_output()
            .clone();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(message), "{arguments:?}: {said}");
        assert!(
            said.starts_with("error: ") || said.contains("\nerror: "),
            "{said}"
        );
        assert_eq!(names(scratch.path()), ["model.gguf"], "{arguments:?}");
    }
    let requantized = scratch.path().join("small.gguf");
    let requantized = requantized.to_str().unwrap();
    grist(
        &[model, "--types", "Q8_0", "-o", requantized],
        scratch.path(),
    )
    .assert()
    .success();
    let again = [requantized, "--types", "Q4_K_M", "-o", out];
    grist(&again, scratch.path()).assert().code(3);
    grist(
        &[&again[..], &["--allow-requantize"]].concat(),
        scratch.path(),
    )
    .assert()
    .success();
}

#[test]
fn prunes_and_overrides() {
    let Some(golden) = common::golden("types/e2e/dense") else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("pruned.gguf");
    let arguments = [
        "source.gguf",
        "--types",
        "Q8_0",
        "-o",
        path.to_str().unwrap(),
        "--prune-layers",
        "1,2",
        "--override-kv",
        "general.name=str:less",
        "--override-kv",
        "custom.flag=bool:false",
    ];
    grist(&arguments, &golden).assert().success();
    let file = gristmill_gguf::File::open(&path).unwrap();
    let metadata = gristmill_gguf::Source::metadata(&file);
    assert_eq!(metadata.str("general.name"), Some("less"));
    assert_eq!(metadata.bool("custom.flag"), Some(false));
    assert_eq!(metadata.u64("llama.block_count"), Some(2));
    let source = gristmill_gguf::File::open(&golden.join("source.gguf")).unwrap();
    let norm = |file: &gristmill_gguf::File, layer: u32| {
        let tensor = file.find(format!("blk.{layer}.attn_norm.weight")).unwrap();
        file.tensor_bytes(tensor).to_vec()
    };
    assert_eq!(norm(&file, 1), norm(&source, 3));
    assert_eq!(file.find("blk.2.attn_norm.weight"), None);
}

/// Recipes for a size, on few tokens: the size is met, the recipe makes the same file again, measured
/// sensitivities are taken up, and what cannot be reached says what can.
#[test]
fn a_recipe_for_a_size_meets_it_and_can_be_followed() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/novelist-6m");
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let calibration = fixture.join("calibration.txt").display().to_string();
    let source = fixture.display().to_string();
    let target = |size: &[&str], out: &str| {
        let mut arguments = vec![source.as_str(), "--calibration", &calibration, "-o", out];
        arguments.extend(["-c", "64", "--chunks", "1", "--effort", "reference", "-q"]);
        arguments.extend(size);
        grist(&arguments, scratch.path()).assert()
    };
    let out = path("small.gguf");
    target(&["--target-bpw", "4.6", "--json"], &out).success();
    let report = grist(
        &[
            &source,
            "--recipe",
            &path("small.toml"),
            "-o",
            &path("again.gguf"),
            "--json",
        ],
        scratch.path(),
    )
    .assert()
    .success()
    .get_output()
    .clone();
    let report: Json = serde_json::from_slice(&report.stdout).unwrap();
    let bits = report[0]["bits_per_weight"].as_f64().unwrap();
    assert!((bits / 4.6 - 1.0).abs() < 0.005, "{bits}");
    let types: std::collections::BTreeSet<&str> = (report[0]["tensors"].as_array().unwrap().iter())
        .filter_map(|tensor| tensor["to"].as_str())
        .collect();
    assert!(types.len() > 3, "{types:?}");
    assert_eq!(
        sha256(Path::new(&out)),
        sha256(Path::new(&path("again.gguf")))
    );

    let kept = scratch.path().join(".novelist-6m.sensitivities.json");
    let before = std::fs::read(&kept).unwrap();
    let out = path("sized.gguf");
    target(&["--target-size", "5200000"], &out).success();
    let size = std::fs::metadata(&out).unwrap().len() as f64;
    assert!((size / 5.2e6 - 1.0).abs() < 0.005, "{size}");
    assert_eq!(std::fs::read(&kept).unwrap(), before);

    let refused = target(&["--target-bpw", "1.2"], &path("tiny.gguf")).failure();
    let message = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(message.contains("can be reached"), "{message}");
    assert!(!scratch.path().join("tiny.gguf").exists());
}

#[test]
fn refuses_before_a_folder_is_made() {
    let scratch = tempfile::tempdir().unwrap();
    let source = common::fixture();
    let run = |ty: &str, set: &str, code: i32| {
        let arguments = [source.to_str().unwrap(), "--types", ty, "-o", "out"];
        let refused = grist(&arguments, scratch.path())
            .env("GRIST_CPU", set)
            .assert()
            .code(code);
        String::from_utf8_lossy(&refused.get_output().stderr).into_owned()
    };
    assert!(run("IQ2_XXS", "portable", 3).contains("grist imatrix"));
    assert!(run("Q4_0", "abacus", 4).contains("this CPU has portable"));
    assert!(names(scratch.path()).is_empty());
}
