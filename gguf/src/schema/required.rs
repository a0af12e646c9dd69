//! What a model of each architecture must have.

use std::collections::HashMap;
use std::sync::LazyLock;

const TABLE: &str = include_str!("required.tsv");

/// What a model of an architecture must have.
#[derive(Debug, Clone, Default)]
pub struct Required {
    /// Keys, without the architecture before them.
    pub keys: Vec<&'static str>,
    /// Tensors, without `.weight`; of each inner list one is enough. `{}` stands for every layer.
    pub tensors: Vec<Vec<&'static str>>,
}

static ARCHITECTURES: LazyLock<HashMap<&'static str, Required>> = LazyLock::new(|| {
    let mut groups: HashMap<&str, &str> = HashMap::new();
    let mut rows = HashMap::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let words = |text: &'static str| -> Vec<&'static str> {
            text.split(' ')
                .flat_map(|word| groups.get(word).map_or(word, |group| group).split(' '))
                .collect()
        };
        match fields[..] {
            [name, group] => {
                groups.insert(name, group);
            }
            [name, keys, tensors] => {
                let alternatives = words(tensors).into_iter();
                let required = Required {
                    keys: words(keys),
                    tensors: alternatives.map(|word| word.split('|').collect()).collect(),
                };
                rows.insert(name, required);
            }
            _ => {}
        }
    }
    rows
});

/// What a model of the architecture must have; `None` where that is not known.
pub fn required(architecture: &str) -> Option<&'static Required> {
    ARCHITECTURES.get(architecture)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{keys, tensors};

    #[test]
    fn rows_name_known_keys_and_tensors() {
        assert!(ARCHITECTURES.len() > 60);
        for (name, required) in ARCHITECTURES.iter() {
            for key in &required.keys {
                let key = keys::of(name, key);
                assert!(
                    keys::type_of(key.as_str().into(), Some(name)).is_some(),
                    "{key}"
                );
            }
            let known = tensors::known(name).unwrap();
            for alternatives in &required.tensors {
                let any = alternatives.iter().any(|stem| known.stems.contains(stem));
                assert!(any, "{name}: {alternatives:?}");
            }
        }
    }
}
