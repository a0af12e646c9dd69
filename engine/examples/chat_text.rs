//! What a chat template makes of conversations, for comparisons with other programs.
//!
//! `chat_text TEMPLATE.jinja` reads a JSON array of conversations (arrays of `[role, content]`) from
//! stdin and prints a JSON array of objects with `text` or `error`. `<s>` and `</s>` stand for the
//! tokens that begin and end.

use std::error::Error;
use std::io::Read;

use gristmill_engine::tokenizer::{ChatTemplate, Message};
use serde_json::json;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("no template named")?;
    let template = ChatTemplate::new(&std::fs::read_to_string(path)?, "<s>".into(), "</s>".into());
    let mut conversations = String::new();
    std::io::stdin().read_to_string(&mut conversations)?;
    let conversations: Vec<Vec<(String, String)>> = serde_json::from_str(&conversations)?;
    let results = conversations.into_iter().map(|conversation| {
        let messages: Vec<Message> = conversation
            .into_iter()
            .map(|(role, content)| Message::new(role, content))
            .collect();
        let text = match &template {
            Ok(template) => template.render(&messages, true).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match text {
            Ok(text) => json!({ "text": text }),
            Err(error) => json!({ "error": error }),
        }
    });
    println!("{}", serde_json::Value::Array(results.collect()));
    Ok(())
}
