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

/// Letters of an expression or statement, without spaces and texts: published templates have at
/// most a few hundred. Their parser recurses, and would run out of stack on very long ones.
const LONGEST: usize = 2000;

/// The line of the first expression or statement that is too long to be parsed.
pub fn overlong(source: &str) -> Option<usize> {
    let mut at = 0;
    let rest = |at: usize| source.get(at..).unwrap_or_default();
    let line = |at: usize| 1 + source[..at].matches('\n').count();
    // To behind the next of a text, or the end.
    let behind = |at: usize, text: &str| {
        rest(at)
            .find(text)
            .map_or(source.len(), |found| at + found + text.len())
    };
    while let Some(open) = rest(at).find('{').map(|found| at + found) {
        at = match rest(open).as_bytes() {
            [_, b'#', ..] => behind(open, "#}"),
            [_, b'%', tag @ ..] if begins(tag, b"raw") => {
                let mut end = open;
                while end < source.len() && !begins(&source.as_bytes()[end..], b"endraw") {
                    end = behind(end, "{%");
                }
                end
            }
            [_, b'%' | b'{', ..] => match end_of(rest(open + 2)) {
                Some(length) => open + 2 + length,
                None => return Some(line(open)),
            },
            _ => open + 1,
        };
    }
    None
}

/// Whether what stands behind a tag's opening begins with this word.
fn begins(tag: &[u8], word: &[u8]) -> bool {
    let marked = tag.strip_prefix(b"-").or_else(|| tag.strip_prefix(b"+"));
    marked.unwrap_or(tag).trim_ascii_start().starts_with(word)
}

/// Bytes up to the end of a tag; `None` if it is too long.
fn end_of(tag: &str) -> Option<usize> {
    let (mut letters, mut braces) = (0, 0);
    let mut quote = None;
    let mut bytes = tag.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        if let Some(end) = quote {
            match byte {
                b'\\' => drop(bytes.next()),
                byte if byte == end => quote = None,
                _ => {}
            }
            continue;
        }
        let closes = bytes.peek().is_some_and(|(_, next)| *next == b'}');
        match byte {
            b'\'' | b'"' => quote = Some(byte),
            b'%' | b'}' if braces == 0 && closes => return Some(at + 2),
            b'{' => braces += 1,
            b'}' => braces -= 1,
            _ => {}
        }
        letters += usize::from(!byte.is_ascii_whitespace());
        if letters > LONGEST {
            return None;
        }
    }
    Some(tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_expressions_are_found() {
        let deep = format!("a\n{{{{ b{} }}}}", ".c".repeat(1500));
        assert_eq!(overlong(&deep), Some(2));
        let hidden = format!("{{% raw %}} endraw {{{{ ' {{%- endraw %}}{deep}");
        assert_eq!(overlong(&hidden), Some(2));
        let hidden = format!("{{# ' #}}{{{{ {{'a': {{}}}} }}}}{deep}");
        assert_eq!(overlong(&hidden), Some(2));
        let text = format!(
            "{{{{ \"{}\\\" }}}}\" }}}}{{% if a %}}b{{% endif %}}",
            "long ".repeat(1500)
        );
        assert_eq!(overlong(&text), None);
        assert_eq!(overlong("{{ é %} { } {"), None);
    }

    #[test]
    fn marks_keep_their_white_space() {
        assert_eq!(
            without_training_marks("a {%- generation -%} b {% endgeneration %}\ngeneration"),
            "a {%- if true -%} b {% endif %}\ngeneration"
        );
    }
}
