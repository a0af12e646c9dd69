//! A Llama of a few thousand weights, as a checkpoint that tests bend.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gristmill_convert::{Checkpoint, Conversion, Error, Options};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value as Json, json};

/// Sizes of the model.
pub const HIDDEN: usize = 32;
pub const LAYERS: usize = 2;
pub const VOCABULARY: usize = 260;
const FEED_FORWARD: usize = 48;

/// A checkpoint's contents.
pub struct Tiny {
    pub config: Json,
    pub tokenizer: Json,
    /// None is written where this is `null`.
    pub tokenizer_config: Json,
    /// Name, shape and values.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Tiny {
    pub fn new() -> Self {
        let mut tiny = Self {
            config: json!({
                "architectures": ["LlamaForCausalLM"], "model_type": "llama",
                "hidden_size": HIDDEN, "intermediate_size": FEED_FORWARD,
                "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2,
                "vocab_size": VOCABULARY, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
                "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": false
            }),
            tokenizer: tokenizer(),
            tokenizer_config: Json::Null,
            tensors: BTreeMap::new(),
        };
        tiny.put("model.embed_tokens.weight", &[VOCABULARY, HIDDEN]);
        tiny.put("model.norm.weight", &[HIDDEN]);
        tiny.put("lm_head.weight", &[VOCABULARY, HIDDEN]);
        for layer in 0..LAYERS {
            for (name, shape) in [
                ("input_layernorm", &[HIDDEN][..]),
                ("post_attention_layernorm", &[HIDDEN]),
                ("self_attn.q_proj", &[HIDDEN, HIDDEN]),
                ("self_attn.k_proj", &[HIDDEN / 2, HIDDEN]),
                ("self_attn.v_proj", &[HIDDEN / 2, HIDDEN]),
                ("self_attn.o_proj", &[HIDDEN, HIDDEN]),
                ("mlp.gate_proj", &[FEED_FORWARD, HIDDEN]),
                ("mlp.up_proj", &[FEED_FORWARD, HIDDEN]),
                ("mlp.down_proj", &[HIDDEN, FEED_FORWARD]),
            ] {
                tiny.put(&format!("model.layers.{layer}.{name}.weight"), shape);
            }
        }
        tiny
    }

    /// A tensor of numbers that follow from its name.
    pub fn put(&mut self, name: &str, shape: &[usize]) {
        let seed = name.bytes().fold(7u32, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        let values = (0..shape.iter().product::<usize>())
            .map(|at| {
                let hash = (at as u32 ^ seed).wrapping_mul(2_654_435_761) >> 16;
                hash as f32 / 65536.0 - 0.5
            })
            .collect();
        self.tensors.insert(name.into(), (shape.to_vec(), values));
    }

    pub fn write(&self, folder: &Path) {
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        fs::write(folder.join("tokenizer.json"), self.tokenizer.to_string()).unwrap();
        if !self.tokenizer_config.is_null() {
            let text = self.tokenizer_config.to_string();
            fs::write(folder.join("tokenizer_config.json"), text).unwrap();
        }
        let all: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        self.write_part(&folder.join("model.safetensors"), &all);
    }

    /// Some of the tensors as a file.
    pub fn write_part(&self, path: &Path, names: &[&str]) {
        let bytes: Vec<(&str, &[usize], Vec<u8>)> = names
            .iter()
            .map(|&name| {
                let (shape, values) = &self.tensors[name];
                let bytes = values.iter().flat_map(|value| value.to_le_bytes());
                (name, shape.as_slice(), bytes.collect())
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            (
                *name,
                TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap(),
            )
        });
        safetensors::serialize_to_file(views, None, path).unwrap();
    }
}

/// Byte-level merges over all bytes, split as GPT-2 does.
fn tokenizer() -> Json {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = 0x100..;
    let mut vocabulary: serde_json::Map<String, Json> = (0u32..256)
        .map(|byte| {
            let letter = if printable(byte) {
                byte
            } else {
                others.next().unwrap()
            };
            (char::from_u32(letter).unwrap().to_string(), byte.into())
        })
        .collect();
    for (token, id) in [("th", 256), ("the", 257), ("in", 258)] {
        vocabulary.insert(token.into(), id.into());
    }
    json!({
        "version": "1.0",
        "added_tokens": [{
            "id": 259, "content": "<|endoftext|>", "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false
        }],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": ["t h", "th e", "i n"]
        }
    })
}

/// Plans the conversion of a folder.
pub fn convert(folder: &Path) -> Result<Conversion, Error> {
    Conversion::new(&Checkpoint::open(folder)?, &Options::default())
}

/// A zip archive of stored entries, as PyTorch writes its files.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut directory = Vec::new();
    for (name, bytes) in entries {
        let at = file.len() as u32;
        let size = bytes.len() as u32;
        let name_length = name.len() as u16;
        file.extend(b"PK\x03\x04");
        // Version, flags, method, time, date, checksum.
        file.extend([0; 14]);
        file.extend(size.to_le_bytes());
        file.extend(size.to_le_bytes());
        file.extend(name_length.to_le_bytes());
        file.extend([0; 2]);
        file.extend(name.as_bytes());
        file.extend_from_slice(bytes);
        directory.extend(b"PK\x01\x02");
        directory.extend([0; 16]);
        directory.extend(size.to_le_bytes());
        directory.extend(size.to_le_bytes());
        directory.extend(name_length.to_le_bytes());
        // Lengths of extra field and comment, disk, attributes.
        directory.extend([0; 12]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let at = file.len() as u32;
    let size = directory.len() as u32;
    file.extend(directory);
    file.extend(b"PK\x05\x06");
    file.extend([0; 4]);
    file.extend((entries.len() as u16).to_le_bytes());
    file.extend((entries.len() as u16).to_le_bytes());
    file.extend(size.to_le_bytes());
    file.extend(at.to_le_bytes());
    file.extend([0; 2]);
    file
}
