//! Checkpoints as they are published: a folder (or a repository of the hub) with a configuration,
//! a tokenizer and weights.

mod files;
mod hub;
mod pickle;
mod safetensors;
mod stored;
mod torch;
mod zip;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Value as Json, json};

pub use files::CheckpointFiles;
pub use hub::Repository;
pub use stored::{Dtype, Stored};

use crate::Error;

/// A published model: its files and its weights, mapped.
#[derive(Debug)]
pub struct Checkpoint {
    files: CheckpointFiles,
    config: Json,
    tensors: Vec<Stored>,
    warnings: Vec<String>,
}

impl Checkpoint {
    /// Opens a folder: reads config.json and the headers of the weights, and checks that every
    /// tensor lies inside its file and that the index, if there is one, names exactly the tensors
    /// that are there.
    ///
    /// # Errors
    /// If a file is missing, truncated or malformed, or reaches outside the folder.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let files = CheckpointFiles::open(root)?;
        let config = read_config(&files)?;
        let mut checkpoint = Self {
            files,
            config,
            tensors: Vec::new(),
            warnings: Vec::new(),
        };
        checkpoint.read_weights()?;
        Ok(checkpoint)
    }

    /// The folder's files.
    pub fn files(&self) -> &CheckpointFiles {
        &self.files
    }

    /// config.json (or params.json, for Mistral's own format) as it stands.
    pub fn config(&self) -> &Json {
        &self.config
    }

    /// Whether this is a LoRA adapter rather than a model.
    pub fn is_adapter(&self) -> bool {
        self.config.get("peft_type").is_some()
            || (self.config.get("lora_alpha").is_some() && self.config.get("r").is_some())
    }

    /// The tensors: file by file (sorted by name), inside a file sorted by name.
    pub fn tensors(&self) -> &[Stored] {
        &self.tensors
    }

    /// What was odd about the files, and harmless.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn read_weights(&mut self) -> Result<(), Error> {
        let names = self.files.names()?;
        let named = |prefix: &str, suffix: &str| -> Vec<&String> {
            let matches = |name: &&String| name.starts_with(prefix) && name.ends_with(suffix);
            names.iter().filter(matches).collect()
        };
        let mut parts = named("model", ".safetensors");
        for (prefix, suffix) in [
            ("consolidated", ".safetensors"),
            ("pytorch_model", ".bin"),
            ("adapter_model", ".safetensors"),
            ("adapter_model", ".bin"),
        ] {
            if parts.is_empty() {
                parts = named(prefix, suffix);
            }
        }
        // An index speaks of the kind of files it is named after.
        let index = match parts.first() {
            Some(part) if part.ends_with(".bin") => Some("pytorch_model.bin.index.json"),
            Some(part) if part.starts_with("consolidated") => {
                Some("consolidated.safetensors.index.json")
            }
            Some(part) if part.starts_with("adapter") => None,
            Some(_) => Some("model.safetensors.index.json"),
            None => [
                "model.safetensors.index.json",
                "pytorch_model.bin.index.json",
            ]
            .into_iter()
            .find(|name| names.iter().any(|n| n == name)),
        };
        let index = index.filter(|name| names.iter().any(|n| n == name));
        let index = index.map(|name| self.read_index(name)).transpose()?;
        if let Some((index, weight_map)) = &index {
            let mut missing: Vec<&str> = weight_map
                .values()
                .filter(|file| !names.contains(file))
                .map(String::as_str)
                .collect();
            missing.sort_unstable();
            missing.dedup();
            if !missing.is_empty() {
                return Err(Error::File {
                    file: self.files.root().join(index),
                    reason: format!("names files that are missing: {}", missing.join(", ")),
                    help: Some("download the missing files".into()),
                });
            }
        }
        if parts.is_empty() {
            return Err(Error::NotACheckpoint {
                path: self.files.root().to_owned(),
                reason: "holds no weights (model*.safetensors, consolidated*.safetensors, pytorch_model*.bin)".into(),
                help: "download the weights into the folder".into(),
            });
        }
        if index.is_none() {
            self.refuse_gaps(&parts)?;
        }
        let mut seen: HashMap<String, String> = HashMap::new();
        for part in parts {
            let path = self.files.path(part)?.ok_or_else(|| {
                Error::file(
                    &self.files.root().join(part),
                    "is a link to a file that is missing",
                )
            })?;
            let tensors = if part.ends_with(".bin") {
                torch::open(&path)?
            } else {
                safetensors::open(&path)?
            };
            for tensor in tensors {
                if let Some(first) = seen.insert(tensor.name.clone(), part.clone()) {
                    return Err(Error::tensor(
                        tensor.name,
                        format!("is stored twice, in {first} and in {part}"),
                    ));
                }
                self.tensors.push(tensor);
            }
        }
        if let Some((index, weight_map)) = index {
            let absent: Vec<&String> = weight_map
                .keys()
                .filter(|name| !seen.contains_key(*name))
                .collect();
            if let Some(first) = absent.first() {
                return Err(Error::File {
                    file: self.files.root().join(index),
                    reason: format!(
                        "names {} tensors that no file holds, the first is `{first}` (promised in \
                         {})",
                        absent.len(),
                        weight_map[*first]
                    ),
                    help: Some("download that file again".into()),
                });
            }
            let extra = seen.keys().filter(|name| !weight_map.contains_key(*name));
            let extra = extra.count();
            if extra > 0 {
                self.warnings.push(format!(
                    "{index} does not name {extra} tensors that are stored"
                ));
            }
        }
        Ok(())
    }

    /// Parts that are numbered `00001-of-00003` say how many there are.
    fn refuse_gaps(&self, parts: &[&String]) -> Result<(), Error> {
        for part in parts {
            let Some(((before, number), (count, after))) = part
                .split_once("-of-")
                .and_then(|(head, tail)| Some((head.rsplit_once('-')?, tail.split_once('.')?)))
            else {
                continue;
            };
            let width = number.len();
            let all = 1..=count.parse::<u32>().unwrap_or(0).min(u32::from(u16::MAX));
            let mut named = all.map(|at| format!("{before}-{at:0width$}-of-{count}.{after}"));
            if let Some(missing) = named.find(|name| !parts.contains(&name)) {
                return Err(Error::File {
                    file: self.files.root().join(missing),
                    reason: format!("is missing: {part} is one of {count} parts"),
                    help: Some("download the missing files".into()),
                });
            }
        }
        Ok(())
    }

    /// The index `tensor → file`.
    fn read_index(&self, name: &str) -> Result<(String, BTreeMap<String, String>), Error> {
        let bad = |reason: String| Error::file(&self.files.root().join(name), reason);
        let json = self.files.json(name)?.unwrap_or_default();
        let Some(map) = json.get("weight_map").and_then(Json::as_object) else {
            return Err(bad("has no `weight_map`".into()));
        };
        let mut weight_map = BTreeMap::new();
        for (tensor, file) in map {
            let Some(file) = file.as_str() else {
                return Err(bad(format!("names no file for `{tensor}`")));
            };
            // The name must stay inside the folder even if nothing is read from it.
            self.files.path(file)?;
            weight_map.insert(tensor.clone(), file.to_owned());
        }
        Ok((name.to_owned(), weight_map))
    }
}

fn read_config(files: &CheckpointFiles) -> Result<Json, Error> {
    if let Some(mut config) = files.json("config.json")? {
        let Some(fields) = config.as_object_mut() else {
            let path = files.root().join("config.json");
            return Err(Error::file(&path, "is not a JSON object"));
        };
        // ModelOpt says in a file of its own what it did.
        if fields.get("quantization_config").is_none_or(Json::is_null)
            && let Some(own) = files.json("hf_quant_config.json")?
            && let Some(producer) = own.pointer("/producer/name").and_then(Json::as_str)
        {
            let method = json!({ "quant_method": producer.to_lowercase() });
            fields.insert("quantization_config".into(), method);
        }
        return Ok(config);
    }
    if let Some(params) = files.json("params.json")? {
        return Ok(params);
    }
    if let Some(adapter) = files.json("adapter_config.json")? {
        return Ok(adapter);
    }
    let (reason, help) = if files.contains("model_index.json") {
        (
            "is a diffusers pipeline",
            "give the folder of its text model",
        )
    } else {
        (
            "has no config.json",
            "give the folder that holds config.json and the weights, or a hub id",
        )
    };
    Err(Error::NotACheckpoint {
        path: files.root().to_owned(),
        reason: reason.into(),
        help: help.into(),
    })
}
