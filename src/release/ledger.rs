//! What a release has finished, so that a rerun does not do it again.
//!
//! A file counts as finished only if everything it was made from is the same as now, and its bytes
//! are those that were written; never by its name alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gristmill_perplexity::report::PerplexityReport;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::files;
use crate::report::Report;

/// Everything that decides a file's bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// SHA-256 over the source's files.
    pub source: String,
    /// Preset, or what else the file is (`imatrix`).
    #[serde(rename = "type")]
    pub ty: String,
    /// `reference` or `best`; none where nothing was searched.
    pub effort: Option<String>,
    /// SHA-256 of the importance matrix used.
    pub imatrix: Option<String>,
    /// Further inputs: SHA-256 of a text, context, chunks.
    pub settings: Vec<String>,
    /// Version of grist.
    pub version: String,
}

/// Everything that decides a measurement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// SHA-256 of the base.
    pub base: String,
    /// SHA-256 of the text.
    pub text: String,
    /// Tokens a chunk.
    pub context: u64,
    /// Chunks.
    pub chunks: u64,
    /// Whether activations stayed in `f32`.
    pub exact: bool,
    /// Type of the KV cache.
    pub kv_type: String,
    /// Version of grist.
    pub version: String,
}

/// The figures of one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// How they were measured.
    pub protocol: Protocol,
    /// Perplexity and divergence.
    pub report: PerplexityReport,
    /// Prompt speed, tokens a second.
    pub prompt: Option<f64>,
    /// Generation speed, tokens a second.
    pub generation: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    provenance: Provenance,
    size_bytes: u64,
    sha256: String,
    measured: Option<Measured>,
}

/// The ledger of one output folder.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

impl Ledger {
    /// Reads the ledger of `folder`; one that cannot be read counts for nothing.
    pub fn open(folder: &Path) -> Self {
        let path = folder.join(".grist-release.json");
        let entries = fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        Self { path, entries }
    }

    /// The SHA-256 of `file` if it is finished: made from the same things, and still as written.
    pub fn finished(
        &self,
        file: &Path,
        provenance: &Provenance,
        context: &Context,
    ) -> Result<Option<String>, Report> {
        let Some(entry) = self.entries.get(&key(file)) else {
            return Ok(None);
        };
        let same_size = fs::metadata(file).is_ok_and(|found| found.len() == entry.size_bytes);
        if entry.provenance != *provenance || !same_size {
            return Ok(None);
        }
        let sha256 = files::sha256(file, context)?;
        Ok((sha256 == entry.sha256).then_some(sha256))
    }

    /// Whether this ledger knows `file` at all: then a release made it, and may replace it.
    pub fn owns(&self, file: &Path) -> bool {
        self.entries.contains_key(&key(file))
    }

    /// Records a finished file; returns its SHA-256.
    pub fn record(
        &mut self,
        file: &Path,
        provenance: Provenance,
        context: &Context,
    ) -> Result<String, Report> {
        let size_bytes = fs::metadata(file)
            .map_err(|error| Report::io(file, &error))?
            .len();
        let sha256 = files::sha256(file, context)?;
        let entry = Entry {
            provenance,
            size_bytes,
            sha256: sha256.clone(),
            measured: None,
        };
        self.entries.insert(key(file), entry);
        self.save()?;
        Ok(sha256)
    }

    /// The figures of a finished file, if they were measured in the same way.
    pub fn measured(&self, file: &Path, protocol: &Protocol) -> Option<&Measured> {
        let measured = self.entries.get(&key(file))?.measured.as_ref()?;
        (measured.protocol == *protocol).then_some(measured)
    }

    /// Records the figures of a finished file.
    pub fn record_measured(&mut self, file: &Path, measured: Measured) -> Result<(), Report> {
        if let Some(entry) = self.entries.get_mut(&key(file)) {
            entry.measured = Some(measured);
        }
        self.save()
    }

    fn save(&self) -> Result<(), Report> {
        let text = serde_json::to_vec_pretty(&self.entries)
            .map_err(|error| Report::environment(format!("{}: {error}", self.path.display())))?;
        files::replace(&self.path, &text)
    }
}

fn key(file: &Path) -> String {
    file.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
