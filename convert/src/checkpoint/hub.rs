//! Checkpoints from the Hugging Face hub, through hf-hub's cache: only the files that a conversion
//! reads are downloaded.

use std::path::PathBuf;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

use crate::Error;

/// A repository of the hub, at a revision.
#[derive(Debug, Clone)]
pub struct Repository {
    id: String,
    revision: String,
}

/// The files of weights, the kinds that are preferred first: prefix and suffix.
const WEIGHTS: [(&str, &str); 5] = [
    ("model", ".safetensors"),
    ("consolidated", ".safetensors"),
    ("pytorch_model", ".bin"),
    ("adapter_model", ".safetensors"),
    ("adapter_model", ".bin"),
];

impl Repository {
    /// The repository `organisation/name`; `None` if the text is no such id.
    pub fn parse(id: &str, revision: Option<&str>) -> Option<Self> {
        let (organization, name) = id.split_once('/')?;
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        (plain(organization) && plain(name)).then(|| Self {
            id: id.to_owned(),
            revision: revision.unwrap_or("main").to_owned(),
        })
    }

    /// Downloads what is not in the cache yet and returns the folder of the snapshot. With
    /// `HF_HUB_OFFLINE` set only the cache is looked at. `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN`
    /// (else the token that `hf auth login` stored) are heeded. `note` is told each file's name
    /// before it is fetched.
    ///
    /// # Errors
    /// If the hub does not answer or refuses, or the cache lacks the repository when offline.
    pub fn download(&self, note: &dyn Fn(&str)) -> Result<PathBuf, Error> {
        let repo = Repo::with_revision(self.id.clone(), RepoType::Model, self.revision.clone());
        let cache = Cache::from_env();
        if offline() {
            let files = ["config.json", "params.json", "adapter_config.json"];
            let cached = cache.repo(repo.clone());
            let found = files.iter().find_map(|file| cached.get(file));
            return found
                .and_then(|file| file.parent().map(ToOwned::to_owned))
                .ok_or_else(|| {
                    self.error(
                        "is not in the cache, and HF_HUB_OFFLINE is set",
                        Some("unset HF_HUB_OFFLINE, or give a folder"),
                    )
                });
        }
        let token = std::env::var("HF_TOKEN")
            .ok()
            .filter(|token| !token.is_empty());
        let mut builder = ApiBuilder::from_env().with_progress(false).with_retries(3);
        if token.is_some() {
            builder = builder.with_token(token);
        }
        let api: Api = builder.build().map_err(|error| self.failed(&error))?;
        let info = api
            .repo(repo.clone())
            .info()
            .map_err(|error| self.failed(&error))?;
        let commit = info.sha;
        if commit.is_empty() || !commit.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(self.error(format!("answers with the commit `{commit}`"), None));
        }
        // By commit from here on: a branch that moves must not mix the files of two snapshots.
        let pinned = Repo::with_revision(self.id.clone(), RepoType::Model, commit.clone());
        let refer = |repo: Repo| {
            let referred = cache.repo(repo).create_ref(&commit);
            referred.map_err(|error| self.error(format!("the cache: {error}"), None))
        };
        refer(pinned.clone())?;
        let files = api.repo(pinned);
        let names: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
        let mut folder = None;
        for name in wanted(&names) {
            note(name);
            let path = files.get(name).map_err(|error| self.failed(&error))?;
            if !name.contains('/') {
                folder = path.parent().map(ToOwned::to_owned);
            }
        }
        let folder = folder.ok_or_else(|| self.error("holds no files of a model", None))?;
        // The branch refers to the snapshot once that is whole.
        refer(repo)?;
        Ok(folder)
    }

    fn error(&self, reason: impl Into<String>, help: Option<&str>) -> Error {
        Error::Hub {
            repository: format!("{}@{}", self.id, self.revision),
            reason: reason.into(),
            help: help.map(ToOwned::to_owned),
        }
    }

    fn failed(&self, error: &ApiError) -> Error {
        let text = error.to_string();
        if text.contains("404") {
            return Error::NotACheckpoint {
                path: self.id.clone().into(),
                reason: format!(
                    "the hub knows no such repository, or no revision `{}` of it (404)",
                    self.revision
                ),
                help: "check the id and the revision; a folder on disk is given by its path".into(),
            };
        }
        let help = if text.contains("401") || text.contains("403") {
            "log in (`hf auth login`) or set HF_TOKEN; a gated model wants its licence accepted"
        } else {
            "check the network; what was downloaded is kept and the same command goes on"
        };
        self.error(text, Some(help))
    }
}

fn offline() -> bool {
    let value = std::env::var("HF_HUB_OFFLINE").unwrap_or_default();
    matches!(
        value.to_ascii_lowercase().as_str(),
        "1" | "true" | "yes" | "on"
    )
}

/// Text files that no ending tells.
const TEXTS: [&str; 4] = [
    "README.md",
    "vocab.txt",
    "merges.txt",
    "rwkv_vocab_v20230424.txt",
];

/// The files that a conversion reads.
fn wanted(names: &[String]) -> impl Iterator<Item = &str> {
    let weights = WEIGHTS.iter().find(|(prefix, suffix)| {
        names
            .iter()
            .any(|name| name.starts_with(prefix) && name.ends_with(suffix))
    });
    names.iter().map(String::as_str).filter(move |name| {
        // A name becomes a path in the cache.
        if name
            .split(['/', '\\'])
            .any(|part| part.is_empty() || part.starts_with(".."))
        {
            return false;
        }
        let weight = weights
            .is_some_and(|(prefix, suffix)| name.starts_with(prefix) && name.ends_with(suffix));
        if name.contains('/') {
            // Of folders only the pooling of sentence-transformers and chat templates count.
            return name.ends_with("_Pooling/config.json")
                || name.starts_with("additional_chat_templates/") && name.ends_with(".jinja");
        }
        let text = [".json", ".jinja", ".model", ".tiktoken", ".v3"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
            || TEXTS.contains(name);
        weight || text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_files() {
        assert!(Repository::parse("org/model-1.5", None).is_some());
        for bad in ["model", "../x", "a/b/c", "/a", "a/", "./model"] {
            assert!(Repository::parse(bad, None).is_none(), "{bad}");
        }
        let names = [
            "README.md",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model.safetensors.index.json",
            "pytorch_model.bin",
            "original/consolidated.00.pth",
            "1_Pooling/config.json",
            "onnx/model.onnx",
            "../1_Pooling/config.json",
            "additional_chat_templates/tool_use.jinja",
            "tokenizer.json",
        ]
        .map(String::from);
        let wanted: Vec<&str> = wanted(&names).collect();
        assert_eq!(
            wanted,
            [
                "README.md",
                "config.json",
                "model-00001-of-00002.safetensors",
                "model.safetensors.index.json",
                "1_Pooling/config.json",
                "additional_chat_templates/tool_use.jinja",
                "tokenizer.json"
            ]
        );
    }
}
