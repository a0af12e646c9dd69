//! Token ids of all golden checkpoints: from the metadata they convert to, and from the checkpoint.

mod common;

use std::fs;
use std::path::Path;

use gristmill_convert::CheckpointFiles;
use gristmill_convert::vocab::{self, CheckpointTokenizer, Request};
use gristmill_engine::Tokenizer;
use gristmill_gguf::Metadata;
use serde_json::Value as Json;

fn read(path: &Path) -> Json {
    let text = fs::read_to_string(path).unwrap();
    let text = text
        .replace("-Infinity", "null")
        .replace("Infinity", "null");
    serde_json::from_str(&text.replace("\"null\"", "null"))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The configuration, the text model's over the root.
fn config(checkpoint: &Path) -> Option<Json> {
    let mut config = ["config.json", "params.json"]
        .into_iter()
        .map(|name| checkpoint.join(name))
        .find(|path| path.exists())
        .map(|path| read(&path))?;
    if let Some(text) = config["text_config"].as_object().cloned() {
        for (key, value) in text {
            config[key] = value;
        }
    }
    Some(config)
}

fn metadata(case: &Path, files: &CheckpointFiles, config: &Json) -> Metadata {
    let expected = read(&case.join("expected.json"));
    let keys = expected["f32"]["kv"].as_array().unwrap();
    let architecture = keys.iter().find(|key| key[0] == "general.architecture");
    let architecture = architecture.unwrap()[2].as_str().unwrap();
    let vocab = vocab::metadata(&Request {
        files,
        config,
        architecture,
        class: config["architectures"][0].as_str().unwrap_or_default(),
        vocab_size: config["vocab_size"].as_u64(),
        embedding_rows: None,
        pre: None,
    })
    .unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    let mut metadata: Metadata = vocab.entries.into_iter().collect();
    metadata.set("general.architecture", architecture);
    metadata
}

fn ids(json: &Json) -> Vec<u32> {
    serde_json::from_value(json.clone()).unwrap()
}

#[test]
fn ids_equal_the_published_tokenizers() {
    let Some(root) = common::golden("convert") else {
        return;
    };
    let mut cases: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("tokenize.json").exists())
        .collect();
    cases.sort();
    let mut failures = Vec::new();
    let (mut run, mut compared, mut carried) = (0, 0, 0);
    for case in &cases {
        // An adapter has its base model's tokenizer.
        let checkpoint = ["checkpoint", "base"]
            .map(|name| case.join(name))
            .into_iter()
            .find(|path| config(path).is_some())
            .unwrap_or_else(|| panic!("{}: no configuration", case.display()));
        let config = config(&checkpoint).unwrap();
        if checkpoint.ends_with("base") {
            continue;
        }
        run += 1;
        let files = CheckpointFiles::open(&checkpoint).unwrap();
        let from_file = Tokenizer::from_metadata(&metadata(case, &files, &config)).unwrap();
        let mut own = CheckpointTokenizer::open(&files).unwrap();
        // Rules that GGUF cannot carry: there llama.cpp's ids are the right ones for a file.
        let deviations = read(&case.join("llama_cpp.json"));
        let deviations = deviations["tokenize_disagree"].as_array();
        for string in read(&case.join("tokenize.json")).as_array().unwrap() {
            let text = string["text"].as_str().unwrap();
            let deviating = deviations
                .into_iter()
                .flatten()
                .find(|known| known["text"] == text);
            carried += usize::from(deviating.is_some());
            for (key, special) in [("ids", true), ("ids_no_special", false)] {
                compared += 1;
                let published = ids(&string[key]);
                let expected = deviating.map_or(published.clone(), |known| ids(&known[key]));
                let found = from_file.encode(text, special, true);
                if found != expected {
                    failures.push(format!(
                        "{} {key} {text:?}\n    expected {expected:?}\n    found    {found:?}",
                        case.display()
                    ));
                }
                if let Some(own) = &mut own {
                    let found = own.encode(text, special, true).unwrap();
                    if found != published {
                        failures.push(format!(
                            "{} checkpoint {key} {text:?}\n    expected {published:?}\n    found    {found:?}",
                            case.display()
                        ));
                    }
                }
            }
        }
    }
    eprintln!(
        "{run} tokenizers, {compared} comparisons, {carried} texts by rules that GGUF cannot carry"
    );
    assert!(run > 0);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
