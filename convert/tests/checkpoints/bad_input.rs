//! One case for each kind of bad input: a message that names the place, a remedy, no panic. Nothing
//! is written, since planning a conversion writes nothing.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use gristmill_convert::{Checkpoint, Conversion, Options, Output};
use gristmill_gguf::Source as _;
use serde_json::json;

use super::tiny::{HIDDEN, Tiny, VOCABULARY, archive, convert};

/// What is done to the contents, or to the files once they are written.
enum Bend {
    Contents(fn(&mut Tiny)),
    Files(fn(&Tiny, &Path)),
}
use Bend::{Contents, Files};

const PART: &str = "model.safetensors";
const TWO: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];

/// Writes the weights in two parts with an index.
fn split(tiny: &Tiny, folder: &Path, index: impl Fn(&str, &str) -> String) {
    fs::remove_file(folder.join(PART)).unwrap();
    let names: Vec<&str> = tiny.tensors.keys().map(String::as_str).collect();
    let (first, second) = names.split_at(names.len() / 2);
    let mut map = serde_json::Map::new();
    for (part, names) in TWO.iter().zip([first, second]) {
        tiny.write_part(&folder.join(part), names);
        for name in names {
            map.insert((*name).into(), index(name, part).into());
        }
    }
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
}

/// Overwrites a file with what is made of it.
fn edit(folder: &Path, name: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) {
    let path = folder.join(name);
    let bytes = fs::read(&path).unwrap();
    fs::write(path, change(bytes)).unwrap();
}

fn pickled(folder: &Path, pickle: &[u8]) {
    fs::remove_file(folder.join(PART)).unwrap();
    let file = archive(&[("archive/data.pkl", pickle), ("archive/data/0", &[0; 16])]);
    fs::write(folder.join("pytorch_model.bin"), file).unwrap();
}

/// What is wrong, how it comes about, and words of the message.
const CASES: &[(&str, Bend, &[&str])] = &[
    (
        "an index names a missing part",
        Files(|tiny, folder| {
            split(tiny, folder, |_, part| part.into());
            fs::remove_file(folder.join(TWO[1])).unwrap();
        }),
        &["index.json", "missing", TWO[1]],
    ),
    (
        "an index names a tensor that no part holds",
        Files(|tiny, folder| {
            split(tiny, folder, |_, part| part.into());
            edit(folder, "model.safetensors.index.json", |json| {
                let text = String::from_utf8(json).unwrap();
                text.replacen("lm_head", "lm_tail", 1).into_bytes()
            });
        }),
        &["lm_tail.weight", "no file holds"],
    ),
    (
        "an index leads out of the folder",
        Files(|tiny, folder| split(tiny, folder, |_, part| format!("../{part}"))),
        &["leaves the checkpoint's folder"],
    ),
    (
        "a tensor is in two parts",
        Files(|tiny, folder| {
            tiny.write_part(&folder.join("model-2.safetensors"), &["lm_head.weight"]);
        }),
        &["lm_head.weight", "stored twice", PART],
    ),
    #[cfg(unix)]
    (
        "a link leads out of the folder",
        Files(|_, folder| {
            fs::remove_file(folder.join(PART)).unwrap();
            std::os::unix::fs::symlink("/etc/hostname", folder.join(PART)).unwrap();
        }),
        &["symbolic link", "leaves the checkpoint's folder"],
    ),
    (
        "no weights",
        Files(|_, folder| fs::remove_file(folder.join(PART)).unwrap()),
        &["holds no weights"],
    ),
    (
        "truncated weights",
        Files(|_, folder| edit(folder, PART, |bytes| bytes[..bytes.len() - 100].to_vec())),
        &[PART, "truncated"],
    ),
    (
        "a git-lfs pointer in place of weights",
        Files(|_, folder| {
            edit(folder, PART, |_| {
                b"version https://git-lfs.github.com/spec/v1\n".to_vec()
            });
        }),
        &[PART, "git-lfs pointer"],
    ),
    (
        "a git-lfs pointer in place of the tokenizer",
        Files(|_, folder| {
            edit(folder, "tokenizer.json", |_| {
                b"version https://git-lfs.github.com/spec/v1\n".to_vec()
            });
        }),
        &["tokenizer.json", "git-lfs pointer"],
    ),
    (
        "no configuration",
        Files(|_, folder| fs::remove_file(folder.join("config.json")).unwrap()),
        &["config.json"],
    ),
    (
        "a configuration that is no JSON",
        Files(|_, folder| edit(folder, "config.json", |bytes| bytes[..40].to_vec())),
        &["config.json", "JSON"],
    ),
    (
        "no class",
        Contents(|tiny| tiny.config["architectures"] = json!(null)),
        &["architectures"],
    ),
    (
        "an unknown class",
        Contents(|tiny| tiny.config["architectures"] = json!(["LlamaForCausalLN"])),
        &["`LlamaForCausalLN` is not supported"],
    ),
    (
        "fewer layers than stated",
        Contents(|tiny| tiny.config["num_hidden_layers"] = json!(3)),
        &[
            "contradicts the weights",
            "3 layers",
            "layer 2 has no tensors",
        ],
    ),
    (
        "more layers than stated",
        Contents(|tiny| tiny.config["num_hidden_layers"] = json!(1)),
        &["contradicts the weights", "1 layers", "layer 1 is stored"],
    ),
    (
        "a layer that lacks a tensor",
        Contents(|tiny| drop(tiny.tensors.remove("model.layers.1.mlp.up_proj.weight"))),
        &["contradicts the weights", "blk.1.ffn_up.weight", "missing"],
    ),
    (
        "another width",
        Contents(|tiny| tiny.config["hidden_size"] = json!(64)),
        &["contradicts the weights", "[32"],
    ),
    (
        "another number of key heads",
        Contents(|tiny| tiny.config["num_key_value_heads"] = json!(4)),
        &["contradicts the weights", "attn_k"],
    ),
    (
        "heads that do not divide the rows",
        Contents(|tiny| tiny.config["num_attention_heads"] = json!(7)),
        &["heads"],
    ),
    (
        "no heads",
        Contents(|tiny| tiny.config["num_attention_heads"] = json!(0)),
        &["0"],
    ),
    (
        "a number of layers that is none",
        Contents(|tiny| tiny.config["num_hidden_layers"] = json!(-4)),
        &["num_hidden_layers", "-4"],
    ),
    (
        "a number of layers beyond all bounds",
        Contents(|tiny| tiny.config["num_hidden_layers"] = json!(4_000_000_000u64)),
        &["4000000000"],
    ),
    (
        "a missing field",
        Contents(|tiny| {
            drop(
                tiny.config
                    .as_object_mut()
                    .unwrap()
                    .remove("num_hidden_layers"),
            );
        }),
        &["num_hidden_layers", "missing"],
    ),
    (
        "a vocabulary that is stated larger than the embedding",
        Contents(|tiny| tiny.config["vocab_size"] = json!(600)),
        &["contradicts the weights", "`vocab_size` is 600", "260 rows"],
    ),
    (
        "more tokens than the embedding has rows",
        Contents(|tiny| {
            let added = tiny.tokenizer["added_tokens"].as_array_mut().unwrap();
            let mut more = added[0].clone();
            more["id"] = json!(VOCABULARY + 5);
            more["content"] = json!("<|more|>");
            added.push(more);
        }),
        &["<|more|>", "260"],
    ),
    (
        "no tokenizer",
        Files(|_, folder| fs::remove_file(folder.join("tokenizer.json")).unwrap()),
        &["no tokenizer file"],
    ),
    (
        "a tokenizer of no known kind",
        Contents(|tiny| tiny.tokenizer["model"]["type"] = json!("Runes")),
        &["tokenizer.json", "Runes"],
    ),
    (
        "duplicate tokens",
        Contents(|tiny| tiny.tokenizer["added_tokens"][0]["content"] = json!("the")),
        &["257", "259", "`the`"],
    ),
    (
        "an output that is tied and stored differently",
        Contents(|tiny| tiny.config["tie_word_embeddings"] = json!(true)),
        &["lm_head.weight", "differ", "row 0"],
    ),
    (
        "a tensor that nobody knows",
        Contents(|tiny| tiny.put("model.layers.0.self_attn.oracle.weight", &[4, 4])),
        &["oracle.weight", "no place"],
    ),
    (
        "leftovers of quantization",
        Contents(|tiny| tiny.put("model.layers.0.self_attn.q_proj.qweight", &[4, 4])),
        &["qweight"],
    ),
    (
        "a quantization that is not known",
        Contents(|tiny| tiny.config["quantization_config"] = json!({"quant_method": "hqq"})),
        &["`hqq`", "known are"],
    ),
    (
        "an empty tensor",
        Contents(|tiny| tiny.put("model.layers.0.mlp.up_proj.weight", &[0, HIDDEN])),
        &["ffn_up.weight", "empty"],
    ),
    (
        "integers in place of weights",
        Files(|tiny, folder| {
            let names: Vec<&str> = tiny.tensors.keys().map(String::as_str).collect();
            tiny.write_part(&folder.join(PART), &names);
            edit(folder, PART, |bytes| {
                // The type of the first tensor, of the same size.
                let at = bytes
                    .windows(5)
                    .position(|word| word == b"\"F32\"")
                    .unwrap();
                let mut bytes = bytes;
                bytes[at..at + 5].copy_from_slice(b"\"I32\"");
                bytes
            });
        }),
        &["I32", "integers"],
    ),
    (
        "a pickle that asks for code",
        Files(|_, folder| {
            let pickle = b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.";
            pickled(folder, pickle);
        }),
        &["posix.system", "never run"],
    ),
    (
        "a pickle that asks for code where a tensor should be",
        Files(|_, folder| {
            let pickle = b"\x80\x02}X\x01\x00\x00\x00wcposix\nsystem\nX\x04\x00\x00\x00true\x85Rs.";
            pickled(folder, pickle);
        }),
        &["posix.system", "never run"],
    ),
    (
        "a pickle that breaks off",
        Files(|_, folder| pickled(folder, b"\x80\x02}X\x10\x00\x00\x00w")),
        &["data.pkl"],
    ),
    (
        "a file that is no archive",
        Files(|_, folder| {
            fs::remove_file(folder.join(PART)).unwrap();
            fs::write(folder.join("pytorch_model.bin"), [0; 64]).unwrap();
        }),
        &["no file that PyTorch writes"],
    ),
    (
        "an adapter in place of a model",
        Files(|_, folder| {
            fs::remove_file(folder.join("config.json")).unwrap();
            let adapter = json!({"peft_type": "LORA", "lora_alpha": 8, "r": 2});
            fs::write(folder.join("adapter_config.json"), adapter.to_string()).unwrap();
        }),
        &["LoRA adapter"],
    ),
];

#[test]
fn each_kind_is_named_with_a_remedy() {
    let mut failures = Vec::new();
    for (kind, bend, words) in CASES {
        let folder = tempfile::tempdir().unwrap();
        let mut contents = Tiny::new();
        if let Contents(bend) = bend {
            bend(&mut contents);
        }
        contents.write(folder.path());
        if let Files(bend) = bend {
            bend(&contents, folder.path());
        }
        let result = catch_unwind(AssertUnwindSafe(|| convert(folder.path())));
        let Ok(result) = result else {
            failures.push(format!("{kind}: panics"));
            continue;
        };
        let Err(error) = result else {
            failures.push(format!("{kind}: converts"));
            continue;
        };
        let message = error.to_string();
        for word in *words {
            if !message.contains(word) {
                failures.push(format!("{kind}: `{word}` is not in: {message}"));
            }
        }
        if message.contains('\n') || error.help().is_none() {
            failures.push(format!(
                "{kind}: no line of help, or several lines: {message}"
            ));
        }
    }
    println!("{} kinds of bad input", CASES.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_is_odd_is_warned_of() {
    let warnings = |bend: fn(&mut Tiny)| {
        let folder = tempfile::tempdir().unwrap();
        let mut contents = Tiny::new();
        bend(&mut contents);
        contents.write(folder.path());
        convert(folder.path()).unwrap().warnings().join("\n")
    };
    assert_eq!(warnings(|_| {}), "");
    let padded = warnings(|tiny| {
        tiny.put("model.embed_tokens.weight", &[VOCABULARY + 4, HIDDEN]);
        tiny.put("lm_head.weight", &[VOCABULARY + 4, HIDDEN]);
    });
    assert!(padded.contains("4 places"), "{padded}");
    let unheeded = warnings(|tiny| tiny.config["attn_logit_softcapping"] = json!(30.0));
    assert!(unheeded.contains("attn_logit_softcapping"), "{unheeded}");
}

#[test]
fn overflow_of_f16_is_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let mut contents = Tiny::new();
    let name = "model.layers.1.mlp.down_proj.weight";
    let (_, values) = contents.tensors.get_mut(name).unwrap();
    values[3] = 70000.0;
    values[9] = -1e30;
    values[11] = 65519.0;
    contents.write(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let found = |output| {
        let options = Options {
            output,
            ..Options::default()
        };
        Conversion::new(&checkpoint, &options).unwrap().overflows()
    };
    assert_eq!(
        found(Output::F16),
        [("blk.1.ffn_down.weight".to_owned(), 2)]
    );
    assert_eq!(found(Output::BF16), []);
    assert_eq!(found(Output::F32), []);
}

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

/// A vector of four numbers, as PyTorch describes it.
const VECTOR: &[u8] = b"\x80\x02}X\x06\x00\x00\x00w.bias\
    ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n\
    X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89}tRs.";

/// The same in a file of before PyTorch 1.6.
fn legacy() -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
    let version_and_system = b"\x80\x02M\xe9\x03.\x80\x02}.";
    let keys = b"\x80\x02]X\x01\x00\x00\x000a.";
    let values = [1.0f32, -2.0, 0.5, 4.0].map(f32::to_le_bytes).concat();
    let storage = [&4u64.to_le_bytes()[..], &values].concat();
    [&magic[..], version_and_system, VECTOR, keys, &storage].concat()
}

#[test]
fn older_pickles_are_read() {
    let folder = tempfile::tempdir().unwrap();
    Tiny::new().write(folder.path());
    fs::remove_file(folder.path().join(PART)).unwrap();
    fs::write(folder.path().join("pytorch_model.bin"), legacy()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let [tensor] = checkpoint.tensors() else {
        panic!("{:?}", checkpoint.tensors())
    };
    assert_eq!(
        (tensor.name.as_str(), &tensor.shape[..]),
        ("w.bias", &[4][..])
    );
    let expected = [1.0f32, -2.0, 0.5, 4.0].map(f32::to_le_bytes).concat();
    assert_eq!(tensor.bytes(), expected);
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
    fs::write(older.path().join("pytorch_model.bin"), legacy()).unwrap();
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
