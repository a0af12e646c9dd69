//! RWKV's World vocabulary (`rwkv_vocab_v20230424.txt`): a line for each token, its id, its bytes as
//! a Python literal, and their number. GGUF keeps the literals' spelling, for tokens need not be
//! UTF-8.

use std::str::Chars;

use super::tokens::{NO_SCORE, Token, TokenList, TokenType};
use super::{Error, Request};
use crate::checkpoint::CheckpointFiles;

const FILE: &str = "rwkv_vocab_v20230424.txt";

/// Entries of the vocabulary where the configuration states no number.
const ENTRIES: u64 = 65536;

/// The token that begins and ends a text; the file begins after it.
pub(super) const END_OF_TEXT: u32 = 0;

/// `"\n\n"`, which ends a turn.
pub(super) const END_OF_TURN: u32 = 261;

/// The vocabulary's file.
pub(super) struct World(String);

impl World {
    /// Reads the file; `None` if there is none.
    pub fn read(files: &CheckpointFiles) -> Result<Option<Self>, Error> {
        Ok(files.text(FILE)?.map(Self))
    }

    /// The tokens, and the number of places for them.
    pub fn tokens(&self, request: &Request<'_>) -> Result<(TokenList, u64), Error> {
        let size = request.vocab_size.unwrap_or(ENTRIES);
        let mut list = TokenList::new(FILE, Some(size));
        let end = Token::new("<s>", TokenType::Control, NO_SCORE);
        list.set(u64::from(END_OF_TEXT), end)?;
        for (at, line) in self.0.lines().enumerate() {
            let Some((id, bytes)) = entry(line) else {
                let reason = format!("line {}: expected an id, a literal and its length", at + 1);
                return Err(Error::file(FILE, reason));
            };
            list.set(id, Token::new(spelled(&bytes), TokenType::Normal, NO_SCORE))?;
        }
        Ok((list, size))
    }
}

/// The id and the bytes of a line.
fn entry(line: &str) -> Option<(u64, Vec<u8>)> {
    let (id, rest) = line.trim_end().split_once(' ')?;
    let (literal, length) = rest.rsplit_once(' ')?;
    let bytes = literal_bytes(literal)?;
    (bytes.len() == length.parse::<usize>().ok()?).then_some(())?;
    Some((id.parse().ok()?, bytes))
}

/// The bytes of a Python literal; of a text's, those of its UTF-8.
fn literal_bytes(literal: &str) -> Option<Vec<u8>> {
    let (is_bytes, quoted) = match literal.strip_prefix('b') {
        Some(quoted) => (true, quoted),
        None => (false, literal),
    };
    let quote = quoted.chars().next().filter(|c| ['\'', '"'].contains(c))?;
    let mut inner = quoted.strip_prefix(quote)?.strip_suffix(quote)?.chars();
    let mut out = Vec::with_capacity(literal.len());
    while let Some(c) = inner.next() {
        let code = match c {
            '\\' => escape(&mut inner)?,
            c => u32::from(c),
        };
        if is_bytes {
            out.push(u8::try_from(code).ok()?);
        } else {
            let mut utf8 = [0; 4];
            out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut utf8).as_bytes());
        }
    }
    Some(out)
}

/// What stands after a backslash.
fn escape(rest: &mut Chars<'_>) -> Option<u32> {
    let digits = match rest.next()? {
        'n' => return Some(u32::from('\n')),
        't' => return Some(u32::from('\t')),
        'r' => return Some(u32::from('\r')),
        same @ ('\\' | '\'' | '"') => return Some(u32::from(same)),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    (0..digits).try_fold(0u32, |code, _| Some(code << 4 | rest.next()?.to_digit(16)?))
}

/// Bytes as Python spells them inside a bytes literal.
fn spelled(bytes: &[u8]) -> String {
    let quote = match bytes.contains(&b'\'') && !bytes.contains(&b'"') {
        true => b'"',
        false => b'\'',
    };
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\t' => out.push_str("\\t"),
            b'\r' => out.push_str("\\r"),
            byte if byte == b'\\' || byte == quote => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

/// How World models are prompted, for checkpoints that do not say: roles by name, a blank line
/// between turns, the thoughts of earlier answers left out.
pub(super) const CHAT_TEMPLATE: &str = "\
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message.content is not none -%}
        {%- set text = message.content.split('</think>')[-1] | trim -%}
        {{- message.role | capitalize ~ ': ' ~ text ~ '\n\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt is not defined or add_generation_prompt -%}
    {{- 'Assistant:' -}}
{%- endif -%}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_ids_and_literals() {
        let line = |text: &str| entry(text).map(|(id, bytes)| (id, spelled(&bytes)));
        for (text, id, spelling) in [
            (r"1 '\x00' 1", 1, r"\x00"),
            (r"256 '\n\n' 2", 256, r"\n\n"),
            (r#"40 "'" 1"#, 40, "'"),
            (r#"41 '\'"' 2"#, 41, r#"\'""#),
            (r"93 '\\' 1", 93, r"\\"),
            (r"300 ' a b' 4", 300, " a b"),
            (r"500 b'\xe4\xb8' 2", 500, r"\xe4\xb8"),
            (r"501 '中' 3", 501, r"\xe4\xb8\xad"),
            (r"502 '\u4e2d' 3", 502, r"\xe4\xb8\xad"),
        ] {
            assert_eq!(line(text), Some((id, spelling.to_owned())), "{text}");
        }
        for bad in [
            "",
            "1",
            "1 'a'",
            "1 'a' 2",
            "x 'a' 1",
            "1 a 1",
            "1 b'中' 3",
            r"1 '\q' 1",
        ] {
            assert_eq!(line(bad), None, "{bad}");
        }
    }
}
