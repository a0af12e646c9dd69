//! What configuration classes have where config.json says nothing.

use serde_json::{Map, Value as Json};

use super::{LAYERS, TEXT_CONFIGS};

/// Model type, values, other names of fields: made from transformers' classes.
pub(super) const CLASS_DEFAULTS: &str = include_str!("../class_defaults.tsv");

/// What the configuration's class has for fields that the file leaves out; nothing for a field that
/// the file has under another of its names.
pub(super) fn class_defaults(published: &Json, fields: &Map<String, Json>) -> Map<String, Json> {
    let model_type = |config: &Json| config["model_type"].as_str().map(ToOwned::to_owned);
    let mut types: Vec<String> = Vec::new();
    if let Some(root) = model_type(published) {
        types.push(root.clone());
        for key in TEXT_CONFIGS {
            if let Some(text) = published.get(key).filter(|text| text.is_object()) {
                match model_type(text) {
                    Some(own) => {
                        let added = format!("{root}/{key}/{own}");
                        types.extend([own, added]);
                    }
                    None => types.push(format!("{root}/{key}")),
                }
            }
        }
    }
    let mut defaults = Map::new();
    let alone = types.len() == 1;
    for name in types {
        let row = CLASS_DEFAULTS.lines().find_map(|line| {
            let (own, rest) = line.split_once('\t')?;
            let (values, aliases) = rest.split_once('\t')?;
            (own == name).then_some((values, aliases))
        });
        let Some((values, aliases)) = row else {
            continue;
        };
        // The table is part of the program, and a test reads all of it.
        let values: Map<String, Json> = serde_json::from_str(values).unwrap_or_default();
        let aliases: Map<String, Json> = serde_json::from_str(aliases).unwrap_or_default();
        defaults.extend(values);
        for (alias, field) in aliases {
            if fields.contains_key(&alias)
                && let Some(field) = field.as_str()
            {
                defaults.remove(field);
            }
        }
    }
    if alone {
        // A model that does not say how deep it is is damaged; only a part of one may leave it out.
        for field in LAYERS {
            defaults.remove(field);
        }
    }
    defaults
}
