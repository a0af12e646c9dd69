//! Damage at random: whatever comes of it is no panic.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use gristmill_gguf::Source as _;
use serde_json::{Value as Json, json};

use super::bad_input::{PART, split};
use super::pickles::{VECTOR, older_file};
use super::tiny::{Tiny, archive, convert};

/// Numbers that are the same on every run.
fn dice(state: &mut u64, below: usize) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    (*state >> 33) as usize % below
}

/// Converts and reads everything.
fn read_all(folder: &Path) {
    let Ok(conversion) = convert(folder) else {
        return;
    };
    for (tensor, info) in conversion.tensors().iter().enumerate() {
        let _ = conversion.rows(tensor, 0..info.rows());
    }
}

/// Cuts and flips in every file: whatever comes of it is no panic.
#[test]
fn damaged_files_never_panic() {
    let mut state = 11;
    let safetensors = tempfile::tempdir().unwrap();
    let tiny = Tiny::new();
    tiny.write(safetensors.path());
    let parts = tempfile::tempdir().unwrap();
    tiny.write(parts.path());
    split(&tiny, parts.path(), |_, part| part.into());
    let pickle = tempfile::tempdir().unwrap();
    tiny.write(pickle.path());
    fs::remove_file(pickle.path().join(PART)).unwrap();
    let file = archive(&[("archive/data.pkl", VECTOR), ("archive/data/0", &[0; 16])]);
    fs::write(pickle.path().join("pytorch_model.bin"), file).unwrap();
    let older = tempfile::tempdir().unwrap();
    tiny.write(older.path());
    fs::remove_file(older.path().join(PART)).unwrap();
    fs::write(older.path().join("pytorch_model.bin"), older_file()).unwrap();
    for (folder, name, head, rounds) in [
        (&older, "pytorch_model.bin", usize::MAX, 300),
        (&safetensors, "config.json", usize::MAX, 120),
        (&safetensors, "tokenizer.json", usize::MAX, 120),
        (&safetensors, PART, 2500, 120),
        (&parts, "model.safetensors.index.json", usize::MAX, 60),
        (&pickle, "pytorch_model.bin", usize::MAX, 300),
    ] {
        let path = folder.path().join(name);
        let whole = fs::read(&path).unwrap();
        let head = head.min(whole.len());
        for round in 0..rounds {
            let mut bytes = whole.clone();
            if round % 4 == 0 {
                bytes.truncate(dice(&mut state, head));
            } else {
                for _ in 0..=round % 3 {
                    let at = dice(&mut state, head);
                    bytes[at] = match round % 2 {
                        0 => bytes[at] ^ 1 << dice(&mut state, 8),
                        _ => b"0123456789-[]{}\",eE.x"[dice(&mut state, 21)],
                    };
                }
            }
            fs::write(&path, &bytes).unwrap();
            let outcome = catch_unwind(AssertUnwindSafe(|| read_all(folder.path())));
            assert!(outcome.is_ok(), "{name}, round {round}");
        }
        fs::write(&path, &whole).unwrap();
    }
}

/// Values of every kind in every place of the JSON files.
#[test]
fn odd_values_never_panic() {
    let odd = [
        json!(null),
        json!(0),
        json!(-1),
        json!(3),
        json!(4_294_967_295u64),
        json!(1e300),
        json!(0.5),
        json!(true),
        json!("x"),
        json!([]),
        json!([7]),
        json!({}),
    ];
    let mut state = 5;
    let folder = tempfile::tempdir().unwrap();
    Tiny::new().write(folder.path());
    for (name, rounds) in [("config.json", 300), ("tokenizer.json", 300)] {
        let path = folder.path().join(name);
        let whole = fs::read(&path).unwrap();
        let json: Json = serde_json::from_slice(&whole).unwrap();
        for round in 0..rounds {
            let mut bent = json.clone();
            let value = odd[dice(&mut state, odd.len())].clone();
            replace(&mut bent, &mut state, value);
            fs::write(&path, bent.to_string()).unwrap();
            let outcome = catch_unwind(AssertUnwindSafe(|| read_all(folder.path())));
            assert!(outcome.is_ok(), "{name}, round {round}: {bent}");
        }
        fs::write(&path, &whole).unwrap();
    }
}

/// Puts a value somewhere into a document; at every level it may stay.
fn replace(json: &mut Json, state: &mut u64, value: Json) {
    let inner = match json {
        Json::Array(items) if !items.is_empty() => {
            let at = dice(state, items.len());
            items.get_mut(at)
        }
        Json::Object(fields) if !fields.is_empty() => {
            let at = dice(state, fields.len());
            fields.values_mut().nth(at)
        }
        _ => None,
    };
    match inner {
        Some(inner) if dice(state, 4) > 0 => replace(inner, state, value),
        Some(inner) => *inner = value,
        None => *json = value,
    }
}
