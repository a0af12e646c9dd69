//! How much the model minds errors in a tensor: measured, one group of tensors at a time.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use bstr::BString;
use gristmill_gguf::{TensorInfo, TensorType};
use serde::{Deserialize, Serialize};

use super::ErrorTable;

/// The most groups that are probed. Models with more tensors have neighbouring layers' tensors of
/// a kind probed together.
const MOST_GROUPS: usize = 160;

/// Tensors that are probed together, all quantized to a probing type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The tensors, by index in the source, with the probing type of each.
    pub tensors: Vec<(usize, TensorType)>,
    /// What results are kept under.
    pub key: String,
}

/// Why measured sensitivities cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct CacheError {
    /// The file.
    pub path: PathBuf,
    /// The system's error.
    pub error: std::io::Error,
}

/// Divides the tensors into groups: each by itself, or runs of layers of a kind where there are
/// more than can be probed.
pub fn groups(tensors: &[TensorInfo], errors: &ErrorTable) -> Vec<Group> {
    let mut kinds: BTreeMap<BString, Vec<(Option<u64>, usize)>> = BTreeMap::new();
    for (tensor, _) in errors.rows() {
        let name = &tensors[tensor].name;
        let (layer, kind) = match crate::plan::layer(name.as_ref()) {
            Some((layer, kind)) => (Some(layer), kind.to_owned()),
            None => (None, name.clone()),
        };
        kinds.entry(kind).or_default().push((layer, tensor));
    }
    let total: usize = kinds.values().map(Vec::len).sum();
    let together = total.div_ceil(MOST_GROUPS).max(1);
    kinds
        .into_values()
        .flat_map(|mut members| {
            members.sort_unstable();
            let runs = members
                .chunks(together)
                .map(<[(Option<u64>, usize)]>::to_vec);
            runs.collect::<Vec<_>>()
        })
        .map(|run| {
            let probe = |tensor: usize| {
                let fits = |ty: &TensorType| errors.get(tensor, *ty).is_some();
                [
                    TensorType::Q3_K,
                    TensorType::Q2_K,
                    TensorType::IQ4_NL,
                    TensorType::Q8_0,
                ]
                .into_iter()
                .find(fits)
                .unwrap_or(TensorType::Q8_0)
            };
            let tensors_of: Vec<(usize, TensorType)> = run
                .iter()
                .map(|&(_, tensor)| (tensor, probe(tensor)))
                .collect();
            let names: Vec<String> = tensors_of
                .iter()
                .map(|(tensor, ty)| format!("{}={ty}", tensors[*tensor].name))
                .collect();
            Group {
                tensors: tensors_of,
                key: names.join(" "),
            }
        })
        .collect()
}

/// Measured divergences by group, kept in a file so that measuring can go on where it stopped.
#[derive(Debug, Clone)]
pub struct Sensitivities {
    path: Option<PathBuf>,
    kept: Kept,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    identity: String,
    divergences: BTreeMap<String, f64>,
}

impl Sensitivities {
    /// Takes up what the file holds, if it was measured under the same identity (source, importance,
    /// text, effort, version); starts anew otherwise.
    pub fn open(path: Option<&Path>, identity: &str) -> Self {
        let kept = path
            .and_then(|path| std::fs::read(path).ok())
            .and_then(|text| serde_json::from_slice::<Kept>(&text).ok())
            .filter(|kept| kept.identity == identity);
        Self {
            path: path.map(Path::to_owned),
            kept: kept.unwrap_or_else(|| Kept {
                identity: identity.to_owned(),
                divergences: BTreeMap::new(),
            }),
        }
    }

    /// The measured divergence of a group.
    pub fn get(&self, group: &Group) -> Option<f64> {
        self.kept.divergences.get(&group.key).copied()
    }

    /// Notes a measured divergence, in the file too.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn insert(&mut self, group: &Group, divergence: f64) -> Result<(), CacheError> {
        self.kept.divergences.insert(group.key.clone(), divergence);
        let Some(path) = &self.path else {
            return Ok(());
        };
        let write = || -> std::io::Result<()> {
            let folder = match path.parent() {
                Some(folder) if !folder.as_os_str().is_empty() => folder,
                _ => Path::new("."),
            };
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&serde_json::to_vec_pretty(&self.kept)?)?;
            file.persist(path)?;
            Ok(())
        };
        write().map_err(|error| CacheError {
            path: path.clone(),
            error,
        })
    }

    /// Divergence for each unit of weighted squared error, by tensor: the group's divergence over
    /// its error. Groups that were not measured count as the mean of those that were.
    pub fn per_error(&self, groups: &[Group], errors: &ErrorTable) -> BTreeMap<usize, f64> {
        let error_of = |group: &Group| -> f64 {
            let members = group.tensors.iter();
            members
                .filter_map(|&(tensor, ty)| errors.get(tensor, ty))
                .sum()
        };
        let ratio = |group: &Group| {
            let error = error_of(group);
            let divergence = self.get(group)?.max(0.0);
            (error > 0.0).then(|| divergence / error)
        };
        let known: Vec<f64> = groups.iter().filter_map(ratio).collect();
        let mean = match known.len() {
            0 => 1.0,
            count => known.iter().sum::<f64>() / count as f64,
        };
        groups
            .iter()
            .flat_map(|group| {
                let ratio = ratio(group).unwrap_or(mean);
                group
                    .tensors
                    .iter()
                    .map(move |&(tensor, _)| (tensor, ratio))
            })
            .collect()
    }
}
