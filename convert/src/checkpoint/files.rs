//! The files of a checkpoint's folder.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

use serde_json::Value as Json;

use crate::Error;

/// Largest text file (tokenizer, configuration, index) that is read into memory.
const TEXT_LIMIT: u64 = 1 << 28;

/// A checkpoint's folder. Files are reached by name and never outside of it.
#[derive(Debug, Clone)]
pub struct CheckpointFiles {
    root: PathBuf,
    /// Canonical folders in which a file may truly lie: the folder itself and, for a snapshot of
    /// the hub's cache, the folder of blobs that its links point to.
    allowed: Vec<PathBuf>,
}

impl CheckpointFiles {
    /// Opens a folder.
    ///
    /// # Errors
    /// If it does not exist or is no folder.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let canonical = root.canonicalize().map_err(Error::io(root))?;
        if !canonical.is_dir() {
            return Err(Error::NotACheckpoint {
                path: root.to_owned(),
                reason: "is not a folder".into(),
                help: "give the folder that holds config.json and the weights, or a hub id".into(),
            });
        }
        let mut allowed = vec![canonical.clone()];
        let snapshots = canonical.parent();
        if let Some(repository) = snapshots
            .filter(|folder| folder.ends_with("snapshots"))
            .and_then(Path::parent)
        {
            allowed.push(repository.join("blobs"));
        }
        Ok(Self {
            root: root.to_owned(),
            allowed,
        })
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of a file, `None` if there is none of that name.
    ///
    /// # Errors
    /// If the name or a symbolic link leaves the folder, or the system fails.
    pub fn path(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        let path = self.root.join(name);
        let plain = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if !plain || name.is_empty() {
            return Err(Error::File {
                file: path,
                reason: "the name leaves the checkpoint's folder".into(),
                help: None,
            });
        }
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) if path.is_symlink() => {
                return Err(Error::File {
                    file: path,
                    reason: format!("is a symbolic link that leads nowhere: {error}"),
                    help: Some("put the file itself into the folder".into()),
                });
            }
            Err(error) => return Err(Error::io(path)(error)),
        };
        if !self.allowed.iter().any(|root| real.starts_with(root)) {
            return Err(Error::File {
                reason: format!(
                    "is a symbolic link that leaves the checkpoint's folder (to {})",
                    real.display()
                ),
                file: path,
                help: Some("put the file itself into the folder".into()),
            });
        }
        // Whoever opens a pipe waits for its writer, perhaps for ever.
        if !real.is_file() {
            return Err(Error::File {
                file: path,
                reason: "is no regular file".into(),
                help: Some("put the file itself into the folder".into()),
            });
        }
        Ok(Some(path))
    }

    /// Whether there is a file of that name inside the folder.
    pub fn contains(&self, name: &str) -> bool {
        matches!(self.path(name), Ok(Some(_)))
    }

    /// The names of the files in the folder itself, sorted.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(Error::io(&self.root))? {
            let entry = entry.map_err(Error::io(&self.root))?;
            if let Ok(name) = entry.file_name().into_string()
                && !entry.path().is_dir()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The bytes of a file, `None` if there is none.
    ///
    /// # Errors
    /// If it is outside the folder, larger than a text file may be, or cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(path) = self.path(name)? else {
            return Ok(None);
        };
        let file = fs::File::open(&path).map_err(Error::io(&path))?;
        let mut bytes = Vec::new();
        file.take(TEXT_LIMIT + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::io(&path))?;
        if bytes.len() as u64 > TEXT_LIMIT {
            return Err(Error::file(&path, "is too large (over 256 MiB)"));
        }
        Ok(Some(bytes))
    }

    /// The text of a file, `None` if there is none.
    ///
    /// # Errors
    /// As [`CheckpointFiles::read`], and if it is not UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<String>, Error> {
        let Some(bytes) = self.read(name)? else {
            return Ok(None);
        };
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|error| Error::file(&self.root.join(name), format!("is not UTF-8: {error}")))
    }

    /// A JSON file, `None` if there is none. The bare `NaN` and `Infinity` that Python writes are
    /// read as `null`: no field that matters to a conversion has such a value.
    ///
    /// # Errors
    /// As [`CheckpointFiles::text`], and if it is no JSON.
    pub fn json(&self, name: &str) -> Result<Option<Json>, Error> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        serde_json::from_str(text)
            .or_else(|error| serde_json::from_str(&without_bare_floats(text)).map_err(|_| error))
            .map(Some)
            .map_err(|error| {
                let lfs = text.starts_with("version https://git-lfs");
                Error::File {
                    file: self.root.join(name),
                    reason: if lfs {
                        "is a git-lfs pointer, not the file itself".into()
                    } else {
                        format!("is not JSON: {error}")
                    },
                    help: lfs.then(|| "run `git lfs pull` in the checkpoint's folder".into()),
                }
            })
    }
}

/// Replaces Python's bare `NaN`, `Infinity` and `-Infinity` outside strings by `null`.
fn without_bare_floats(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(next) = rest.chars().next() {
        if !in_string
            && let Some(word) = ["-Infinity", "Infinity", "NaN"]
                .into_iter()
                .find(|word| rest.starts_with(word))
        {
            out.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        let mut taken = next.len_utf8();
        if in_string && next == '\\' {
            taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
        } else if next == '"' {
            in_string = !in_string;
        }
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_links_stay_inside() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.json"), "{}").unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("config.json"),
            r#"{"a": NaN, "b": "NaN"}"#,
        )
        .unwrap();
        let files = CheckpointFiles::open(folder.path()).unwrap();
        let json = files.json("config.json").unwrap().unwrap();
        assert!(json["a"].is_null() && json["b"] == "NaN");
        assert!(files.path("absent.json").unwrap().is_none());
        assert!(files.path("../secret.json").is_err());
        assert!(files.path("/etc/passwd").is_err());
        #[cfg(unix)]
        {
            let link = folder.path().join("link.json");
            std::os::unix::fs::symlink(outside.path().join("secret.json"), link).unwrap();
            let error = files.path("link.json").unwrap_err().to_string();
            assert!(error.contains("leaves the checkpoint's folder"), "{error}");
        }
    }
}
