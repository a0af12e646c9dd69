//! Every case of the golden conversions: metadata and tensors of each output type, against what
//! the reference converter writes.

#[path = "../../fixtures/golden.rs"]
mod golden;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gristmill_convert::{Checkpoint, Conversion, Options, Output};
use gristmill_gguf::{Array, Source, TensorType, Value};
use gristmill_quantize::types::{self, Effort};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

fn hex(bytes: impl AsRef<[u8]>) -> String {
    use std::fmt::Write;
    bytes.as_ref().iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap();
        out
    })
}

/// Type and value of a metadata entry, in the words of the expected file.
fn described(value: &Value) -> (String, Json) {
    let name = |ty: &str| {
        if ty == "str" {
            "string".to_owned()
        } else {
            ty.to_owned()
        }
    };
    let scalar = |value: &Value| -> Json {
        match value {
            Value::Bool(v) => (*v).into(),
            Value::String(v) => v.to_string().into(),
            Value::F32(v) if v.is_infinite() => v.to_string().into(),
            Value::F32(v) => f64::from(*v).into(),
            Value::F64(v) => (*v).into(),
            other => other
                .as_u64()
                .map_or_else(|| (other.as_f64().unwrap() as i64).into(), Json::from),
        }
    };
    let Value::Array(array) = value else {
        return (name(value.value_type().name()), scalar(value));
    };
    let ty = format!("array[{}]", name(array.element_type().name()));
    let items: Vec<Json> = (0..array.len())
        .map(|i| scalar(&array.get(i).unwrap()))
        .collect();
    if items.len() <= 64 {
        return (ty, items.into());
    }
    let (enc, sha) = match array {
        Array::F32(values) => {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            ("le", hex(Sha256::digest(bytes)))
        }
        _ => (
            "json",
            hex(Sha256::digest(Json::from(items.clone()).to_string())),
        ),
    };
    let summary = serde_json::json!({"len": items.len(), "sha256": sha, "enc": enc});
    (ty, summary)
}

/// Bytes of a tensor in the type it is to be written in.
fn encoded(conversion: &Conversion, tensor: usize) -> Vec<u8> {
    let info = &conversion.tensors()[tensor];
    let ty = conversion.types()[tensor];
    // In two parts, as a job would ask for them.
    let middle = info.rows() / 3;
    let mut bytes = conversion.rows(tensor, 0..middle).unwrap().into_owned();
    bytes.extend_from_slice(&conversion.rows(tensor, middle..info.rows()).unwrap());
    conversion.release(tensor, 0..info.rows());
    if ty == info.ty {
        return bytes;
    }
    let mut values = vec![0.0; info.elements() as usize];
    types::decode(info.ty, &bytes, &mut values).unwrap();
    let row = info.row_len();
    let mut out = vec![0; (ty.row_bytes(row).unwrap() * info.rows()) as usize];
    types::encode(ty, Effort::Reference, &values, row as usize, None, &mut out).unwrap();
    out
}

/// Whether two numbers are the same f32: the expected file prints them exactly, its reader rounds.
fn close(a: &Json, b: &Json) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b || a as f32 == b as f32 && a.fract() != 0.0,
        _ => false,
    }
}

/// Differences of a conversion from what is expected; no more than a few.
fn differences(conversion: &Conversion, expected: &Json, case: &Json) -> Vec<String> {
    let mut found = Vec::new();
    let may_differ: BTreeSet<&str> = case["may_differ"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    let kept = |key: &str| !may_differ.contains(key);
    let got: Vec<(String, String, Json)> = conversion
        .metadata()
        .iter()
        .map(|(key, value)| {
            let (ty, value) = described(value);
            (key.to_string(), ty, value)
        })
        .filter(|(key, ..)| kept(key))
        .collect();
    let want: Vec<(String, String, Json)> = expected["kv"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            (
                e[0].as_str().unwrap().into(),
                e[1].as_str().unwrap().into(),
                e[2].clone(),
            )
        })
        .filter(|(key, ..): &(String, String, Json)| kept(key))
        .collect();
    let same = |a: &Json, b: &Json| {
        a == b
            || close(a, b)
            || (a.is_array()
                && b.is_array()
                && a.as_array().unwrap().len() == b.as_array().unwrap().len()
                && a.as_array()
                    .unwrap()
                    .iter()
                    .zip(b.as_array().unwrap())
                    .all(|(a, b)| a == b || close(a, b)))
    };
    for (key, ty, value) in &want {
        match got.iter().find(|(k, ..)| k == key) {
            None => found.push(format!("{key} is missing ({ty} {value})")),
            Some((_, t, v)) if t != ty || !same(v, value) => {
                found.push(format!("{key} is {t} {v}, expected {ty} {value}"));
            }
            Some(_) => {}
        }
    }
    for (key, ty, value) in &got {
        if !want.iter().any(|(k, ..)| k == key) {
            found.push(format!("{key} is too much ({ty} {value})"));
        }
    }
    let order =
        |list: &[(String, String, Json)]| list.iter().map(|e| e.0.clone()).collect::<Vec<_>>();
    if found.is_empty() && order(&got) != order(&want) {
        found.push(format!(
            "order of keys: {:?} expected {:?}",
            order(&got),
            order(&want)
        ));
    }
    let tensors = expected["tensors"].as_array().unwrap();
    let infos = conversion.tensors();
    let names: Vec<String> = infos.iter().map(|t| t.name.to_string()).collect();
    let wanted: Vec<&str> = tensors
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    if names != wanted
        && (case["tensor_order_may_differ"] != true || {
            let a: BTreeSet<_> = names.iter().map(String::as_str).collect();
            let b: BTreeSet<_> = wanted.iter().copied().collect();
            a != b
        })
    {
        found.push(format!("tensors: {names:?} expected {wanted:?}"));
    }
    for tensor in tensors {
        let name = tensor["name"].as_str().unwrap();
        let Some(at) = names.iter().position(|n| n == name) else {
            continue;
        };
        let shape: Vec<u64> = tensor["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d.as_u64().unwrap())
            .collect();
        let ty: TensorType = tensor["type"].as_str().unwrap().parse().unwrap();
        if infos[at].shape != shape || conversion.types()[at] != ty {
            found.push(format!(
                "{name} is {} {:?}, expected {ty} {shape:?}",
                conversion.types()[at],
                infos[at].shape
            ));
        } else if hex(Sha256::digest(encoded(conversion, at)))
            != tensor["sha256_of_data"].as_str().unwrap()
        {
            found.push(format!("{name}: data differ ({ty} from {})", infos[at].ty));
        }
    }
    found.truncate(12);
    found
}

/// What is wrong with a case, in its output types; empty if nothing is.
fn check(case: &Path, expected: &Json) -> Vec<String> {
    let checkpoint = match Checkpoint::open(&case.join("checkpoint")) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return vec![error.to_string()],
    };
    let mut found = Vec::new();
    for (name, output) in [
        ("f32", Output::F32),
        ("f16", Output::F16),
        ("bf16", Output::BF16),
        ("q8_0", Output::Q8_0),
        ("auto", Output::Auto),
    ] {
        let Some(expected_type) = expected.get(name) else {
            continue;
        };
        let options = Options {
            output,
            pre: expected["pre"].as_str().map(ToOwned::to_owned),
        };
        let conversion = if checkpoint.is_adapter() {
            let base = Checkpoint::open(&case.join("base")).unwrap();
            Conversion::adapter(&checkpoint, &base, &options)
        } else {
            Conversion::new(&checkpoint, &options)
        };
        match conversion {
            Ok(conversion) => found.extend(
                differences(&conversion, expected_type, expected)
                    .into_iter()
                    .map(|difference| format!("{name}: {difference}")),
            ),
            Err(error) => {
                found.push(format!("{error}"));
                break;
            }
        }
    }
    found
}

#[test]
fn golden_conversions() {
    let Some(root) = golden::golden("convert") else {
        return;
    };
    let only = std::env::var("GRIST_CASE").ok();
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expected.json").is_file())
        .filter(|path| only.as_ref().is_none_or(|only| path.ends_with(only)))
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no cases under {}", root.display());
    let mut passed = 0;
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case.file_name().unwrap().to_str().unwrap();
        let expected = std::fs::read_to_string(case.join("expected.json")).unwrap();
        let expected = expected.replace("-Infinity", "\"-inf\"");
        let expected: Json = serde_json::from_str(&expected).unwrap();
        let found = check(case, &expected);
        let verdict = if found.is_empty() { "ok" } else { "FAILED" };
        println!("{name}: {verdict}");
        for difference in &found {
            println!("    {}", difference.chars().take(400).collect::<String>());
        }
        passed += usize::from(found.is_empty());
        if !found.is_empty() {
            wrong.push(name.to_owned());
        }
    }
    println!("{passed} of {} cases equal", cases.len());
    assert!(wrong.is_empty(), "not equal: {wrong:?}");
}
