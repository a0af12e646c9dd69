//! One case for each kind of bad input: a message that names the place, a remedy, no panic. Nothing
//! is written, since planning a conversion writes nothing.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;

use gristmill_convert::{Checkpoint, Conversion, Options, Output};
use serde_json::json;

use super::tiny::{HIDDEN, Tiny, VOCABULARY, archive, convert};

/// What is done to the contents, or to the files once they are written.
enum Bend {
    Contents(fn(&mut Tiny)),
    Files(fn(&Tiny, &Path)),
}
use Bend::{Contents, Files};

pub const PART: &str = "model.safetensors";
const TWO: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];

/// Writes the weights in two parts with an index.
pub fn split(tiny: &Tiny, folder: &Path, index: impl Fn(&str, &str) -> String) {
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
        "an activation that no graph has",
        Contents(|tiny| tiny.config["hidden_act"] = json!("my_own")),
        &["hidden_act", "my_own", "silu"],
    ),
    (
        "an activation of another graph",
        Contents(|tiny| tiny.config["hidden_act"] = json!("relu2")),
        &["hidden_act", "relu2", "silu"],
    ),
    (
        "a rotary scaling that nobody knows",
        Contents(|tiny| tiny.config["rope_scaling"] = json!({"type": "my_own", "factor": 2.0})),
        &["rope_type", "my_own", "yarn"],
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
    #[cfg(unix)]
    (
        "a pipe in place of a file",
        Files(|_, folder| {
            fs::remove_file(folder.join("config.json")).unwrap();
            let made = Command::new("mkfifo")
                .arg(folder.join("config.json"))
                .status();
            assert!(made.unwrap().success());
        }),
        &["config.json", "no regular file"],
    ),
    (
        "a folder in place of a file",
        Files(|_, folder| fs::create_dir(folder.join("tokenizer_config.json")).unwrap()),
        &["tokenizer_config.json", "no regular file"],
    ),
    #[cfg(unix)]
    (
        "a link that leads in a circle",
        Files(|_, folder| {
            fs::remove_file(folder.join(PART)).unwrap();
            std::os::unix::fs::symlink(PART, folder.join(PART)).unwrap();
        }),
        &[PART, "leads nowhere"],
    ),
    (
        "a numbered part is missing, and no index says so",
        Files(|tiny, folder| {
            split(tiny, folder, |_, part| part.into());
            fs::remove_file(folder.join("model.safetensors.index.json")).unwrap();
            fs::remove_file(folder.join(TWO[0])).unwrap();
        }),
        &[TWO[0], "missing", "one of 00002 parts"],
    ),
    (
        "a norm of another length",
        Contents(|tiny| tiny.put("model.layers.0.input_layernorm.weight", &[HIDDEN * 2])),
        &["contradicts the weights", "blk.0.attn_norm.weight", "[64]"],
    ),
    (
        "more dimensions than GGUF has",
        Contents(|tiny| {
            tiny.put("model.layers.0.mlp.up_proj.weight", &[1, 1, 1, 48, HIDDEN]);
        }),
        &["ffn_up.weight", "5 dimensions"],
    ),
    (
        "no output, though none is shared",
        Contents(|tiny| drop(tiny.tensors.remove("lm_head.weight"))),
        &["tie_word_embeddings", "lm_head.weight"],
    ),
    (
        "a vocabulary beyond all bounds",
        Contents(|tiny| tiny.config["vocab_size"] = json!(4_000_000_000u64)),
        &["4000000000", "260 rows"],
    ),
    (
        "a head beyond all bounds",
        Contents(|tiny| {
            tiny.config["head_dim"] = json!(4_000_000_000u64);
            tiny.config["rope_scaling"] = json!({"rope_type": "llama3", "factor": 8.0});
        }),
        &["head_dim", "4000000000"],
    ),
    (
        "a number that is text",
        Contents(|tiny| tiny.config["rope_theta"] = json!("10000")),
        &["`rope_theta`", "not a number"],
    ),
    (
        "a merge of unknown tokens",
        Contents(|tiny| tiny.tokenizer["model"]["merges"] = json!(["t h", "q z"])),
        &["merges[1]", "`q z`"],
    ),
    (
        "two tokens under one id",
        Contents(|tiny| tiny.tokenizer["model"]["vocab"]["in"] = json!(257)),
        &["same id 257", "`the`", "`in`"],
    ),
    (
        "an added token without an id",
        Contents(|tiny| tiny.tokenizer["added_tokens"][0]["id"] = json!(-1)),
        &["added_tokens[0]"],
    ),
    (
        "a configuration of the tokenizer that is none",
        Files(|_, folder| fs::write(folder.join("tokenizer_config.json"), "[]").unwrap()),
        &["tokenizer_config.json", "not a JSON object"],
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
    let smaller = warnings(|tiny| tiny.config["vocab_size"] = json!(100));
    assert!(smaller.contains("260 rows"), "{smaller}");
    let plain = warnings(|tiny| {
        tiny.config["quantization_config"] = json!({"quant_method": "gptq", "bits": 4});
    });
    assert!(plain.contains("no tensor is stored so"), "{plain}");
    let template = warnings(|tiny| {
        let template = format!("{{{{ a }}}}\n{{{{ a{} }}}}", ".b".repeat(100_000));
        tiny.tokenizer_config = json!({ "chat_template": template });
    });
    assert!(template.contains("line 2"), "{template}");
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
