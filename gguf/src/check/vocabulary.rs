//! The tokenizer's lists and the ids that point into them.

use std::collections::HashMap;

use bstr::BString;

use super::Findings;
use super::Severity::{Error, Warning};
use crate::error::{Shown, Subject};
use crate::metadata::Metadata;
use crate::value::Array;

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
/// Lists with an entry for each token.
const PARALLEL: [&str; 2] = ["tokenizer.ggml.token_type", "tokenizer.ggml.scores"];

/// Checks the vocabulary; a model without one says `no_vocab`.
pub(super) fn check_vocabulary(metadata: &Metadata, findings: &mut Findings<'_>) {
    let key = |name: &str| Subject::Key(name.into());
    let Some(model) = metadata.str(MODEL) else {
        findings
            .add(Error, "vocab-missing", key(MODEL), None, "missing")
            .refused();
        return;
    };
    if model == "no_vocab" || model == "none" {
        return;
    }
    let Some(tokens) = metadata.array(TOKENS).and_then(Array::as_strings) else {
        findings
            .add(Error, "vocab-missing", key(TOKENS), None, "missing")
            .refused();
        return;
    };
    for name in PARALLEL {
        if let Some(list) = metadata.array(name)
            && list.len() != tokens.len()
        {
            let message = format!("{} entries for {} tokens", list.len(), tokens.len());
            let short = list.len() < tokens.len();
            let severity = if short { Error } else { Warning };
            findings
                .add(severity, "vocab-length", key(name), None, message)
                .llama_cpp_refuses = short;
        }
    }
    check_duplicates(tokens, findings);
    if model == "gpt2" {
        check_merges(metadata, findings);
    }
    for (name, value) in metadata.iter() {
        let id = name.starts_with(b"tokenizer.ggml.") && name.ends_with(b"_token_id");
        if let (true, Some(id)) = (id, value.as_u64())
            && id >= tokens.len() as u64
        {
            let message = format!("{id}, but there are {} tokens", tokens.len());
            let subject = Subject::Key(name.to_owned());
            findings.add(Warning, "vocab-id", subject, None, message);
        }
    }
}

fn check_duplicates(tokens: &[BString], findings: &mut Findings<'_>) {
    let mut seen = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        // Empty texts are told apart by their ids when a vocabulary is loaded.
        if let (false, Some(first)) = (token.is_empty(), seen.insert(token, id)) {
            let message = format!(
                "tokens {first} and {id} have the same text `{}`",
                Shown(token)
            );
            findings
                .add(
                    Error,
                    "vocab-duplicate",
                    Subject::Key(TOKENS.into()),
                    None,
                    message,
                )
                .refused();
            return;
        }
    }
}

fn check_merges(metadata: &Metadata, findings: &mut Findings<'_>) {
    let subject = Subject::Key(MERGES.into());
    let Some(merges) = metadata.array(MERGES).and_then(Array::as_strings) else {
        findings
            .add(Error, "vocab-merges", subject, None, "missing")
            .refused();
        return;
    };
    // Two tokens with a space between; a token may begin with a space of its own.
    let whole = |merge: &BString| merge.iter().skip(1).any(|&byte| byte == b' ');
    if let Some(at) = merges.iter().position(|merge| !whole(merge)) {
        let message = format!("merge {at}, `{}`, is no pair", Shown(&merges[at]));
        findings.add(Warning, "vocab-merges", subject, None, message);
    }
}
