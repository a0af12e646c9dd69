//! Chat templates: Jinja programs that turn messages into the text a model was trained on.

use gristmill_gguf::Metadata;
use gristmill_gguf::schema::chat;
use minijinja::value::{Kwargs, Value as Jinja};
use minijinja::{Environment, ErrorKind, context};

use super::Tokenizer;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self {
            role: role.into(),
            content: content.into(),
        }
    }
}

/// Why a template gives no text.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The file holds no template, or none of that name.
    #[error("the model has no chat template{}", name.as_ref().map_or(String::new(), |name| format!(" named `{name}`")))]
    Missing {
        /// The name asked for.
        name: Option<String>,
    },
    /// The template is no valid program.
    #[error("the chat template does not parse, line {line}: {reason}")]
    Parse {
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// The template refused these messages, or failed on them.
    #[error("the chat template: {0}")]
    Render(String),
}

/// A parsed template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

const NAME: &str = "chat";

/// The templates that a file holds.
pub(super) fn stored(metadata: &Metadata) -> Vec<(Option<String>, String)> {
    metadata
        .iter()
        .filter_map(|(key, value)| {
            let rest = std::str::from_utf8(key)
                .ok()?
                .strip_prefix(chat::TEMPLATE)?;
            let source = value.as_str()?.to_owned();
            match rest.strip_prefix('.') {
                Some(name) => Some((Some(name.to_owned()), source)),
                None if rest.is_empty() => Some((None, source)),
                None => None,
            }
        })
        .collect()
}

impl Tokenizer {
    /// The chat template of this name, or the default one.
    ///
    /// # Errors
    /// If there is none, or it does not parse.
    pub fn chat_template(&self, name: Option<&str>) -> Result<ChatTemplate, ChatError> {
        let (_, source) = self
            .templates
            .iter()
            .find(|(known, _)| known.as_deref() == name)
            .ok_or_else(|| ChatError::Missing {
                name: name.map(str::to_owned),
            })?;
        let text = |id: Option<u32>| {
            id.map_or(String::new(), |id| {
                String::from_utf8_lossy(self.vocabulary.text(id)).into_owned()
            })
        };
        ChatTemplate::new(source, text(self.special.bos), text(self.special.eos))
    }
}

impl ChatTemplate {
    /// Parses a template; `bos` and `eos` are the texts it knows as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// If it does not parse.
    pub fn new(source: &str, bos: String, eos: String) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        // Settings and functions of transformers' `apply_chat_template`.
        let syntax = minijinja::syntax::SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
            .map_err(|error| parse_error(&error))?;
        environment.set_syntax(syntax);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| {
            Err::<Jinja, _>(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| strftime(&format));
        environment.add_filter("tojson", to_json);
        // As in Python, where nothing can be said to go through None: `tools is iterable and tools|length`.
        environment.add_test("iterable", |value: &Jinja| {
            value.as_str().is_some() || !value.is_none() && value.try_iter().is_ok()
        });
        if let Some(line) = chat::overlong(source) {
            let reason = "an expression is too long".to_owned();
            return Err(ChatError::Parse { line, reason });
        }
        environment
            .add_template_owned(NAME, chat::without_training_marks(source))
            .map_err(|error| parse_error(&error))?;
        Ok(Self {
            environment,
            bos,
            eos,
        })
    }

    /// The text of a conversation; with `add_generation_prompt` up to where the answer begins.
    ///
    /// # Errors
    /// If the template refuses the messages (`raise_exception`) or fails on them.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ChatError> {
        let messages: Vec<Jinja> = messages
            .iter()
            .map(|message| context! { role => &message.role, content => &message.content })
            .collect();
        self.environment
            .get_template(NAME)
            .and_then(|template| {
                template.render(context! {
                    messages,
                    add_generation_prompt,
                    // Transformers defines these two in any case.
                    tools => (),
                    documents => (),
                    bos_token => &self.bos,
                    eos_token => &self.eos,
                })
            })
            .map_err(|error| {
                let line = error
                    .line()
                    .map_or(String::new(), |line| format!("line {line}: "));
                let what = error
                    .detail()
                    .map_or_else(|| error.kind().to_string(), str::to_owned);
                ChatError::Render(format!("{line}{what}"))
            })
    }
}

fn parse_error(error: &minijinja::Error) -> ChatError {
    ChatError::Parse {
        line: error.line().unwrap_or(1),
        reason: error
            .detail()
            .map_or_else(|| error.kind().to_string(), str::to_owned),
    }
}

/// JSON as Python's `json.dumps(ensure_ascii=False)` writes it.
fn to_json(value: &Jinja, options: Kwargs) -> Result<Jinja, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut out = String::new();
    write_json(value, indent, 0, &mut out)?;
    Ok(Jinja::from_safe_string(out))
}

fn write_json(
    value: &Jinja,
    indent: Option<usize>,
    depth: usize,
    out: &mut String,
) -> Result<(), minijinja::Error> {
    use minijinja::value::ValueKind;
    let line = |depth: usize, out: &mut String| {
        if let Some(indent) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    };
    let separator = if indent.is_some() { "," } else { ", " };
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            let mut empty = true;
            for item in value.try_iter()? {
                if !std::mem::take(&mut empty) {
                    out.push_str(separator);
                }
                line(depth + 1, out);
                write_json(&item, indent, depth + 1, out)?;
            }
            if !empty {
                line(depth, out);
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            let mut empty = true;
            for key in value.try_iter()? {
                if !std::mem::take(&mut empty) {
                    out.push_str(separator);
                }
                line(depth + 1, out);
                quote(&key.to_string(), out);
                out.push_str(": ");
                write_json(&value.get_item(&key)?, indent, depth + 1, out)?;
            }
            if !empty {
                line(depth, out);
            }
            out.push('}');
        }
        _ => quote(&value.to_string(), out),
    }
    Ok(())
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Today's date in the few formats that templates ask for (UTC).
fn strftime(format: &str) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = [
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
    ];
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let days = seconds / 86400;
    let (year, month, day) = civil(days);
    let (name, weekday) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out += &year.to_string(),
            Some('y') => out += &format!("{:02}", year % 100),
            Some('m') => out += &format!("{month:02}"),
            Some('d') => out += &format!("{day:02}"),
            Some('B') => out += name,
            Some('b') => out += &name[..3],
            Some('A') => out += weekday,
            Some('a') => out += &weekday[..3],
            Some('H') => out += &format!("{:02}", seconds / 3600 % 24),
            Some('M') => out += &format!("{:02}", seconds / 60 % 60),
            Some('S') => out += &format!("{:02}", seconds % 60),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

/// Year, month and day of a number of days since 1970-01-01. Method: Howard Hinnant,
/// "chrono-compatible low-level date algorithms".
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, ChatError> {
        let template = ChatTemplate::new(source, "<s>".into(), "</s>".into())?;
        template.render(&[Message::new("user", "é \"x\"")], true)
    }

    #[test]
    fn templates_of_the_common_style_render() {
        let text = render(
            "{{ bos_token }}{%- for m in messages %}\n  {{ m['role'].upper() + ': ' + m.content.strip() }}{% endfor %}\n{% if add_generation_prompt %}A:{% endif %}",
        );
        assert_eq!(text.unwrap(), "<s>  USER: é \"x\"A:");
        assert_eq!(
            render("{{ tools is iterable and tools | length > 0 }}").unwrap(),
            "False"
        );
        assert_eq!(
            render("{{ messages | tojson }}").unwrap(),
            r#"[{"role": "user", "content": "é \"x\""}]"#
        );
    }

    #[test]
    fn failures_name_their_line() {
        let error = render("\n\n{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the chat template: line 3: roles must alternate"
        );
        assert!(matches!(
            render("a\n{% if %}").unwrap_err(),
            ChatError::Parse { line: 2, .. }
        ));
    }

    #[test]
    fn dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(strftime("%d").len(), 2);
    }
}
