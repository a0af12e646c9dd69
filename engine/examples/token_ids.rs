//! Token ids of many texts, for comparisons with other tokenizers.
//!
//! `token_ids MODEL.gguf [--no-special] [--no-parse-special]` reads a JSON array of texts in
//! hexadecimal (they need not be UTF-8) from stdin and prints a JSON array of arrays of ids.

use std::error::Error;
use std::io::Read;

use gristmill_engine::Tokenizer;
use gristmill_gguf::{File, Source as _};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asks = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let model = arguments.first().ok_or("no model named")?;
    let mut texts = String::new();
    std::io::stdin().read_to_string(&mut texts)?;
    let texts: Vec<String> = serde_json::from_str(&texts)?;
    let tokenizer = Tokenizer::from_metadata(File::open(model.as_ref())?.metadata())?;
    let ids = texts.iter().map(|text| {
        let text = bytes(text).ok_or("a text is not in hexadecimal")?;
        Ok(tokenizer.encode(text, !asks("--no-special"), !asks("--no-parse-special")))
    });
    let ids = ids.collect::<Result<Vec<_>, &str>>()?;
    println!("{}", serde_json::to_string(&ids)?);
    Ok(())
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    hex.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}
