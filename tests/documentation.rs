//! What the documents say holds for the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Words between two marks that look like a code: `key-missing`.
fn codes(text: &str, mark: char) -> BTreeSet<String> {
    let is_code = |word: &&str| {
        word.contains('-')
            && !word.starts_with('-')
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    };
    // A mark never stands inside a code, so that every piece between two of them can be tried.
    let pieces = text.split(mark).filter(is_code);
    pieces.map(str::to_owned).collect()
}

#[test]
fn every_code_of_a_finding_is_explained() {
    let check = ["mod", "structure", "model", "vocabulary", "data"];
    let mut found: BTreeSet<String> = check
        .iter()
        .flat_map(|file| codes(&read(&format!("gguf/src/check/{file}.rs")), '"'))
        .collect();
    found.extend(codes(&read("quantize/src/verify.rs"), '"'));
    for file in ["gguf/src/error.rs", "gguf/src/split.rs"] {
        let text = read(file);
        let arms = text
            .lines()
            .filter(|line| line.contains("} => \"") || line.contains(" => \""));
        found.extend(arms.flat_map(|line| codes(line, '"')));
    }
    let explained: BTreeSet<String> = read("docs/checks.md")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| codes(cell, '`'))
        .collect();
    assert!(found.len() > 60, "only {} codes were found", found.len());
    assert_eq!(found, explained);
}
