//! Every hand-made file of the golden set, valid and malformed, against the specification's and
//! llama.cpp's verdicts on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gristmill_gguf::check::{self, Level, Severity};
use gristmill_gguf::{Array, File, Source, Value};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

/// The golden data, or the selection that is part of the repository.
fn root() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let golden = std::env::var_os("GRIST_GOLDEN")
        .map_or_else(|| workspace.join("../shared/golden"), PathBuf::from)
        .join("gguf");
    if golden.join("manifest.json").exists() {
        return golden;
    }
    println!("golden data not found: using the selection in fixtures/gguf");
    workspace.join("fixtures/gguf")
}

fn manifest(root: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(root.join("manifest.json")).unwrap();
    let mut manifest: Json = serde_json::from_str(&text).unwrap();
    serde_json::from_value(manifest["entries"].take()).unwrap()
}

const VERDICTS: [&str; 4] = [
    "gguf_init_metadata",
    "gguf_init_with_data",
    "model_loader",
    "gguf_split_merge",
];

/// Whether any verdict of llama.cpp on the file is not that it accepts it.
fn refused(entry: &Json) -> bool {
    VERDICTS
        .iter()
        .filter_map(|name| entry[name]["result"].as_str())
        .any(|result| result != "accepts")
}

/// The rule that a malformed file must be refused by, by the start of its name.
const RULES: &[(&str, &str)] = &[
    ("dims_5", "dims-count"),
    ("type_removed_", "tensor-type-removed"),
    ("type_unknown_", "tensor-type"),
    ("row_not_block_multiple", "row-block"),
    ("tensor_name_65_bytes", "tensor-name-length"),
    ("key_empty", "key-empty"),
    ("key_duplicate", "key-duplicate"),
    ("tensor_duplicate", "tensor-name-duplicate"),
    ("offset_misaligned", "offset-misaligned"),
    ("offset_overlap", "offset-overlap"),
    ("offset_same", "offset-overlap"),
    ("offset_beyond_file", "truncated-data"),
    ("offset_near_2_64", "truncated-data"),
    ("version_0", "bad-version"),
    ("version_1", "old-version"),
    ("version_4", "future-version"),
    ("version_99", "future-version"),
    ("version_65539", "future-version"),
    ("version_50331648", "endianness"),
    ("v1_layout", "old-version"),
    ("magic_", "bad-magic"),
    ("empty_file", "truncated"),
    ("truncated_in_padding", "truncated-padding"),
    ("truncated_after_infos", "truncated-padding"),
    ("truncated_at_data_start", "truncated-data"),
    ("truncated_data_", "truncated-data"),
    ("truncated_key_bytes", "string-length"),
    ("truncated_string_value", "string-length"),
    ("truncated_tensor_name", "string-length"),
    ("truncated_array_body", "array-length"),
    ("truncated_", "truncated"),
    ("tensor_count_2_", "count-range"),
    ("kv_count_2_", "count-range"),
    ("key_length_", "string-length"),
    ("string_length_", "string-length"),
    ("tensor_name_length_", "string-length"),
    ("array_length_", "array-length"),
    ("array_strings_too_many", "array-length"),
    ("value_type_", "value-type"),
    ("array_type_", "array-type"),
    ("alignment_0", "alignment-value"),
    ("alignment_3", "alignment-value"),
    ("alignment_2_31", "truncated-padding"),
    ("alignment_", "alignment-type"),
    ("architecture_missing", "arch-missing"),
    ("architecture_wrong_type", "key-type"),
    ("ne_product_", "dims-overflow"),
    ("ne_bytes_overflow", "size-overflow"),
    ("ne_int64_max", "size-overflow"),
    ("ne_negative", "dims-value"),
    ("n_dims_", "dims-count"),
    ("split_part_missing", "split-missing"),
    ("split_count_", "split-count"),
    ("split_no_key_missing", "split-key-missing"),
    ("split_no_", "split-no"),
    ("split_tensors_count_", "split-tensors-count"),
    ("split_tensor_repeated", "split-duplicate"),
    ("split_wrong_name", "split-name"),
];

#[test]
fn verdicts_agree_with_the_specification_and_with_llama_cpp() {
    let root = root();
    let entries = manifest(&root);
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failures = Vec::new();
    for entry in &entries {
        let (name, path) = match entry["file"].as_str() {
            Some(file) => (file.trim_start_matches("files/"), root.join(file)),
            None => {
                let name = entry["directory"].as_str().unwrap();
                let first = entry["files"][0].as_str().unwrap();
                (name, root.join(name).join(first))
            }
        };
        let spec = entry["spec"].as_str().unwrap();
        let opened = File::open(&path);
        let report = check::check(&path, Level::Structure).unwrap();
        let worst = report.worst();
        let codes: Vec<_> = report.findings.iter().map(|f| f.code).collect();
        // What opens and what does not is the same for both.
        if opened.is_err() && worst != Some(Severity::Error) {
            failures.push(format!(
                "{name}: {:?}, but check has no error",
                opened.as_ref().err()
            ));
        }
        let (class, good) = match (spec.split(':').next().unwrap(), refused(entry)) {
            ("invalid", true) => {
                let rule = RULES.iter().find(|(start, _)| name.starts_with(start));
                let found = report
                    .findings
                    .iter()
                    .find(|f| f.severity == Severity::Error)
                    .map(|f| f.code);
                // Counts that are off by one make other fields of what follows.
                let vague = name.contains("count_plus_1") || name.contains("kv_count_minus_1");
                let good = match rule {
                    Some((_, code)) => found == Some(*code),
                    None => vague && found.is_some(),
                };
                ("invalid and refused: an error of its own", good)
            }
            ("invalid", false) => (
                "invalid, llama.cpp accepts: at least a warning",
                opened.is_ok() && worst >= Some(Severity::Warning),
            ),
            ("valid" | "valid (padding is required between tensors only)", true) => (
                "valid, llama.cpp refuses: reads, with a warning that says so",
                opened.is_ok()
                    && worst == Some(Severity::Warning)
                    && report.findings.iter().any(|f| f.llama_cpp_refuses),
            ),
            ("valid", false) => (
                "valid and accepted: reads without warning",
                opened.is_ok() && worst <= Some(Severity::Note),
            ),
            (spec, _) if spec.starts_with("not stated") => (
                "not stated: reads with a warning",
                opened.is_ok() && worst == Some(Severity::Warning),
            ),
            (other, _) => panic!("unknown verdict {other}"),
        };
        *counts.entry(class).or_default() += 1;
        if !good {
            let messages: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
            failures.push(format!(
                "{name} ({spec}): {codes:?} {messages:?} open: {:?}",
                opened.err().map(|e| e.to_string())
            ));
        }
    }
    for (class, count) in &counts {
        println!("{count:4}  {class}");
    }
    println!("{:4}  cases, none skipped", entries.len());
    assert_eq!(counts.values().sum::<usize>(), entries.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A value as the manifest writes it.
fn json_of(value: &Value) -> Json {
    match value {
        Value::Array(array) => serde_json::json!({
            "type": array.element_type().id(),
            "items": items_of(array),
        }),
        Value::F32(v) => format!("{:#010x}", v.to_bits()).into(),
        Value::F64(v) => format!("{:#018x}", v.to_bits()).into(),
        Value::Bool(v) => (*v).into(),
        Value::String(v) => v.to_string().into(),
        Value::I8(v) => v.to_string().into(),
        Value::I16(v) => v.to_string().into(),
        Value::I32(v) => v.to_string().into(),
        Value::I64(v) => v.to_string().into(),
        other => other.as_u64().unwrap().to_string().into(),
    }
}

fn items_of(array: &Array) -> Vec<Json> {
    (0..array.len())
        .map(|i| json_of(&array.get(i).unwrap()))
        .collect()
}

#[test]
fn values_and_data_are_read_exactly() {
    let root = root();
    let (mut values, mut hashes, mut listings) = (0, 0, 0);
    for entry in manifest(&root) {
        let Some(name) = entry["file"].as_str() else {
            continue;
        };
        let path = root.join(name);
        if let Some(expected) = entry["values"].as_array() {
            let file = File::open(&path).unwrap();
            let found: Vec<Json> = file
                .metadata()
                .iter()
                .map(|(key, value)| {
                    serde_json::json!([key.to_string(), value.value_type().id(), json_of(value)])
                })
                .collect();
            assert_eq!(&found, expected, "{name}");
            values += found.len();
        }
        if let Some(expected) = entry["data_sha256"].as_object() {
            let file = File::open(&path).unwrap();
            assert_eq!(file.tensors().len(), expected.len(), "{name}");
            for (tensor, hash) in expected {
                let at = file.find(tensor).unwrap();
                let found: String = Sha256::digest(file.tensor_bytes(at))
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                assert_eq!(Some(found.as_str()), hash.as_str(), "{name}: {tensor}");
                hashes += 1;
            }
        }
        // What llama.cpp lists when it accepts a file that opens here too.
        let listing = &entry["gguf_init_metadata"];
        if let (Some(keys), Ok(file)) = (listing["kv"].as_array(), File::open(&path)) {
            let types: Vec<_> = keys.iter().map(|key| key[1].as_u64().unwrap()).collect();
            let found: Vec<_> = file
                .metadata()
                .iter()
                .map(|(_, value)| u64::from(value.value_type().id()))
                .collect();
            assert_eq!(found, types, "{name}");
            assert_eq!(
                Some(file.alignment()),
                listing["alignment"].as_u64(),
                "{name}"
            );
            for (at, expected) in listing["tensors"].as_array().unwrap().iter().enumerate() {
                let info = &file.tensors()[at];
                let mut shape = info.shape.clone();
                shape.resize(4, 1);
                assert_eq!(
                    u64::from(info.ty.id()),
                    expected[1].as_u64().unwrap(),
                    "{name}"
                );
                assert_eq!(serde_json::json!(shape), expected[2], "{name}");
                let start = file.tensor_place(at).1.start;
                let data = listing["data_offset"].as_u64().unwrap();
                assert_eq!(Some(start - data), expected[3].as_u64(), "{name}");
                assert_eq!(info.bytes(), expected[4].as_u64(), "{name}");
            }
            listings += 1;
        }
    }
    println!("{values} values, {hashes} tensors by sha256, {listings} listings");
    assert!(values > 10 && hashes > 0 && listings > 0);
}

/// A prefix of a valid file is never valid, and says so with an error, not a panic.
#[test]
fn no_prefix_of_a_file_opens() {
    let whole = std::fs::read(root().join("files/v3_model.gguf")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.gguf");
    std::fs::write(&path, &whole).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    // The final padding alone may be missing; the last tensor of this file ends without any.
    for length in (0..whole.len()).rev() {
        file.set_len(length as u64).unwrap();
        let error = File::open(&path).expect_err(&format!("{length} bytes"));
        assert!(!error.code().is_empty() && !error.to_string().is_empty());
    }
}
