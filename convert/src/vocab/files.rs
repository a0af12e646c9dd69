//! The JSON files of a tokenizer, reduced to what conversion reads.

use serde_json::Value as Json;

use super::Error;
use crate::checkpoint::CheckpointFiles;

/// An entry of `added_tokens` or `added_tokens_decoder`.
#[derive(Debug, Clone)]
pub(super) struct AddedToken {
    pub id: u64,
    pub text: String,
    pub special: bool,
}

/// The kind of model in a `tokenizer.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ModelKind {
    /// Byte-pair merges over bytes in GPT-2's spelling.
    ByteLevel,
    /// Byte-pair merges over characters, sentencepiece's way.
    Characters,
    Unigram,
    WordPiece,
}

/// `tokenizer.json`.
#[derive(Debug)]
pub(super) struct TokenizerJson {
    pub json: Json,
    pub kind: ModelKind,
    pub added: Vec<AddedToken>,
}

pub(super) const TOKENIZER_JSON: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

impl TokenizerJson {
    pub fn read(files: &CheckpointFiles) -> Result<Option<Self>, Error> {
        files.json(TOKENIZER_JSON)?.map(Self::from_json).transpose()
    }

    /// Reads a parsed file.
    pub fn from_json(json: Json) -> Result<Self, Error> {
        let model = &json["model"];
        let byte_level = mentions(&json["pre_tokenizer"], "ByteLevel")
            || mentions(&json["decoder"], "ByteLevel");
        let kind = match model["type"].as_str() {
            Some("Unigram") => ModelKind::Unigram,
            Some("WordPiece") => ModelKind::WordPiece,
            Some("BPE") if byte_level => ModelKind::ByteLevel,
            Some("BPE") => ModelKind::Characters,
            // Files written before the type was named.
            None if model["merges"].is_array() && byte_level => ModelKind::ByteLevel,
            None if model["merges"].is_array() => ModelKind::Characters,
            None if model["vocab"].is_array() => ModelKind::Unigram,
            None if model["vocab"].is_object() => ModelKind::WordPiece,
            other => {
                return Err(Error::file(
                    TOKENIZER_JSON,
                    format!(
                        "`model.type` is {}, none of BPE, Unigram, WordPiece",
                        other.map_or("missing".into(), |name| format!("`{name}`"))
                    ),
                ));
            }
        };
        let added = json["added_tokens"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(at, entry)| {
                let token = entry["id"].as_u64().and_then(|id| added_token(id, entry));
                token.ok_or_else(|| {
                    let reason = format!("`added_tokens[{at}]` has no `id` and `content`");
                    Error::file(TOKENIZER_JSON, reason)
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { json, kind, added })
    }

    /// The tokens and ids of a vocabulary that is a table.
    pub fn vocabulary(&self) -> Result<Vec<(&str, u64)>, Error> {
        let table = self.json["model"]["vocab"]
            .as_object()
            .ok_or_else(|| Error::file(TOKENIZER_JSON, "`model.vocab` is no table"))?;
        table
            .iter()
            .map(|(text, id)| {
                let id = id.as_u64().ok_or_else(|| {
                    Error::file(
                        TOKENIZER_JSON,
                        format!("`model.vocab`: the id of `{text}` is {id}"),
                    )
                })?;
                Ok((text.as_str(), id))
            })
            .collect()
    }

    /// The merges in their order, each as two parts with a space between; spaces inside a part are
    /// spelled `Ġ`.
    pub fn merges(&self) -> Result<Option<Vec<String>>, Error> {
        let Some(merges) = self.json["model"]["merges"].as_array() else {
            return Ok(None);
        };
        let part = |text: &str| text.replace(' ', "Ġ");
        merges
            .iter()
            .enumerate()
            .map(|(at, merge)| match merge {
                Json::String(merge) => Ok(merge.clone()),
                Json::Array(parts) => match parts.as_slice() {
                    [Json::String(left), Json::String(right)] => {
                        Ok(format!("{} {}", part(left), part(right)))
                    }
                    _ => Err(merge_error(at)),
                },
                _ => Err(merge_error(at)),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Some)
    }

    /// A flag of the model.
    pub fn flag(&self, name: &str) -> bool {
        self.json["model"][name].as_bool().unwrap_or(false)
    }
}

fn merge_error(at: usize) -> Error {
    Error::file(
        TOKENIZER_JSON,
        format!("`model.merges[{at}]` is neither text nor a pair"),
    )
}

fn added_token(id: u64, entry: &Json) -> Option<AddedToken> {
    Some(AddedToken {
        id,
        text: entry["content"].as_str()?.to_owned(),
        special: entry["special"].as_bool().unwrap_or(false),
    })
}

/// Whether a component of the tokenizer or one inside it has this type.
pub(super) fn mentions(component: &Json, kind: &str) -> bool {
    components(component)
        .iter()
        .any(|part| part["type"] == kind)
}

/// A component, or the parts of a sequence, flattened.
pub(super) fn components(component: &Json) -> Vec<&Json> {
    if component["type"] != "Sequence" {
        return if component.is_object() {
            vec![component]
        } else {
            vec![]
        };
    }
    ["normalizers", "pretokenizers", "decoders", "processors"]
        .iter()
        .filter_map(|list| component[list].as_array())
        .flatten()
        .flat_map(components)
        .collect()
}

/// `tokenizer_config.json`.
#[derive(Debug)]
pub(super) struct TokenizerConfig(pub Json);

impl TokenizerConfig {
    pub fn read(files: &CheckpointFiles) -> Result<Option<Self>, Error> {
        match files.json(TOKENIZER_CONFIG)? {
            Some(json) if !json.is_object() => {
                Err(Error::file(TOKENIZER_CONFIG, "is not a JSON object"))
            }
            json => Ok(json.map(Self)),
        }
    }

    /// `added_tokens_decoder`, by id.
    pub fn added_tokens(&self) -> Vec<AddedToken> {
        let mut tokens: Vec<_> = self.0["added_tokens_decoder"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(id, entry)| added_token(id.parse().ok()?, entry))
            .collect();
        tokens.sort_by_key(|token| token.id);
        tokens
    }

    /// The text of `{name}_token`, given as text or as an object.
    pub fn token(&self, name: &str) -> Option<&str> {
        token_text(&self.0[format!("{name}_token")])
    }

    /// The texts of the tokens that have a role.
    pub fn role_texts(&self) -> impl Iterator<Item = &str> {
        ["bos", "eos", "unk", "sep", "pad", "cls", "mask"]
            .into_iter()
            .filter_map(|role| self.token(role))
    }

    /// The texts of further tokens that the configuration lists as special. The second name of the
    /// list is the younger one; there the tokens may also have names.
    pub fn extra_texts(&self) -> impl Iterator<Item = &str> {
        let lists = ["additional_special_tokens", "extra_special_tokens"].map(|name| &self.0[name]);
        let listed = lists.into_iter().filter_map(Json::as_array).flatten();
        let named = lists.into_iter().filter_map(Json::as_object);
        listed
            .chain(named.flat_map(serde_json::Map::values))
            .filter_map(token_text)
    }

    /// The texts of all special tokens.
    pub fn special_texts(&self) -> impl Iterator<Item = &str> {
        self.role_texts().chain(self.extra_texts())
    }
}

/// The text of a token that is given as text or as an object.
fn token_text(entry: &Json) -> Option<&str> {
    entry.as_str().or_else(|| entry["content"].as_str())
}
