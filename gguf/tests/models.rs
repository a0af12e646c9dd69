//! The rules about models hold for every model that the reference converter writes.

#[path = "../../fixtures/golden.rs"]
mod golden;

use std::path::Path;

use gristmill_gguf::check::{self, Level, Severity};
use gristmill_gguf::{
    Array, File, Layout, Metadata, Plan, Source, TensorInfo, Value, WriteOptions, Writer,
};
use serde_json::Value as Json;

/// Elements of an array that the listing gives in full, or as many invented ones.
fn elements(value: &Json) -> Vec<Json> {
    match value["len"].as_u64() {
        None => value.as_array().unwrap().clone(),
        // Texts that are all different, and pairs as merges have them.
        Some(len) => (0..len).map(|i| format!("t{i} u{i}").into()).collect(),
    }
}

fn value_of(ty: &str, value: &Json) -> Value {
    let numbers = || elements(value).into_iter();
    match ty {
        "string" => value.as_str().unwrap().into(),
        "u32" => Value::U32(value.as_u64().unwrap() as u32),
        "i32" => Value::I32(value.as_i64().unwrap() as i32),
        "f32" => Value::F32(value.as_f64().unwrap() as f32),
        "bool" => Value::Bool(value.as_bool().unwrap()),
        "array[string]" => Value::Array(Array::String(
            numbers().map(|v| v.as_str().unwrap().into()).collect(),
        )),
        "array[i32]" => Value::Array(Array::I32(
            numbers().map(|v| v.as_i64().unwrap_or(1) as i32).collect(),
        )),
        "array[u8]" => Value::Array(Array::U8(numbers().map(|_| 0).collect())),
        "array[f32]" => Value::Array(Array::F32(
            numbers()
                .map(|v| v.as_f64().unwrap_or(0.0) as f32)
                .collect(),
        )),
        "array[bool]" => Value::Array(Array::Bool(
            numbers().map(|v| v.as_bool().unwrap()).collect(),
        )),
        other => panic!("type {other}"),
    }
}

/// The model that a listing describes, with zeros for data.
fn describe(listing: &Json) -> (Metadata, Vec<TensorInfo>) {
    let entries = listing["kv"].as_array().unwrap().iter();
    let metadata = entries
        .map(|entry| {
            let ty = entry[1].as_str().unwrap();
            (entry[0].as_str().unwrap(), value_of(ty, &entry[2]))
        })
        .collect();
    let tensors = listing["tensors"].as_array().unwrap().iter();
    let tensors = tensors.map(|tensor| TensorInfo {
        name: tensor["name"].as_str().unwrap().into(),
        shape: serde_json::from_value(tensor["shape"].clone()).unwrap(),
        ty: tensor["type"].as_str().unwrap().parse().unwrap(),
    });
    (metadata, tensors.collect())
}

fn write(path: &Path, metadata: &Metadata, tensors: &[TensorInfo]) {
    let plan = Plan::new(metadata, tensors, &Layout::default()).unwrap();
    let options = WriteOptions {
        replace: true,
        ..WriteOptions::default()
    };
    let writer = Writer::create(path, plan, &options).unwrap();
    for (tensor, info) in tensors.iter().enumerate() {
        let zeros = vec![0; info.bytes().unwrap() as usize];
        writer.write_rows(tensor, 0, &zeros).unwrap();
        writer.complete(tensor, 0).unwrap();
    }
    writer.finish().unwrap();
}

fn findings(path: &Path) -> Vec<String> {
    let report = check::check(path, Level::Data).unwrap();
    let bad = report
        .findings
        .iter()
        .filter(|finding| finding.severity > Severity::Note);
    bad.map(ToString::to_string).collect()
}

#[test]
fn models_of_the_reference_converter_have_no_findings() {
    let Some(root) = golden::golden("convert") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let mut failures = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let case = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(case.join("expected.json")) else {
            continue;
        };
        // Python writes infinities as words; as f32 this number is one.
        let text = text.replace("Infinity", "1e39");
        let expected: Json = serde_json::from_str(&text).unwrap();
        for out in ["f32", "q8_0"] {
            let (metadata, tensors) = describe(&expected[out]);
            write(&path, &metadata, &tensors);
            let found = findings(&path);
            if !found.is_empty() {
                failures.push(format!("{} {out}: {found:#?}", case.display()));
            }
            count += 1;
        }
    }
    println!("{count} models");
    assert!(count > 100);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A complete little llama, as metadata and tensors.
fn little_llama() -> (Metadata, Vec<TensorInfo>) {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    for (key, value) in [
        ("context_length", 64u32),
        ("embedding_length", 32),
        ("block_count", 2),
        ("feed_forward_length", 48),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ] {
        metadata.set(format!("llama.{key}"), value);
    }
    metadata.set("llama.attention.layer_norm_rms_epsilon", 1e-5f32);
    metadata.set("tokenizer.ggml.model", "llama");
    let tokens: Vec<bstr::BString> = (0..10).map(|i| format!("t{i}").into()).collect();
    metadata.set("tokenizer.ggml.tokens", tokens);
    metadata.set("tokenizer.ggml.scores", vec![0f32; 10]);
    metadata.set("tokenizer.ggml.bos_token_id", 1u32);
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[u64]| {
        tensors.push(TensorInfo {
            name: name.into(),
            shape: shape.to_vec(),
            ty: gristmill_gguf::TensorType::F32,
        });
    };
    add("token_embd.weight".into(), &[32, 10]);
    for layer in 0..2 {
        for (name, shape) in [
            ("attn_norm", &[32][..]),
            ("attn_q", &[32, 32]),
            ("attn_k", &[32, 16]),
            ("attn_v", &[32, 16]),
            ("attn_output", &[32, 32]),
            ("ffn_norm", &[32]),
            ("ffn_gate", &[32, 48]),
            ("ffn_up", &[32, 48]),
            ("ffn_down", &[48, 32]),
        ] {
            add(format!("blk.{layer}.{name}.weight"), shape);
        }
    }
    add("output_norm.weight".into(), &[32]);
    (metadata, tensors)
}

/// Each change to a whole model is found by the rule that it breaks.
#[test]
fn every_rule_finds_what_it_is_for() {
    type Change = fn(&mut Metadata, &mut Vec<TensorInfo>);
    let changes: &[(Option<&str>, Change)] = &[
        (None, |_, _| ()),
        (Some("key-missing"), |m, _| {
            m.remove("llama.embedding_length");
        }),
        (Some("tensor-missing"), |_, t| {
            t.remove(3);
        }),
        (Some("tensor-shape"), |_, t| t[1].shape = vec![31]),
        (Some("tensor-shape"), |m, _| {
            m.set("tokenizer.ggml.tokens", vec![bstr::BString::from("a")]);
            m.remove("tokenizer.ggml.scores");
        }),
        (Some("tensor-extra"), |_, t| {
            let mut extra = t[1].clone();
            extra.name = "blk.1.attn_wonder.weight".into();
            t.push(extra);
        }),
        (Some("tensor-extra"), |_, t| {
            let mut extra = t[1].clone();
            extra.name = "blk.2.attn_norm.weight".into();
            t.push(extra);
        }),
        (Some("hparam-range"), |m, _| {
            m.set("llama.block_count", 0u32);
        }),
        (Some("hparam-range"), |m, _| {
            m.set("llama.attention.head_count_kv", 3u32);
        }),
        (Some("hparam-value"), |m, _| {
            m.set("llama.rope.scaling.type", "spiral");
        }),
        (Some("key-array-length"), |m, _| {
            m.set("llama.feed_forward_length", vec![48i32; 3]);
        }),
        (Some("key-type"), |m, _| {
            m.set("llama.context_length", "long");
        }),
        (Some("vocab-length"), |m, _| {
            m.set("tokenizer.ggml.scores", vec![0f32; 9]);
        }),
        (Some("vocab-missing"), |m, _| {
            m.remove("tokenizer.ggml.tokens");
        }),
        (Some("vocab-merges"), |m, _| {
            m.set("tokenizer.ggml.model", "gpt2");
        }),
        (Some("vocab-id"), |m, _| {
            m.set("tokenizer.ggml.eos_token_id", 10u32);
        }),
        (Some("vocab-duplicate"), |m, _| {
            m.set("tokenizer.ggml.tokens", vec![bstr::BString::from("a"); 10]);
        }),
        (Some("arch-unknown"), |m, _| {
            m.set("general.architecture", "nonesuch");
        }),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    for (expected, change) in changes {
        let (mut metadata, mut tensors) = little_llama();
        change(&mut metadata, &mut tensors);
        write(&path, &metadata, &tensors);
        let found = findings(&path);
        match expected {
            None => assert_eq!(found, [""; 0]),
            Some(code) => assert!(
                found.iter().any(|text| text.contains(&format!("[{code}]"))),
                "{code}: {found:?}"
            ),
        }
    }
}

#[test]
fn numbers_that_are_not_finite_are_placed() {
    let (metadata, tensors) = little_llama();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    write(&path, &metadata, &tensors);
    let file = File::open(&path).unwrap();
    let tensor = file.find("blk.0.attn_q.weight").unwrap();
    let start = file.tensor_place(tensor).1.start as usize;
    assert_eq!(file.tensors()[tensor].row_len(), 32);
    drop(file);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = start + (3 * 32 + 5) * 4;
    bytes[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let report = check::check(&path, Level::Data).unwrap();
    let finding = report.findings.last().unwrap();
    assert_eq!(finding.code, "data-not-finite");
    assert_eq!(finding.offset, Some(at as u64));
    assert!(
        finding.message.contains("row 3 at value 5"),
        "{}",
        finding.message
    );
}
