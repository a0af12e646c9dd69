//! Token ids against llama.cpp's, over all golden vocabularies.

#[path = "../../fixtures/golden.rs"]
mod golden;

use std::fmt::Debug;
use std::fs;
use std::io::Read;
use std::path::Path;

use gristmill_engine::Tokenizer;
use gristmill_gguf::{File, Metadata, Source, Value};
use serde_json::Value as Json;

/// The metadata of a vocabulary; `qwen35` is kept as `qwen2` with another pre-tokenizer.
fn metadata(folder: &Path, name: &str) -> Metadata {
    let stored = if name == "qwen35" { "qwen2" } else { name };
    let packed = fs::read(folder.join(format!("{stored}.gguf.gz"))).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_end(&mut bytes)
        .unwrap();
    let temporary = tempfile::NamedTempFile::new().unwrap();
    fs::write(temporary.path(), bytes).unwrap();
    let mut metadata = File::open(temporary.path()).unwrap().metadata().clone();
    if name == "qwen35" {
        metadata.set("tokenizer.ggml.pre", Value::from("qwen35"));
    }
    metadata
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            Some(name.strip_suffix(".more.json")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

fn ids(json: &Json) -> Vec<u32> {
    serde_json::from_value(json.clone()).unwrap()
}

fn bytes(case: &Json, name: &str, hex_name: &str) -> Option<Vec<u8>> {
    match (&case[name], &case[hex_name]) {
        (Json::String(text), _) => Some(text.clone().into_bytes()),
        (_, Json::String(hex)) => Some(
            (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
                .collect(),
        ),
        _ => None,
    }
}

/// Compares, and keeps what differs.
#[derive(Default)]
struct Checks {
    cases: usize,
    failures: Vec<String>,
}

impl Checks {
    fn check(&mut self, what: &str, text: &[u8], expected: impl Debug, found: impl Debug) {
        self.cases += 1;
        let (expected, found) = (format!("{expected:?}"), format!("{found:?}"));
        if expected != found {
            let text = String::from_utf8_lossy(text);
            self.failures.push(format!(
                "{what} {text:?}\n    expected {expected}\n    found    {found}"
            ));
        }
    }

    fn pairs(&mut self, folder: &Path, name: &str, tokenizer: &Tokenizer) {
        let Ok(inputs) = fs::read(folder.join(format!("{name}.inp"))) else {
            return;
        };
        let outputs = fs::read_to_string(folder.join(format!("{name}.out"))).unwrap();
        let separator = b"\n__ggml_vocab_test__\n";
        let mut rest = inputs.as_slice();
        for line in outputs.lines() {
            let end = rest
                .windows(separator.len())
                .position(|part| part == separator);
            let text = &rest[..end.unwrap_or(rest.len())];
            rest = end.map_or(&[][..], |end| &rest[end + separator.len()..]);
            let expected: Vec<u32> = line
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect();
            let found = tokenizer.encode(text, false, false);
            self.check(&format!("{name} pair"), text, expected, found);
        }
        assert!(rest.is_empty(), "{name}: texts without ids");
    }

    fn more(&mut self, folder: &Path, name: &str, tokenizer: &Tokenizer) {
        let more = fs::read(folder.join(format!("{name}.more.json"))).unwrap();
        let more: Json = serde_json::from_slice(&more).unwrap();
        for case in more["cases"].as_array().unwrap() {
            let text = bytes(case, "text", "hex").unwrap();
            let expected = ids(&case["ids"]);
            let found = tokenizer.encode(&text, true, false);
            self.check(&format!("{name} ids"), &text, &expected, found);
            let special = match &case["ids_parse_special"] {
                Json::Null => expected,
                json => ids(json),
            };
            let found = tokenizer.encode(&text, true, true);
            self.check(&format!("{name} special"), &text, special, found);
            let back = bytes(case, "detokenized", "detokenized_hex");
            let back = back.unwrap_or_else(|| text.clone());
            let found = tokenizer.decode(&tokenizer.encode(&text, false, false));
            self.check(
                &format!("{name} decode"),
                &text,
                bstr::BStr::new(&back),
                bstr::BStr::new(&found),
            );
        }
    }
}

#[test]
fn ids_equal_llama_cpp() {
    let Some(folder) = golden::golden("vocab") else {
        return;
    };
    let names = names(&folder);
    assert!(!names.is_empty());
    let mut checks = Checks::default();
    for name in &names {
        let tokenizer = Tokenizer::from_metadata(&metadata(&folder, name)).unwrap();
        checks.pairs(&folder, name, &tokenizer);
        checks.more(&folder, name, &tokenizer);
    }
    eprintln!("{} vocabularies, {} comparisons", names.len(), checks.cases);
    assert!(
        checks.failures.is_empty(),
        "{} differ\n{}",
        checks.failures.len(),
        checks.failures.join("\n")
    );
}
