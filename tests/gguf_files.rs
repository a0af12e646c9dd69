//! The commands that read and edit GGUF files, as a user runs them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use serde_json::Value as Json;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/gguf")
        .join(name)
}

type Arguments<'a> = &'a [&'a dyn AsRef<OsStr>];

/// What the command prints on each stream, if it exits with this code.
fn grist(arguments: Arguments<'_>, code: i32) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grist"));
    command.args(arguments.iter().map(AsRef::as_ref));
    let assert = command.assert().code(code);
    let output = assert.get_output();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

fn json(arguments: Arguments<'_>, code: i32) -> Json {
    serde_json::from_str(&grist(arguments, code).0).unwrap()
}

/// Runs the command and expects success.
fn done(arguments: Arguments<'_>) -> String {
    grist(arguments, 0).0
}

/// Runs the command and expects this exit code, a line of error and perhaps one of help.
fn fails(arguments: Arguments<'_>, code: i32) {
    let (_, text) = grist(arguments, code);
    let lines: Vec<_> = text.lines().collect();
    let helped = lines.len() == 2 && lines[1].starts_with("help: ");
    assert!(
        lines[0].starts_with("error: ") && (lines.len() == 1 || helped),
        "{text}"
    );
}

#[test]
fn check_exits_by_severity() {
    let good = fixture("files/v3_model.gguf");
    assert_eq!(done(&[&"check", &good]), "0 errors, 0 warnings, 0 notes\n");
    let odd = fixture("files/alignment_24.gguf");
    let report = json(&[&"check", &"--json", &odd], 0);
    assert_eq!(report["findings"][0]["code"], "alignment-power");
    assert_eq!(report["findings"][0]["llama_cpp_refuses"], true);
    assert_eq!(
        (&report["errors"], &report["warnings"]),
        (&0.into(), &1.into())
    );
    grist(&[&"check", &"--strict", &odd], 1);
    let bad = fixture("files/key_duplicate.gguf");
    let report = json(&[&"check", &"--json", &bad], 1);
    assert_eq!(report["findings"][0]["code"], "key-duplicate");
    assert_eq!(report["findings"][0]["key"], "general.name");
    assert!(report["findings"][0]["offset"].is_u64());
    // No GGUF file at all is a finding; no file at all is a bad input.
    let other = fixture("manifest.json");
    let report = json(&[&"check", &"--json", &other], 1);
    assert_eq!(report["findings"][0]["code"], "bad-magic");
    fails(&[&"check", &"no-such-file.gguf"], 3);
    fails(&[&"check", &"--level", &"everything", &good], 2);
}

#[test]
fn check_goes_as_far_as_it_is_told() {
    let file = fixture("files/v3_model.gguf");
    let model = json(&[&"check", &"--json", &"--level", &"model", &file], 1);
    let findings = model["findings"].as_array().unwrap();
    assert!(
        findings
            .iter()
            .any(|finding| finding["code"] == "tensor-missing"),
        "{model}"
    );
}

#[test]
fn inspect_lists_keys_and_tensors() {
    let text = done(&[&"inspect", &fixture("files/all_value_types.gguf")]);
    assert!(
        text.contains("18446744073709551615") && text.contains("token_embd.weight"),
        "{text}"
    );
    let set = fixture("split_ok/m-00002-of-00003.gguf");
    let report = json(&[&"inspect", &"--json", &set], 0);
    assert_eq!(report["files"].as_array().unwrap().len(), 3);
    assert_eq!(report["tensors"].as_array().unwrap().len(), 5);
    assert_eq!(report["architecture"], "llama");
    fails(
        &[&"inspect", &fixture("files/truncated_data_middle.gguf")],
        3,
    );
}

#[test]
fn a_model_survives_split_merge_and_byte_order() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("files/v3_model.gguf");
    let bytes = std::fs::read(&model).unwrap();
    let parts = dir.path().join("m.gguf");
    let split: Arguments<'_> = &[
        &"split",
        &"--json",
        &model,
        &"-o",
        &parts,
        &"--split-max-tensors",
        &"2",
    ];
    assert_eq!(json(split, 0)["files"].as_array().unwrap().len(), 3);
    let first = dir.path().join("m-00001-of-00003.gguf");
    let merged = dir.path().join("merged.gguf");
    done(&[&"merge", &first, &"-o", &merged]);
    assert_eq!(std::fs::read(&merged).unwrap(), bytes);
    let (big, little) = (dir.path().join("big.gguf"), dir.path().join("little.gguf"));
    done(&[&"endian", &"--to", &"big", &model, &"-o", &big]);
    assert_ne!(std::fs::read(&big).unwrap(), bytes);
    done(&[&"endian", &big, &"-o", &little]);
    assert_eq!(std::fs::read(&little).unwrap(), bytes);
    // The same model in all of these forms.
    let digest = |file: &PathBuf| json(&[&"hash", &"--json", file], 0)["model"].clone();
    for other in [&first, &merged, &big] {
        assert_eq!(digest(other), digest(&model));
        assert_eq!(
            done(&[&"diff", &model, other]),
            "the same metadata and tensors\n"
        );
    }
    fails(split, 2);
    fails(&[&"split", &model], 2);
    fails(&[&"split", &model, &"--split-max-size", &"0"], 2);
}

#[test]
fn metadata_are_edited() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("files/v3_model.gguf");
    let edited = dir.path().join("edited.gguf");
    done(&[
        &"meta",
        &model,
        &"-o",
        &edited,
        &"--set",
        &"general.name=new",
        &"--set",
        &"llama.rope.freq_base=5e5",
        &"--set",
        &"my.key:u8=7",
        &"--set",
        &"general.tags=[\"a\",\"b\"]",
        &"--remove",
        &"llama.vocab_size",
        &"--rename",
        &"llama.context_length=llama.window",
    ]);
    let found = json(&[&"inspect", &"--json", &edited], 0);
    let entries = found["metadata"].as_array().unwrap();
    let entry = |key: &str| -> Option<(Json, Json)> {
        let found = entries.iter().find(|entry| entry["key"] == key)?;
        Some((found["type"].clone(), found["value"].clone()))
    };
    assert_eq!(entry("general.name"), Some(("str".into(), "new".into())));
    assert_eq!(
        entry("llama.rope.freq_base"),
        Some(("f32".into(), 5e5.into()))
    );
    assert_eq!(entry("my.key"), Some(("u8".into(), 7.into())));
    assert_eq!(
        entry("general.tags").unwrap().1,
        serde_json::json!(["a", "b"])
    );
    assert_eq!(entry("llama.vocab_size"), None);
    assert_eq!(entries[2]["key"], "llama.window");
    let difference = json(&[&"diff", &"--json", &model, &edited], 1);
    assert_eq!(difference["tensors"], serde_json::json!([]));
    assert_eq!(difference["keys"].as_array().unwrap().len(), 7);
    // In place only on request.
    fails(&[&"meta", &edited, &"--set", &"general.name=x"], 2);
    done(&[&"meta", &edited, &"--set", &"general.name=x", &"--force"]);
    assert_eq!(done(&[&"extract", &edited, &"--key", &"general.name"]), "x");
    for wrong in [
        "general.name",
        "my.other=1",
        "my.key=300",
        "my.key:u9=1",
        "=1",
    ] {
        fails(&[&"meta", &edited, &"--force", &"--set", &wrong], 2);
    }
    fails(
        &[&"meta", &edited, &"--force", &"--remove", &"general.nam"],
        2,
    );
    let untouched = std::fs::read(&edited).unwrap();
    done(&[
        &"meta",
        &edited,
        &"--remove",
        &"my.key",
        &"--force",
        &"--dry-run",
    ]);
    assert_eq!(std::fs::read(&edited).unwrap(), untouched);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn tensors_are_extracted() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("files/v3_model.gguf");
    let tensor = "blk.0.attn_q.weight";
    let raw = dir.path().join("q.bin");
    done(&[&"extract", &model, &"--tensor", &tensor, &"-o", &raw]);
    assert_eq!(std::fs::read(&raw).unwrap().len(), 68);
    let array = dir.path().join("q.npy");
    done(&[&"extract", &model, &"--tensor", &tensor, &"-o", &array]);
    let bytes = std::fs::read(&array).unwrap();
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"));
    assert_eq!((bytes.len() - 2 * 32 * 4) % 64, 0);
    assert!(String::from_utf8_lossy(&bytes).contains("'shape': (2,32,)"));
    fails(
        &[&"extract", &model, &"--tensor", &tensor, &"-o", &array],
        2,
    );
    fails(
        &[
            &"extract",
            &model,
            &"--tensor",
            &"nothing",
            &"-o",
            &raw,
            &"--force",
        ],
        3,
    );
    fails(&[&"extract", &model], 2);
}

#[test]
fn a_full_disk_is_the_environment() {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
        println!("skipped: no /dev/full here");
        return;
    };
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_grist"))
        .arg("inspect")
        .arg(fixture("files/v3_model.gguf"))
        .stdout(full)
        .stderr(std::process::Stdio::null())
        .status();
    assert_eq!(status.unwrap().code(), Some(4));
}
