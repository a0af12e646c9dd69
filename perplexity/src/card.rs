//! The model card of a release: `README.md` beside the files.

use std::fmt::Write as _;

use gristmill_gguf::Metadata;

use crate::report::{Report, Variant};

/// What the card says of the model itself, from the base file's metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    name: String,
    license: Option<String>,
    license_name: Option<String>,
    license_link: Option<String>,
    repository: Option<String>,
    languages: Vec<String>,
    tags: Vec<String>,
}

impl Origin {
    /// Reads the `general.*` keys; `fallback` names a model without `general.name`.
    pub fn new(metadata: &Metadata, fallback: &str) -> Self {
        let text = |key: &str| {
            metadata
                .str(key)
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let list = |key: &str| {
            let strings = metadata
                .array(key)
                .and_then(|array| array.as_strings())
                .unwrap_or_default();
            strings.iter().map(ToString::to_string).collect()
        };
        Self {
            name: text("general.name").unwrap_or_else(|| fallback.to_owned()),
            license: text("general.license"),
            license_name: text("general.license.name"),
            license_link: text("general.license.link"),
            repository: text("general.source.huggingface.repository")
                .or_else(|| text("general.base_model.0.repo_url"))
                .or_else(|| text("general.repo_url")),
            languages: list("general.languages"),
            tags: list("general.tags"),
        }
    }
}

/// The card as Markdown with the front matter that model hubs read.
pub fn render(origin: &Origin, report: &Report) -> String {
    let mut card = String::new();
    front_matter(&mut card, origin);
    // Writing to a string cannot fail.
    let _ = writeln!(card, "# {} in GGUF\n", origin.name);
    let _ = writeln!(
        card,
        "Every file was measured on `{}` ({} chunks of {} tokens) against the unquantized `{}` \
         (perplexity {:.4} ± {:.4}). KL is the mean Kullback-Leibler divergence of the variant's \
         next-token distribution from the base's, in nats; *same top* is how often both agree on the \
         most probable token.\n",
        report.text.file,
        report.text.chunks,
        report.text.context,
        report.base.file,
        report.base.perplexity,
        report.base.perplexity_error,
    );
    card.push_str("| file | type | size | bits/weight | KL | same top | perplexity | prompt t/s | generation t/s |\n");
    card.push_str("|---|---|---:|---:|---:|---:|---:|---:|---:|\n");
    for variant in &report.variants {
        row(&mut card, variant);
    }
    if let Some(first) = report.variants.first() {
        let arithmetic = if first.measured.exact {
            "with `f32` activations on the decoded weights: the damage of the weights alone"
        } else {
            "as the engine runs the files, with 8-bit activations"
        };
        let _ = writeln!(
            card,
            "\nMeasured {arithmetic}. Speeds are those of the machine that made the release."
        );
    }
    card.push_str("\n## Made and measured with\n\n```sh\n");
    for command in &report.commands {
        let _ = writeln!(card, "{command}");
    }
    card.push_str("```\n\nThe same figures, and more of them, are in `report.json`. SHA-256 of the files:\n\n```text\n");
    for variant in &report.variants {
        let _ = writeln!(card, "{}  {}", variant.sha256, variant.file);
    }
    card.push_str("```\n");
    card
}

fn front_matter(card: &mut String, origin: &Origin) {
    card.push_str("---\n");
    let fields = [
        ("license", &origin.license),
        ("license_name", &origin.license_name),
        ("license_link", &origin.license_link),
        ("base_model", &origin.repository),
    ];
    for (key, value) in fields {
        if let Some(value) = value {
            let value = match key {
                "base_model" => value
                    .strip_prefix("https://huggingface.co/")
                    .unwrap_or(value),
                _ => value,
            };
            let _ = writeln!(card, "{key}: {}", quoted(value));
        }
    }
    let list = |card: &mut String, key: &str, values: &[String]| {
        if !values.is_empty() {
            let _ = writeln!(card, "{key}:");
            for value in values {
                let _ = writeln!(card, "- {}", quoted(value));
            }
        }
    };
    list(card, "language", &origin.languages);
    let mut tags = vec!["gguf".to_owned()];
    tags.extend(origin.tags.iter().filter(|tag| *tag != "gguf").cloned());
    list(card, "tags", &tags);
    card.push_str("---\n\n");
}

/// A YAML scalar; quoted unless it is plainly a word.
fn quoted(text: &str) -> String {
    let plain = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    // A bare `no` or a number would change its type.
    let word = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
    let keyword =
        ["true", "false", "yes", "no", "on", "off", "null"].contains(&text.to_lowercase().as_str());
    if plain && word && !keyword {
        return text.to_owned();
    }
    format!(
        "\"{}\"",
        text.replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', " ")
    )
}

fn row(card: &mut String, variant: &Variant) {
    let measured = &variant.measured;
    let speed =
        |speed: Option<f64>| speed.map_or_else(|| "–".to_owned(), |speed| format!("{speed:.1}"));
    let against = |f: &dyn Fn(&crate::report::DivergenceReport) -> String| {
        measured.against.as_ref().map_or_else(|| "–".to_owned(), f)
    };
    let _ = writeln!(
        card,
        "| [{file}]({file}) | {} | {:.3} GiB | {:.2} | {} | {} | {:.4} ± {:.4} | {} | {} |",
        variant.ty,
        variant.size_bytes as f64 / (1u64 << 30) as f64,
        variant.bits_per_weight,
        against(&|d| format!("{:.6} ± {:.6}", d.kl_mean, d.kl_error)),
        against(&|d| format!("{:.2} %", 100.0 * d.same_top)),
        measured.perplexity,
        measured.perplexity_error,
        speed(variant.prompt_tokens_per_second),
        speed(variant.generation_tokens_per_second),
        file = variant.file,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Base, PerplexityReport, Text};

    #[test]
    fn quotes_what_yaml_would_misread() {
        assert_eq!(quoted("apache-2.0"), "apache-2.0");
        assert_eq!(quoted("no"), "\"no\"");
        assert_eq!(quoted("2.0"), "\"2.0\"");
        assert_eq!(quoted("a: \"b\""), "\"a: \\\"b\\\"\"");
    }

    #[test]
    fn names_every_file_and_command() {
        let origin = Origin::new(&[("general.license", "mit")].into_iter().collect(), "toy");
        let report = Report {
            base: Base {
                file: "toy-F16.gguf".into(),
                size_bytes: 1,
                sha256: "aa".into(),
                perplexity: 7.0,
                perplexity_error: 0.1,
            },
            text: Text {
                file: "t.txt".into(),
                sha256: "bb".into(),
                chunks: 3,
                context: 512,
            },
            commands: vec!["grist release toy".into()],
            variants: vec![Variant {
                ty: "Q4_0".into(),
                file: "toy-Q4_0.gguf".into(),
                size_bytes: 1 << 29,
                bits_per_weight: 4.5,
                sha256: "cc".into(),
                effort: Some("best".into()),
                imatrix: None,
                measured: PerplexityReport {
                    exact: false,
                    perplexity: 7.1,
                    perplexity_error: 0.1,
                    tokens: 10,
                    chunks: 3,
                    context: 512,
                    seconds: 1.0,
                    against: None,
                },
                prompt_tokens_per_second: Some(100.0),
                generation_tokens_per_second: None,
            }],
        };
        let card = render(&origin, &report);
        for part in [
            "license: mit",
            "# toy in GGUF",
            "toy-Q4_0.gguf",
            "0.500 GiB",
            "cc  toy",
            "grist release toy",
        ] {
            assert!(card.contains(part), "{part} is missing in\n{card}");
        }
    }
}
