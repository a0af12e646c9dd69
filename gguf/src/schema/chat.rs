//! Chat templates: what their two readers (the converter that checks them, the engine that renders
//! them) have to agree on.

/// The metadata key of the default template; those that have names follow after a dot.
pub const TEMPLATE: &str = "tokenizer.chat_template";

/// The template with transformers' own block, which marks spans for training only, as one that every
/// Jinja knows and that writes what stands in it.
pub fn without_training_marks(source: &str) -> String {
    let mut out = source.to_owned();
    for (name, plain) in [("generation", "if true"), ("endgeneration", "endif")] {
        for (open, close) in [("{%", "%}"), ("{%-", "%}"), ("{%", "-%}"), ("{%-", "-%}")] {
            let block = format!("{open} {name} {close}");
            out = out.replace(&block, &format!("{open} {plain} {close}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_keep_their_white_space() {
        assert_eq!(
            without_training_marks("a {%- generation -%} b {% endgeneration %}\ngeneration"),
            "a {%- if true -%} b {% endif %}\ngeneration"
        );
    }
}
