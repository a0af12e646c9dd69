//! The `general.*` keys: who made the model, what it is called, how it is sampled.

mod card;
mod model_id;

use gristmill_gguf::{Metadata, Value};
use serde_json::{Map, Value as Json};

use card::{as_text, as_texts};
use model_id::{ModelId, Parameters, rounded, title};

use crate::checkpoint::CheckpointFiles;
use crate::config::{Config, as_f64};
use crate::{Error, Expr};

/// The parameters of the tensors that are written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Size {
    total: u64,
    /// The stacks of experts among them.
    stacks: Vec<Stack>,
    adapter: bool,
}

/// Matrices of several experts in one tensor.
#[derive(Debug, Clone, Copy)]
struct Stack {
    experts: u64,
    parameters: u64,
}

impl Size {
    /// Nothing counted yet, of an adapter.
    pub(crate) fn of_adapter() -> Self {
        Self {
            adapter: true,
            ..Self::default()
        }
    }

    /// Counts a tensor of this GGUF name and shape.
    pub(crate) fn count(&mut self, name: &str, tensor: &Expr) {
        let parameters = tensor.elements();
        self.total += parameters;
        // Their biases count as shared.
        if name.ends_with("_exps.weight") {
            self.stacks.push(Stack {
                // The experts are the outermost dimension.
                experts: tensor.shape().last().copied().unwrap_or(1).max(1),
                parameters,
            });
        }
    }

    /// The size that a model's name would state: of a mixture the number of experts and what the
    /// model would have with one of them. `None` for adapters.
    fn label(&self) -> Option<String> {
        if self.adapter || self.total == 0 {
            return None;
        }
        let in_stacks: u64 = self.stacks.iter().map(|stack| stack.parameters).sum();
        let of_one = self.stacks.iter().map(|s| s.parameters / s.experts);
        let with_one = self.total - in_stacks + of_one.sum::<u64>();
        // Layers may differ in their experts; the label states the mean.
        let experts: u64 = self.stacks.iter().map(|stack| stack.experts).sum();
        let mean = experts.checked_div(self.stacks.len() as u64);
        let mixture = mean.map_or_else(String::new, |experts| format!("{experts}x"));
        Some(mixture + &rounded(with_one))
    }
}

/// Another model or data set that this one comes from.
#[derive(Debug, Default)]
struct Origin(Vec<(&'static str, String)>);

/// What is known about the model's origin.
#[derive(Debug, Default)]
struct Facts {
    name: Option<String>,
    author: Option<String>,
    version: Option<String>,
    organization: Option<String>,
    finetune: Option<String>,
    basename: Option<String>,
    description: Option<String>,
    quantized_by: Option<String>,
    size_label: Option<String>,
    license: Option<String>,
    license_name: Option<String>,
    license_link: Option<String>,
    url: Option<String>,
    doi: Option<String>,
    uuid: Option<String>,
    repo_url: Option<String>,
    source_url: Option<String>,
    base_models: Vec<Origin>,
    datasets: Vec<Origin>,
    tags: Vec<String>,
    languages: Vec<String>,
}

/// Writes the keys of the model's origin and sampling.
pub(crate) fn write(
    files: &CheckpointFiles,
    config: &Config,
    size: &Size,
    metadata: &mut Metadata,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let mut facts = Facts::default();
    if let Some(readme) = files.read("README.md")? {
        match card::front_matter(&String::from_utf8_lossy(&readme)) {
            Ok(fields) => facts.read_card(&fields),
            Err(error) => warnings.push(format!("README.md: the model card is ignored: {error}")),
        }
    }
    let parameters = Parameters {
        count: size.total,
        adapter: size.adapter,
    };
    if let Some(id) = config.str("_name_or_path")
        && id.matches('/').count() <= 1
    {
        facts.read_id(ModelId::parse(id, parameters));
    }
    if let Some(id) = folder_name(files) {
        facts.read_id(ModelId::parse(&id, parameters));
    }
    facts.size_label = facts.size_label.or_else(|| size.label());
    if let Some(sampling) = files.json("generation_config.json")? {
        write_sampling(&sampling, metadata);
    }
    facts.write(metadata);
    Ok(())
}

/// The name of the model's folder; of the repository for a snapshot in the hub's cache, whose
/// folder is named by a hash.
fn folder_name(files: &CheckpointFiles) -> Option<String> {
    let root = files.root();
    let full = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let name = full.file_name()?.to_str()?;
    let snapshots = full.parent()?;
    if snapshots.ends_with("snapshots")
        && let Some(repository) = snapshots.parent().and_then(|p| p.file_name()?.to_str())
        && let Some(id) = repository.strip_prefix("models--")
    {
        return Some(id.replacen("--", "/", 1));
    }
    Some(name.to_owned())
}

/// Sampling defaults: key, its names in generation_config.json, whether it is an integer.
const SAMPLING: [(&str, &[&str], bool); 11] = [
    ("top_k", &["top_k"], true),
    ("top_p", &["top_p"], false),
    ("min_p", &["min_p"], false),
    ("xtc_probability", &["xtc_probability"], false),
    ("xtc_threshold", &["xtc_threshold"], false),
    ("temp", &["temperature"], false),
    ("penalty_last_n", &["penalty_last_n"], true),
    (
        "penalty_repeat",
        &["penalty_repeat", "repetition_penalty"],
        false,
    ),
    ("mirostat", &["mirostat"], true),
    ("mirostat_tau", &["mirostat_tau"], false),
    ("mirostat_eta", &["mirostat_eta"], false),
];

fn write_sampling(sampling: &Json, metadata: &mut Metadata) {
    if let Some(sequence) = sampling.get("sequence").and_then(Json::as_str) {
        metadata.set("general.sampling.sequence", sequence);
    }
    for (key, names, integer) in SAMPLING {
        let stated = names.iter().find_map(|name| as_f64(sampling.get(name)?));
        let Some(stated) = stated else { continue };
        let value = if integer {
            Value::I32(stated as i32)
        } else {
            Value::F32(stated as f32)
        };
        metadata.set(format!("general.sampling.{key}"), value);
    }
}

impl Facts {
    fn read_card(&mut self, card: &Map<String, Json>) {
        let text = |names: &[&str]| names.iter().find_map(|name| as_text(card.get(*name)?));
        let texts = |names: &[&str]| -> Vec<String> {
            let found = names.iter().filter_map(|name| card.get(*name));
            found.flat_map(as_texts).collect()
        };
        self.name = text(&["name", "model_name"]);
        self.author = text(&["author", "model_author", "model_creator"]);
        self.version = text(&["version", "model_version"]);
        self.organization = text(&["organization", "model_organization"]);
        self.description = text(&["description", "model_description"]);
        self.finetune = text(&["finetune", "model_finetune"]);
        self.basename = text(&["basename", "model_basename", "model_type"]);
        self.size_label = text(&["size_label", "model_size_label"]);
        self.quantized_by = text(&["quantized_by"]);
        self.source_url = text(&["source_url", "model_source_url"]);
        self.url = text(&["url", "model_url", "model_website"]);
        self.repo_url = text(&["repo_url", "model_repo_url"]);
        self.doi = text(&["doi", "model_doi"]);
        self.uuid = text(&["uuid", "model_uuid"]);
        let licenses = texts(&["license"]);
        self.license = (!licenses.is_empty()).then(|| licenses.join(","));
        self.license_name = text(&["license_name"]);
        self.license_link = text(&["license_link"]);
        self.tags = texts(&["tags", "pipeline_tag"]);
        self.languages = texts(&["languages", "language"]);
        self.base_models = origins(card, &["base_model", "base_models", "base_model_sources"]);
        self.datasets = origins(card, &["datasets", "dataset", "dataset_sources"]);
    }

    /// Fills in what is not known yet.
    fn read_id(&mut self, id: ModelId) {
        let fill = |fact: &mut Option<String>, found: Option<String>| {
            if fact.is_none() {
                *fact = found;
            }
        };
        let titled = |part: Option<String>| part.map(|part| title(&part)).filter(|t| !t.is_empty());
        fill(&mut self.name, titled(id.name));
        fill(&mut self.organization, titled(id.organization));
        fill(&mut self.basename, id.basename);
        fill(&mut self.finetune, id.finetune);
        fill(&mut self.version, id.version);
        fill(&mut self.size_label, id.size_label);
    }

    fn write(self, metadata: &mut Metadata) {
        let mut text = |key: &str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                metadata.set(format!("general.{key}"), value);
            }
        };
        text("name", self.name);
        text("author", self.author);
        text("version", self.version);
        text("organization", self.organization);
        text("finetune", self.finetune);
        text("basename", self.basename);
        text("description", self.description);
        text("quantized_by", self.quantized_by);
        text("size_label", self.size_label);
        text("license", self.license);
        text("license.name", self.license_name);
        text("license.link", self.license_link);
        text("url", self.url);
        text("doi", self.doi);
        text("uuid", self.uuid);
        text("repo_url", self.repo_url);
        text("source.url", self.source_url);
        for (kind, origins) in [("base_model", self.base_models), ("dataset", self.datasets)] {
            if origins.is_empty() {
                continue;
            }
            metadata.set(format!("general.{kind}.count"), origins.len() as u32);
            for (at, origin) in origins.into_iter().enumerate() {
                for (field, value) in origin.0 {
                    metadata.set(format!("general.{kind}.{at}.{field}"), value);
                }
            }
        }
        for (key, list) in [("tags", self.tags), ("languages", self.languages)] {
            if !list.is_empty() {
                let list: Vec<_> = list.into_iter().map(Into::into).collect();
                metadata.set(
                    format!("general.{key}"),
                    Value::Array(gristmill_gguf::Array::String(list)),
                );
            }
        }
    }
}

/// Models or data sets that the card names.
fn origins(card: &Map<String, Json>, fields: &[&str]) -> Vec<Origin> {
    let mut found = Vec::new();
    for field in fields {
        match card.get(*field) {
            Some(Json::Array(items)) => found.extend(items),
            Some(Json::Null) | None => {}
            Some(single) => found.push(single),
        }
    }
    found.into_iter().filter_map(origin).collect()
}

fn origin(item: &Json) -> Option<Origin> {
    const FIELDS: [&str; 9] = [
        "name",
        "author",
        "version",
        "organization",
        "description",
        "url",
        "doi",
        "uuid",
        "repo_url",
    ];
    if let Json::Object(stated) = item {
        let fields = FIELDS
            .into_iter()
            .filter_map(|field| Some((field, as_text(stated.get(field)?)?)));
        return Some(Origin(fields.collect()));
    }
    let text = as_text(item)?;
    let mut origin = Origin::default();
    let url = text.starts_with("http://") || text.starts_with("https://");
    let mut id = text.as_str();
    if url {
        let on_hub = text
            .strip_prefix("https://huggingface.co/")
            .map(|path| path.strip_prefix("datasets/").unwrap_or(path));
        match on_hub {
            Some(path) if path.split('/').count() >= 2 => id = path,
            _ => {
                origin.0.push(("repo_url", text));
                return Some(origin);
            }
        }
    }
    let mut parts = id.split('/');
    let (organization, name) = match (parts.next(), parts.next()) {
        (Some(organization), Some(name)) => (Some(organization), name),
        (name, _) => (None, name.unwrap_or_default()),
    };
    let parsed = ModelId::parse(name, Parameters::UNKNOWN);
    origin.0.push(("name", title(name)));
    if let Some(version) = parsed.version {
        origin.0.push(("version", version));
    }
    if let Some(organization) = organization {
        origin.0.push(("organization", title(organization)));
    }
    if url {
        origin.0.push(("repo_url", text));
    } else if let Some(organization) = organization {
        let hub = "https://huggingface.co";
        origin
            .0
            .push(("repo_url", format!("{hub}/{organization}/{name}")));
    }
    Some(origin)
}
