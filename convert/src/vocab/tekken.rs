//! Mistral's own tokenizer file, `tekken.json`.

use bstr::BString;
use serde_json::Value as Json;

use super::ranks::{self, all_merges, spelled};
use super::tokens::{Token, TokenList, TokenType};
use super::{Error, MERGES, MODEL, PRE, Request, VocabMetadata, mistral, pre_tokenizer, strings};
use crate::checkpoint::CheckpointFiles;

const FILE: &str = "tekken.json";

/// The file.
pub(super) struct Tekken {
    json: Json,
}

impl Tekken {
    pub fn read(files: &CheckpointFiles) -> Result<Option<Self>, Error> {
        Ok(files.json(FILE)?.map(|json| Self { json }))
    }

    /// Its metadata, in the order in which the reference writes it: the merges come first here.
    pub fn metadata(&self, request: &Request<'_>) -> Result<VocabMetadata, Error> {
        let config = &self.json["config"];
        let size = config["default_vocab_size"].as_u64();
        let reserved = config["default_num_special_tokens"]
            .as_u64()
            .unwrap_or(1000);
        let ranked = size.map_or(u64::MAX, |size| size.saturating_sub(reserved));
        let bytes = self.bytes(ranked)?;
        if let Some(rows) = request.embedding_rows
            && reserved.saturating_add(bytes.len() as u64) > rows
        {
            return Err(Error::BeyondEmbedding {
                tokens: usize::try_from(reserved)
                    .map_or(usize::MAX, |n| n.saturating_add(bytes.len())),
                rows,
            });
        }

        let mut list = TokenList::new(FILE, None);
        for rank in 0..reserved.min(1 << 20) {
            let text = self.special(rank);
            list.set(rank, Token::new(text, TokenType::Control, 0.0))?;
        }
        for (rank, token) in (reserved..).zip(&bytes) {
            list.set(rank, Token::new(spelled(token), TokenType::Normal, 0.0))?;
        }
        let tokens = list.finish(request.vocab_size)?;

        let mut out = VocabMetadata::default();
        out.set(MODEL, "gpt2");
        let pre = request.pre.map_or(Ok("tekken"), pre_tokenizer::stated)?;
        out.set(PRE, pre);
        out.set(MERGES, strings(all_merges(&bytes)));
        // Whole numbers in this one case.
        let scores = vec![0i32; tokens.tokens.len()].into();
        // Names of templates that llama.cpp has built in.
        let built_in = match config["version"].as_str() {
            Some("v3") => Some("mistral-v3-tekken"),
            Some("v7") => Some("mistral-v7-tekken"),
            _ => None,
        };
        mistral::finish(request, &tokens, scores, built_in, &mut out)?;
        Ok(out)
    }

    fn special(&self, rank: u64) -> BString {
        let listed = self.json["special_tokens"].as_array();
        let named = listed
            .into_iter()
            .flatten()
            .find(|token| token["rank"].as_u64() == Some(rank))
            .and_then(|token| token["token_str"].as_str());
        // Files older than version 7 list none.
        const FIRST: &[&str] = &[
            "<unk>",
            "<s>",
            "</s>",
            "[INST]",
            "[/INST]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
            "[TOOL_CALLS]",
            "<pad>",
            "[PREFIX]",
            "[MIDDLE]",
            "[SUFFIX]",
        ];
        named
            .or_else(|| FIRST.get(usize::try_from(rank).ok()?).copied())
            .map_or_else(|| format!("<SPECIAL_{rank}>").into(), Into::into)
    }

    /// The ranked byte strings, as many as count.
    fn bytes(&self, count: u64) -> Result<Vec<Vec<u8>>, Error> {
        let listed = self.json["vocab"]
            .as_array()
            .ok_or_else(|| Error::file(FILE, "`vocab` is no list"))?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        listed
            .iter()
            .take(count)
            .enumerate()
            .map(|(at, token)| {
                let bad = |reason: &str| {
                    Error::file(FILE, format!("`vocab[{at}].token_bytes` is {reason}"))
                };
                let bytes = token["token_bytes"].as_str();
                let bytes = bytes.and_then(super::unigram::base64);
                let bytes = bytes.ok_or_else(|| bad("not base64"))?;
                if bytes.is_empty() || bytes.len() > ranks::LONGEST {
                    return Err(bad("no token: it is empty or too long"));
                }
                Ok(bytes)
            })
            .collect()
    }
}
