//! Standard tensor names.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

const TABLE: &str = include_str!("tensors.tsv");

/// The tensors that an architecture may have.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Names without `.weight` or `.bias`, with `{}` for the number of the layer.
    pub stems: HashSet<&'static str>,
    /// Whether there are no others.
    pub complete: bool,
}

impl Known {
    fn parse(row: &'static str, groups: &HashMap<&'static str, Self>) -> Self {
        let mut known = Self {
            complete: true,
            ..Self::default()
        };
        for word in row.split_whitespace() {
            match groups.get(word) {
                Some(group) => known.stems.extend(&group.stems),
                None if word == "..." => known.complete = false,
                None => {
                    known.stems.insert(word);
                }
            }
        }
        known
    }
}

static ARCHITECTURES: LazyLock<HashMap<&'static str, Known>> = LazyLock::new(|| {
    let mut rows: HashMap<&'static str, Known> = HashMap::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, row)) = line.split_once('\t') {
            let known = Known::parse(row, &rows);
            rows.insert(name, known);
        }
    }
    rows.retain(|name, _| !name.starts_with('@'));
    rows
});

/// The tensors that an architecture may have; `None` for an unknown architecture.
pub fn known(architecture: &str) -> Option<&'static Known> {
    ARCHITECTURES.get(architecture)
}

/// The names of all known text architectures, sorted.
pub fn architectures() -> Vec<&'static str> {
    let mut names: Vec<_> = ARCHITECTURES.keys().copied().collect();
    names.sort_unstable();
    names
}

/// A tensor's name taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name<'a> {
    /// The name with `{}` for the layer, without the suffix.
    pub stem: String,
    /// The number of the layer (`blk.3.…`).
    pub layer: Option<u32>,
    /// What follows the last dot where it is `weight`, `bias` or a scale, else nothing.
    pub suffix: &'a str,
}

/// Takes a tensor's name apart: `blk.3.attn_q.weight` is stem `blk.{}.attn_q`, layer 3, `weight`.
pub fn parse(name: &str) -> Name<'_> {
    let (rest, suffix) = match name.rsplit_once('.') {
        Some((rest, suffix)) if matches!(suffix, "weight" | "bias" | "scale" | "input_scale") => {
            (rest, suffix)
        }
        _ => (name, ""),
    };
    let mut layer = None;
    let stem: Vec<&str> = rest
        .split('.')
        .map(|segment| match (layer, segment.parse()) {
            (None, Ok(number)) => {
                layer = Some(number);
                "{}"
            }
            _ => segment,
        })
        .collect();
    Name {
        stem: stem.join("."),
        layer,
        suffix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name = parse("blk.12.attn_q.weight");
        assert_eq!(
            (name.stem.as_str(), name.layer),
            ("blk.{}.attn_q", Some(12))
        );
        assert_eq!(name.suffix, "weight");
        assert_eq!(parse("output").stem, "output");
    }

    #[test]
    fn groups_are_expanded() {
        let llama = known("llama").unwrap();
        assert!(llama.complete && llama.stems.contains("blk.{}.ffn_gate_exps"));
        assert!(llama.stems.iter().all(|stem| !stem.starts_with('@')));
        assert!(architectures().len() > 140);
    }
}
