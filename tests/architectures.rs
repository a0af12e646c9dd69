//! `docs/architectures.md`: what converts and runs, from the tables of both crates.
//!
//! `GRIST_BLESS=1 cargo test --test architectures` writes the page.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use gristmill_convert::architectures::classes;
use gristmill_engine::architecture;

/// A line of `fixtures/architectures.tsv`.
struct Class<'a> {
    name: &'a str,
    architecture: &'a str,
    kind: &'a str,
    rank: &'a str,
    golden: Vec<&'a str>,
}

/// A row of the page, in the order of its fields.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Row<'a> {
    rank: &'a str,
    class: &'a str,
    names: String,
    kind: &'a str,
    converts: bool,
    runs: bool,
    golden: String,
    variants: String,
}

/// Classes of the random variants: how many of them are equal, of how many.
fn variants(text: &str) -> BTreeMap<&str, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (class, counts) = line.split_once('\t')?;
            let (equal, all) = counts.split_once('\t')?;
            Some((class, format!("{equal} of {all}")))
        })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn reference(text: &str) -> Vec<Class<'_>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut fields = line.split('\t');
            let mut next = || fields.next().unwrap_or_default();
            Class {
                name: next(),
                architecture: next(),
                kind: next(),
                rank: next(),
                golden: next().split_whitespace().collect(),
            }
        })
        .collect()
}

fn page(reference: &[Class<'_>], variants: &BTreeMap<&str, String>) -> String {
    let tried = |class: &str| variants.get(class).cloned().unwrap_or_default();
    // Where several rows share a class, its model type decides; both are listed.
    let mut converts: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (class, name) in classes() {
        converts.entry(class).or_default().insert(name);
    }
    let runs = |name: &str| architecture::find(name).is_some();
    let mut rows = Vec::new();
    for class in reference {
        let own = converts.remove(class.name);
        let names: Vec<&str> = match &own {
            Some(names) => names.iter().copied().collect(),
            None => vec![class.architecture],
        };
        rows.push(Row {
            rank: class.rank,
            class: class.name,
            runs: own.is_some() && names.iter().all(|name| runs(name)),
            names: names.join(", "),
            kind: class.kind,
            converts: own.is_some(),
            golden: class.golden.join(", "),
            variants: tried(class.name),
        });
    }
    for (class, names) in converts {
        let names: Vec<&str> = names.into_iter().collect();
        rows.push(Row {
            rank: "-",
            class,
            runs: names.iter().all(|name| runs(name)),
            names: names.join(", "),
            kind: "-",
            converts: true,
            golden: String::new(),
            variants: tried(class),
        });
    }
    rows.sort_unstable();
    let count = |of: fn(&Row) -> bool| rows.iter().filter(|row| of(row)).count();
    let mut out = String::new();
    let _ = writeln!(
        out,
        "# Architectures\n\n\
         Made by `GRIST_BLESS=1 cargo test --test architectures` from the tables of both crates and\n\
         `fixtures/architectures.tsv` (the text models that llama.cpp's converter knows, ranked by how\n\
         much is published: 1 is most). A test holds that it is up to date.\n\n\
         *Converts*: checkpoints of the class become GGUF. *Runs*: the engine has its graph. *Golden*:\n\
         cases whose metadata, tensors and logits are compared with the reference's on every run of the\n\
         tests. *Variants*: random checkpoints whose metadata and tensors equal the reference's, and\n\
         whose logits equal transformers', of those tried (`fixtures/variants`; why the others differ\n\
         stands in its `excuses.py`). A class with neither is built from the same parts and unchecked.\n\n\
         {} classes convert, {} convert and run, {} of them are checked against golden data, {} with\n\
         random variants.\n",
        count(|row| row.converts),
        count(|row| row.runs),
        count(|row| !row.golden.is_empty()),
        count(|row| !row.variants.is_empty()),
    );
    out.push_str("| class | architecture | kind | rank | converts | runs | golden | variants |\n");
    out.push_str("|---|---|---|---|---|---|---|---|\n");
    let mark = |yes: bool| if yes { "yes" } else { "-" };
    fn or_dash(text: &str) -> &str {
        if text.is_empty() { "-" } else { text }
    }
    for row in &rows {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row.class,
            row.names,
            row.kind,
            row.rank,
            mark(row.converts),
            mark(row.runs),
            or_dash(&row.golden),
            or_dash(&row.variants),
        );
    }
    out
}

#[test]
fn the_page_is_up_to_date() {
    let text = std::fs::read_to_string(root().join("fixtures/architectures.tsv")).unwrap();
    let results = std::fs::read_to_string(root().join("fixtures/variants/results.tsv")).unwrap();
    let page = page(&reference(&text), &variants(&results));
    let path = root().join("docs/architectures.md");
    if std::env::var_os("GRIST_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/architectures.md is out of date: GRIST_BLESS=1 cargo test --test architectures"
    );
}

#[test]
fn golden_cases_are_all_listed() {
    let Some(golden) = common::golden("convert") else {
        return;
    };
    let folders = std::fs::read_dir(golden).unwrap();
    let there: BTreeSet<String> = folders
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let text = std::fs::read_to_string(root().join("fixtures/architectures.tsv")).unwrap();
    let reference = reference(&text);
    let listed: BTreeSet<String> = reference
        .iter()
        .flat_map(|class| class.golden.iter().map(|name| (*name).to_owned()))
        .collect();
    assert_eq!(listed, there);
}
