//! Chat templates: where they lie, and whether they parse.

use gristmill_gguf::Value;
use gristmill_gguf::schema::chat;
use serde_json::Value as Json;

use super::Error;
use super::files::TokenizerConfig;
use crate::checkpoint::CheckpointFiles;

/// A template and its name; `default` is the one that is used when none is named.
#[derive(Debug)]
struct Template {
    name: String,
    source: String,
}

const DEFAULT: &str = "default";

const TEMPLATE_FILE: &str = "chat_template.jinja";

pub(super) use chat::TEMPLATE as KEY;

/// The chat templates of a checkpoint, in the order in which they are written. The configuration of
/// the tokenizer goes before the files of templates; without it there is none at all.
pub(super) fn entries(
    files: &CheckpointFiles,
    config: Option<&TokenizerConfig>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(String, Value)>, Error> {
    let Some(config) = config else {
        return Ok(Vec::new());
    };
    let templates = match &config.0["chat_template"] {
        Json::Null => from_files(files, warnings)?,
        stated => from_json(stated, "tokenizer_config.json", warnings),
    };
    for template in &templates {
        if let Some(problem) = problem(&template.source) {
            warnings.push(unparsed(&template.name, &problem));
        }
    }
    Ok(keys(templates))
}

fn unparsed(name: &str, problem: &str) -> String {
    format!("the chat template `{name}` does not parse: {problem}")
}

/// The template that stands in the folder as a file, whatever else the folder holds.
pub(super) fn of_folder(
    files: &CheckpointFiles,
    warnings: &mut Vec<String>,
) -> Result<Option<String>, Error> {
    let source = files.text(TEMPLATE_FILE)?;
    warnings.extend(
        source
            .as_deref()
            .and_then(problem)
            .map(|problem| unparsed(DEFAULT, &problem)),
    );
    Ok(source)
}

fn from_files(files: &CheckpointFiles, warnings: &mut Vec<String>) -> Result<Vec<Template>, Error> {
    if let Some(source) = files.text(TEMPLATE_FILE)? {
        let mut templates = vec![Template {
            name: DEFAULT.into(),
            source,
        }];
        for name in additional(files) {
            if let Some(source) = files.text(&format!("{ADDITIONAL}/{name}.jinja"))? {
                templates.push(Template { name, source });
            }
        }
        return Ok(templates);
    }
    Ok(match files.json("chat_template.json")? {
        Some(json) => from_json(&json["chat_template"], "chat_template.json", warnings),
        None => Vec::new(),
    })
}

const ADDITIONAL: &str = "additional_chat_templates";

/// The names of the further template files, sorted.
fn additional(files: &CheckpointFiles) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(files.root().join(ADDITIONAL))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some(name.strip_suffix(".jinja")?.to_owned())
        })
        .collect();
    names.sort_unstable();
    names
}

fn from_json(json: &Json, file: &str, warnings: &mut Vec<String>) -> Vec<Template> {
    match json {
        Json::Null => Vec::new(),
        Json::String(source) => vec![Template {
            name: DEFAULT.into(),
            source: source.clone(),
        }],
        Json::Array(list) => list
            .iter()
            .filter_map(|entry| {
                Some(Template {
                    name: entry["name"].as_str()?.to_owned(),
                    source: entry["template"].as_str()?.to_owned(),
                })
            })
            .collect(),
        _ => {
            warnings.push(format!(
                "{file}: `chat_template` is neither text nor a list; left out"
            ));
            Vec::new()
        }
    }
}

/// Named templates first, then the list of their names, then the default.
fn keys(templates: Vec<Template>) -> Vec<(String, Value)> {
    let mut entries = Vec::new();
    let mut default = None;
    let mut names: Vec<bstr::BString> = Vec::new();
    for template in templates {
        if template.name == DEFAULT {
            default = Some(template.source);
            continue;
        }
        let name: String = template
            .name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        entries.push((format!("{KEY}.{name}"), template.source.into()));
        names.push(name.into());
    }
    if !names.is_empty() {
        entries.push(("tokenizer.chat_templates".into(), Value::from(names)));
    }
    if let Some(source) = default {
        entries.push((KEY.into(), source.into()));
    }
    entries
}

/// Why a template does not parse, with its line.
fn problem(source: &str) -> Option<String> {
    let mut environment = minijinja::Environment::new();
    environment.set_syntax(
        minijinja::syntax::SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .ok()?,
    );
    if let Some(line) = chat::overlong(source) {
        return Some(format!("line {line}: an expression is too long"));
    }
    let source = chat::without_training_marks(source);
    let error = environment.template_from_str(&source).err()?;
    let line = error
        .line()
        .map_or(String::new(), |line| format!("line {line}: "));
    let detail = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_owned);
    Some(format!("{line}{detail}"))
}
