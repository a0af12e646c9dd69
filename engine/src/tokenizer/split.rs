//! Splitting text into words by a list of regular expressions, applied one after the other.
//!
//! The expressions end in alternatives such as `\s+(?!\S)`, which automata cannot look ahead for.
//! That one means: as many spaces as possible, but none of them may be followed by a letter, so the
//! last of a run before a word is left to the word. An automaton says the same with two patterns:
//! `\s+` up to the end of the text, or `\s+\s` without its last character.

use std::ops::Range;

use gristmill_gguf::schema::pretokenizer::digit_groups;
use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input};

/// Splits text into words.
#[derive(Debug)]
pub(super) struct Splitter {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Matches {
        regex: Regex,
        /// By pattern: whether its last character is not part of the match.
        trims: Vec<bool>,
    },
    /// Runs of digits in groups of three from the right; `bounded` leaves runs alone that a letter
    /// follows.
    DigitGroups { bounded: bool },
}

const LOOKAHEAD: &str = r"(?!\S)";

impl Splitter {
    pub fn new(expressions: &[&str]) -> Result<Self, String> {
        let steps = expressions
            .iter()
            .map(|&expression| Step::new(expression))
            .collect::<Result<_, _>>()?;
        Ok(Self { steps })
    }

    /// The words' places, without gaps and in order.
    pub fn words(&self, text: &str) -> Vec<Range<usize>> {
        let mut words: Vec<_> = (!text.is_empty())
            .then_some(0..text.len())
            .into_iter()
            .collect();
        for step in &self.steps {
            let mut split = Vec::with_capacity(words.len().max(text.len() / 4));
            for word in words {
                let from = word.start;
                step.split(&text[word], |piece| {
                    split.push(from + piece.start..from + piece.end);
                });
            }
            words = split;
        }
        words
    }
}

impl Step {
    fn new(expression: &str) -> Result<Self, String> {
        if expression == digit_groups::BEFORE_BOUNDARY {
            return Ok(Self::DigitGroups { bounded: true });
        }
        if expression == digit_groups::ALL {
            return Ok(Self::DigitGroups { bounded: false });
        }
        let mut patterns: Vec<String> = Vec::new();
        let mut trims = Vec::new();
        let mut joined: Vec<&str> = Vec::new();
        let close = |joined: &mut Vec<&str>, patterns: &mut Vec<String>, trims: &mut Vec<bool>| {
            if !joined.is_empty() {
                patterns.push(joined.join("|"));
                trims.push(false);
                joined.clear();
            }
        };
        for alternative in alternatives(expression) {
            match alternative.strip_suffix(LOOKAHEAD) {
                Some(spaces) => {
                    close(&mut joined, &mut patterns, &mut trims);
                    patterns.extend([format!(r"(?:{spaces})\z"), format!(r"(?:{spaces})\s")]);
                    trims.extend([false, true]);
                }
                None => joined.push(alternative),
            }
        }
        close(&mut joined, &mut patterns, &mut trims);
        let regex = Regex::new_many(&patterns).map_err(|error| format!("{expression}: {error}"))?;
        Ok(Self::Matches { regex, trims })
    }

    /// Matches and what lies between them.
    fn split(&self, text: &str, mut emit: impl FnMut(Range<usize>)) {
        let mut emitted = 0;
        let mut emit_match = |found: Range<usize>| {
            if found.start > emitted {
                emit(emitted..found.start);
            }
            if !found.is_empty() {
                emit(found.clone());
            }
            emitted = found.end;
        };
        match self {
            Self::Matches { regex, trims } => {
                let mut at = 0;
                while let Some((pattern, found)) = find(regex, text, at) {
                    let mut end = found.end;
                    if trims[pattern] {
                        end -= text[..end].chars().next_back().map_or(0, char::len_utf8);
                    }
                    if end == found.start {
                        at = end + text[end..].chars().next().map_or(1, char::len_utf8);
                        if at > text.len() {
                            break;
                        }
                        continue;
                    }
                    emit_match(found.start..end);
                    at = end;
                }
            }
            Self::DigitGroups { bounded } => {
                for run in digit_runs(text) {
                    let bound = text[run.end..]
                        .chars()
                        .next()
                        .is_none_or(|next| !(next.is_alphanumeric() || next == '_'));
                    if !*bounded || bound {
                        groups_of_three(text, run, &mut emit_match);
                    }
                }
            }
        }
        emit_match(text.len()..text.len());
    }
}

/// The next match. Words mostly follow each other without gaps, and an anchored search need not
/// look for where the match began.
fn find(regex: &Regex, text: &str, at: usize) -> Option<(usize, Range<usize>)> {
    if at >= text.len() {
        return None;
    }
    let input = Input::new(text).range(at..);
    let found = regex
        .search(&input.clone().anchored(Anchored::Yes))
        .or_else(|| regex.search(&input))?;
    Some((found.pattern().as_usize(), found.range()))
}

/// The top-level alternatives of a regular expression.
fn alternatives(expression: &str) -> Vec<&str> {
    let (mut depth, mut class, mut escaped, mut from) = (0usize, 0usize, false, 0);
    let mut parts = Vec::new();
    for (at, c) in expression.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match c {
            '\\' => escaped = true,
            '[' => class += 1,
            ']' => class = class.saturating_sub(1),
            '(' if class == 0 => depth += 1,
            ')' if class == 0 => depth = depth.saturating_sub(1),
            '|' if class == 0 && depth == 0 => {
                parts.push(&expression[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&expression[from..]);
    parts
}

fn digit_runs(text: &str) -> impl Iterator<Item = Range<usize>> {
    let mut rest = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (start, _) = rest.find(|(_, c)| c.is_numeric())?;
        while rest.next_if(|(_, c)| c.is_numeric()).is_some() {}
        let end = rest.peek().map_or(text.len(), |&(at, _)| at);
        Some(start..end)
    })
}

fn groups_of_three(text: &str, run: Range<usize>, emit: &mut impl FnMut(Range<usize>)) {
    let starts: Vec<usize> = text[run.clone()]
        .char_indices()
        .map(|(at, _)| run.start + at)
        .collect();
    let first = match starts.len() % 3 {
        0 => 3,
        short => short,
    };
    let mut from = run.start;
    for (at, &start) in starts.iter().enumerate().skip(1) {
        if at >= first && (at - first) % 3 == 0 {
            emit(from..start);
            from = start;
        }
    }
    emit(from..run.end);
}

#[cfg(test)]
mod tests {
    use gristmill_gguf::schema::pretokenizer::{PRE_TOKENIZERS, by_name};

    use super::*;

    fn words<'t>(name: &str, text: &'t str) -> Vec<&'t str> {
        let splitter = Splitter::new(by_name(name).unwrap().splits).unwrap();
        splitter.words(text).into_iter().map(|w| &text[w]).collect()
    }

    #[test]
    fn all_rules_compile_and_cover_the_text() {
        let text = "I've 1234567 café\r\n\n   \t x\u{3000}漢字 \u{301} -- end  ";
        for rule in PRE_TOKENIZERS {
            let splitter = Splitter::new(rule.splits).unwrap();
            let joined: String = splitter.words(text).into_iter().map(|w| &text[w]).collect();
            assert_eq!(joined, text, "{:?}", rule.names);
        }
    }

    #[test]
    fn the_last_space_belongs_to_the_word() {
        assert_eq!(words("gpt-2", "a   b  "), ["a", "  ", " b", "  "]);
        assert_eq!(words("llama-bpe", "a \n b"), ["a", " \n", " b"]);
        let spaces = " ".repeat(21);
        let jais = words("jais-2", &spaces);
        assert_eq!(jais.iter().map(|w| w.len()).collect::<Vec<_>>(), [16, 4, 1]);
        let before_word = format!("{spaces}x");
        let jais: Vec<_> = words("jais-2", &before_word)
            .iter()
            .map(|w| w.len())
            .collect();
        assert_eq!(jais, [16, 4, 2]);
    }

    #[test]
    fn digits_group_from_the_right() {
        assert_eq!(words("tiny_aya", "1234567"), ["1", "234", "567"]);
        assert_eq!(words("tiny_aya", "1234x"), ["123", "4", "x"]);
        assert_eq!(words("afmoe", "12345"), ["12", "345"]);
        assert_eq!(words("gpt-4o", "12345"), ["123", "45"]);
    }
}
