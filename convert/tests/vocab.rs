//! Tokenizer metadata against the reference converter's, over all golden checkpoints.

#[path = "../../fixtures/golden.rs"]
mod golden;

use std::fs;
use std::path::Path;

use gristmill_convert::CheckpointFiles;
use gristmill_convert::vocab::{self, Request};
use gristmill_gguf::schema::pretokenizer::by_name;
use gristmill_gguf::{Array, Value};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

fn read(path: &Path) -> Json {
    let text = fs::read_to_string(path).unwrap();
    let text = text
        .replace("-Infinity", "null")
        .replace("Infinity", "null")
        .replace("\"null\"", "null");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn digest(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// A value as `expected.json` prints it.
fn printed(value: &Value) -> (String, Json) {
    let scalar = |kind: &str, value: Json| (kind.to_owned(), value);
    match value {
        Value::U32(v) => scalar("u32", json!(v)),
        Value::I32(v) => scalar("i32", json!(v)),
        Value::Bool(v) => scalar("bool", json!(v)),
        Value::F32(v) => scalar("f32", json!(f64::from(*v))),
        Value::String(v) => scalar("string", json!(v.to_string())),
        Value::Array(array) => {
            let (kind, items): (&str, Vec<Json>) = match array {
                Array::String(v) => ("string", v.iter().map(|s| json!(s.to_string())).collect()),
                Array::I32(v) => ("i32", v.iter().map(|x| json!(x)).collect()),
                Array::F32(v) => ("f32", v.iter().map(|x| json!(f64::from(*x))).collect()),
                Array::U8(v) => ("u8", v.iter().map(|x| json!(x)).collect()),
                other => panic!("no tokenizer key holds {other:?}"),
            };
            let kind = format!("array[{kind}]");
            if items.len() <= 64 {
                return (kind, items.into());
            }
            let len = items.len();
            let (sha256, enc) = match array {
                Array::F32(v) => {
                    let bytes: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
                    (digest(bytes), "le")
                }
                _ => (digest(serde_json::to_string(&items).unwrap()), "json"),
            };
            (kind, json!({"len": len, "sha256": sha256, "enc": enc}))
        }
        other => panic!("no tokenizer key holds {other:?}"),
    }
}

/// The configuration, the text model's over the root.
fn config(checkpoint: &Path) -> Json {
    let name = ["config.json", "params.json"]
        .into_iter()
        .find(|name| checkpoint.join(name).exists())
        .unwrap();
    let mut config = read(&checkpoint.join(name));
    if let Some(text) = config["text_config"].as_object().cloned() {
        for (key, value) in text {
            config[key] = value;
        }
    }
    config
}

fn compare(case: &Path, pre: Option<&str>) -> Result<(), String> {
    let checkpoint = case.join("checkpoint");
    let expected = read(&case.join("expected.json"));
    let kv = expected["f32"]["kv"].as_array().unwrap();
    let value = |key: &str| {
        kv.iter()
            .find(|entry| entry[0] == key)
            .map(|entry| &entry[2])
    };
    let architecture = value("general.architecture").unwrap().as_str().unwrap();
    let config = config(&checkpoint);
    let files = CheckpointFiles::open(&checkpoint).map_err(|e| e.to_string())?;
    let found = vocab::metadata(&Request {
        files: &files,
        config: &config,
        architecture,
        class: config["architectures"][0].as_str().unwrap_or_default(),
        vocab_size: config["vocab_size"].as_u64(),
        embedding_rows: None,
        pre,
    })
    .map_err(|error| error.to_string())?;

    let expected: Vec<_> = kv
        .iter()
        .map(|entry| (entry[0].as_str().unwrap(), &entry[1], &entry[2]))
        .filter(|(key, ..)| key.starts_with("tokenizer."))
        // Written with the hyper-parameters, before the tokenizer.
        .filter(|(key, ..)| !(architecture == "phi2" && *key == "tokenizer.ggml.add_bos_token"))
        .collect();
    let found: Vec<_> = found
        .entries
        .iter()
        .filter(|(key, _)| key.starts_with("tokenizer."))
        .filter(|(key, _)| !(architecture == "phi2" && *key == "tokenizer.ggml.add_bos_token"))
        .collect();
    let keys = |list: Vec<&str>| list.join(" ").replace("tokenizer.ggml.", "");
    let expected_keys = keys(expected.iter().map(|entry| entry.0).collect());
    let found_keys = keys(found.iter().map(|entry| entry.0.as_str()).collect());
    if expected_keys != found_keys {
        return Err(format!(
            "keys\n    expected {expected_keys}\n    found    {found_keys}"
        ));
    }
    for ((key, kind, value), (_, found)) in expected.iter().zip(&found) {
        let (found_kind, found) = printed(found);
        if *key == "tokenizer.ggml.pre" {
            let rule = |name: &Json| {
                let name = name.as_str().unwrap();
                by_name(name).map(|rule| (rule.splits, rule.ignore_merges))
            };
            if **value != found && (rule(value).is_none() || rule(value) != rule(&found)) {
                return Err(format!("{key}: expected {value}, found {found}"));
            }
        } else if **kind != found_kind || **value != found {
            return Err(format!(
                "{key}: expected {kind} {value}, found {found_kind} {found}"
            ));
        }
    }
    Ok(())
}

#[test]
fn metadata_equals_the_reference() {
    let Some(root) = golden::golden("convert") else {
        return;
    };
    let mut cases: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expected.json").exists())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    let mut failures = Vec::new();
    let mut run = 0;
    for case in &cases {
        let name = case.file_name().unwrap().to_str().unwrap();
        let expected = read(&case.join("expected.json"));
        let has_vocabulary = expected["f32"]["kv"]
            .as_array()
            .unwrap()
            .iter()
            .any(|entry| entry[0] == "tokenizer.ggml.model");
        if !has_vocabulary {
            continue;
        }
        run += 1;
        let result = compare(case, None).and_then(|()| compare(case, expected["pre"].as_str()));
        if let Err(error) = result {
            failures.push(format!("{name}: {error}"));
        }
    }
    println!("{run} tokenizers compared");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Older checkpoints hold `vocab.json` and `merges.txt` instead of a `tokenizer.json`: the same
/// tokens come of them.
#[test]
fn files_of_older_checkpoints_give_the_same_tokens() {
    let Some(root) = golden::golden("convert") else {
        return;
    };
    for case in ["gpt2", "qwen2"] {
        let checkpoint = root.join(case).join("checkpoint");
        let older = tempfile::tempdir().unwrap();
        for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
            fs::copy(checkpoint.join(name), older.path().join(name)).unwrap();
        }
        let config = config(&checkpoint);
        let entries = |folder: &Path| {
            let files = CheckpointFiles::open(folder).unwrap();
            let request = Request {
                files: &files,
                config: &config,
                architecture: case,
                class: "",
                vocab_size: config["vocab_size"].as_u64(),
                embedding_rows: None,
                pre: None,
            };
            vocab::metadata(&request).unwrap().entries
        };
        let (whole, rebuilt) = (entries(&checkpoint), entries(older.path()));
        for key in ["model", "pre", "tokens", "token_type", "merges"] {
            let key = format!("tokenizer.ggml.{key}");
            let of = |list: &[(String, Value)]| {
                let found = list.iter().find(|(known, _)| *known == key);
                printed(&found.unwrap_or_else(|| panic!("{case}: no {key}")).1)
            };
            assert_eq!(of(&whole), of(&rebuilt), "{case} {key}");
        }
    }
}

/// RWKV's file: ids by its lines, the spelling of Python, the roles that its models have.
#[test]
fn the_world_vocabulary_keeps_its_literals() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [r"1 '\x00' 1", r"2 '\n\n' 2", "3 ' 中' 4", r"4 b'\xe4' 1"];
    let file = folder.path().join("rwkv_vocab_v20230424.txt");
    fs::write(&file, lines.join("\n")).unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    let files = CheckpointFiles::open(folder.path()).unwrap();
    let config = json!({"bos_token_id": 1, "eos_token_id": 2, "vocab_size": 7});
    let request = Request {
        files: &files,
        config: &config,
        architecture: "rwkv6",
        class: "Rwkv6ForCausalLM",
        vocab_size: Some(7),
        embedding_rows: None,
        pre: None,
    };
    let found = vocab::metadata(&request).unwrap();
    let value = |key: &str| {
        let key = format!("tokenizer.ggml.{key}");
        let entry = found.entries.iter().find(|(known, _)| *known == key);
        printed(&entry.unwrap_or_else(|| panic!("no {key}")).1).1
    };
    assert_eq!(value("model"), "rwkv");
    let tokens = [
        "<s>",
        r"\x00",
        r"\n\n",
        r" \xe4\xb8\xad",
        r"\xe4",
        "[PAD5]",
        "[PAD6]",
    ];
    assert_eq!(value("tokens"), json!(tokens));
    assert_eq!(value("token_type"), json!([3, 1, 1, 1, 1, 5, 5]));
    let roles = ["bos_token_id", "eos_token_id", "eot_token_id"].map(value);
    assert_eq!(json!(roles), json!([0, 0, 261]));
    assert!(
        found
            .entries
            .iter()
            .any(|(key, _)| key == "tokenizer.chat_template")
    );

    fs::write(&file, "1 'a' 2").unwrap();
    let error = vocab::metadata(&request).unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
}
