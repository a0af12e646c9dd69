//! Tokenizers beside weights in Mistral's own format, whose keys stand in an order of their own:
//! sentencepiece models, named by their version, and the end of what `tekken.json` becomes.

use gristmill_gguf::Value;

use super::sentencepiece::SentencePiece;
use super::tokens::{Token, TokenList, TokenType, Tokens};
use super::{Error, MODEL, Request, VocabMetadata, template};
use crate::config::MISTRAL_FORMAT;

/// Files of sentencepiece models, the youngest first, with the template that llama.cpp has built in
/// for their version.
const FILES: [(&str, &str); 3] = [
    ("tokenizer.model.v7", "mistral-v7"),
    ("tokenizer.model.v3", "mistral-v3"),
    ("tokenizer.model", "mistral-v1"),
];

/// The metadata of a sentencepiece model, if the model is in Mistral's own format and has one.
pub(super) fn metadata(request: &Request<'_>) -> Result<Option<VocabMetadata>, Error> {
    if request.class != MISTRAL_FORMAT {
        return Ok(None);
    }
    for (file, built_in) in FILES {
        let Some(bytes) = request.files.read(file)? else {
            continue;
        };
        let model = SentencePiece::parse_file(file, &bytes)?;
        let mut list = TokenList::new(file, request.vocab_size);
        for (id, piece) in (0u64..).zip(&model.pieces) {
            // What users type is a word like any other here.
            let kind = match piece.kind {
                TokenType::UserDefined => TokenType::Normal,
                kind => kind,
            };
            list.set(id, Token::new(piece.text.clone(), kind, piece.score))?;
        }
        let tokens = list.finish(None)?;
        let mut out = VocabMetadata::default();
        out.set(MODEL, "llama");
        finish(request, &tokens, tokens.scores(), Some(built_in), &mut out)?;
        return Ok(Some(out));
    }
    Ok(None)
}

/// Special ids, tokens, flags and the chat template: that of the folder, else one that is built in.
pub(super) fn finish(
    request: &Request<'_>,
    tokens: &Tokens,
    scores: Value,
    built_in: Option<&str>,
    out: &mut VocabMetadata,
) -> Result<(), Error> {
    let end = tokens.find("</s>");
    for (role, id) in [
        ("bos", tokens.find("<s>")),
        ("eos", end),
        ("unknown", tokens.find("<unk>")),
        ("padding", tokens.find("<pad>").or(end)),
    ] {
        if let Some(id) = id {
            out.set(format!("tokenizer.ggml.{role}_token_id"), id);
        }
    }
    out.set("tokenizer.ggml.tokens", tokens.texts());
    out.set("tokenizer.ggml.scores", scores);
    out.set("tokenizer.ggml.token_type", tokens.types());
    out.set(
        format!("{}.vocab_size", request.architecture),
        Value::U32(tokens.tokens.len() as u32),
    );
    out.set("tokenizer.ggml.add_bos_token", true);
    out.set("tokenizer.ggml.add_eos_token", false);
    match (
        template::of_folder(request.files, &mut out.warnings)?,
        built_in,
    ) {
        (Some(source), _) => out.set(template::KEY, source),
        (None, Some(name)) => out.set(template::KEY, name),
        (None, None) => out.warnings.push(
            "there is no chat template, and none is known for the tokenizer's version".into(),
        ),
    }
    Ok(())
}
