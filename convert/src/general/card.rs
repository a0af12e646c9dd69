//! The front matter of a model card (README.md).

use serde_json::{Map, Value as Json};
use yaml_rust2::Yaml;
use yaml_rust2::parser::{Event, EventReceiver, Parser};
use yaml_rust2::scanner::TScalarStyle;

/// Reads the YAML between the first two lines `---`: an empty object if there is none.
///
/// # Errors
/// The YAML parser's, with line and column.
pub(super) fn front_matter(readme: &str) -> Result<Map<String, Json>, String> {
    let mut lines = readme.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Ok(Map::new());
    }
    let mut yaml = String::new();
    for line in lines {
        if line.trim_end() == "---" {
            return parse(&yaml);
        }
        // Norwegian is no boolean, and tabs are no indentation.
        if line.trim_end() == "- no" {
            yaml.push_str("- \"no\"");
        } else {
            yaml.push_str(&line.replace('\t', "  "));
        }
        yaml.push('\n');
    }
    Ok(Map::new())
}

fn parse(yaml: &str) -> Result<Map<String, Json>, String> {
    let mut builder = Builder::default();
    Parser::new_from_str(yaml)
        .load(&mut builder, false)
        .map_err(|error| error.to_string())?;
    match builder.root {
        Some(Json::Object(fields)) => Ok(fields),
        None | Some(Json::Null) => Ok(Map::new()),
        Some(_) => Err("the front matter is no mapping".into()),
    }
}

/// Builds a JSON value from events. Aliases become `null`: a card has none, and expanding them
/// would let a small file fill the memory.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Json>,
}

enum Open {
    List(Vec<Json>),
    Object(Map<String, Json>, Option<String>),
}

impl Builder {
    fn value(&mut self, value: Json) {
        match self.open.last_mut() {
            Some(Open::List(items)) => items.push(value),
            Some(Open::Object(fields, key)) => match key.take() {
                Some(key) => {
                    fields.insert(key, value);
                }
                None => *key = Some(as_text(&value).unwrap_or_default()),
            },
            None => self.root = Some(value),
        }
    }
}

impl EventReceiver for Builder {
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Scalar(text, style, _, _) => {
                let value = match style {
                    TScalarStyle::Plain => scalar(&text),
                    _ => Json::String(text),
                };
                self.value(value);
            }
            Event::Alias(_) => self.value(Json::Null),
            Event::SequenceStart(..) => self.open.push(Open::List(Vec::new())),
            Event::MappingStart(..) => self.open.push(Open::Object(Map::new(), None)),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(items)) => self.value(Json::Array(items)),
                Some(Open::Object(fields, _)) => self.value(Json::Object(fields)),
                None => {}
            },
            _ => {}
        }
    }
}

fn scalar(text: &str) -> Json {
    match Yaml::from_str(text) {
        Yaml::Integer(value) => value.into(),
        // Keeps the spelling: `1.0` is a version, not the number 1.
        Yaml::Real(text) => Json::String(text),
        Yaml::Boolean(value) => value.into(),
        Yaml::Null => Json::Null,
        _ => Json::String(text.to_owned()),
    }
}

/// A scalar as text.
pub(super) fn as_text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(value) => Some(if *value { "True" } else { "False" }.into()),
        _ => None,
    }
}

/// A scalar or a list of them as a list of texts.
pub(super) fn as_texts(value: &Json) -> Vec<String> {
    match value {
        Json::Array(items) => items.iter().filter_map(as_text).collect(),
        other => as_text(other).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_cards_hold() {
        let card = front_matter(
            "---\nlicense: mit\nlanguage:\n- en\n- no\nversion: 1.0\nbase_model:\n  - name: X\n\
             tags: [a, b]\n---\n# Title\n",
        )
        .unwrap();
        assert_eq!(card["license"], "mit");
        assert_eq!(as_texts(&card["language"]), ["en", "no"]);
        assert_eq!(card["version"], "1.0");
        assert_eq!(card["base_model"][0]["name"], "X");
        assert_eq!(as_texts(&card["tags"]), ["a", "b"]);
        assert!(front_matter("# no card").unwrap().is_empty());
        assert!(front_matter("---\na: [\n---\n").is_err());
    }

    #[test]
    fn aliases_are_not_expanded() {
        let mut yaml = String::from("---\na: &a [x, x]\n");
        for n in 0..40 {
            let before = if n == 0 {
                "a".into()
            } else {
                format!("a{}", n - 1)
            };
            yaml += &format!("a{n}: &a{n} [*{before}, *{before}]\n");
        }
        assert_eq!(front_matter(&(yaml + "---\n")).unwrap().len(), 41);
    }
}
