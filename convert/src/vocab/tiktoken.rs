//! Files of ranked byte strings (`qwen.tiktoken`, `tiktoken.model`): a line for each token, its
//! bytes in base64 and its rank.

use super::characters::added_tokens_json;
use super::files::TokenizerConfig;
use super::ranks::{merges_below, spelled};
use super::tokens::{Token, TokenList, TokenType, added};
use super::unigram::base64;
use super::{Error, Request};
use crate::checkpoint::CheckpointFiles;

/// Names of such files, with the pre-tokenizer that goes with them.
const FILES: [(&str, &str); 3] = [
    ("tiktoken.model", "kimi-k2"),
    ("qwen.tiktoken", "qwen2"),
    ("hy.tiktoken", "hunyuan"),
];

/// Longest token that is believed.
const LONGEST: usize = 1 << 9;

/// Tokens by rank.
pub(super) struct Ranked {
    file: &'static str,
    pre: &'static str,
    tokens: Vec<Vec<u8>>,
}

impl Ranked {
    /// Reads the first such file; `None` if there is none.
    pub fn read(files: &CheckpointFiles) -> Result<Option<Self>, Error> {
        for (file, pre) in FILES {
            if let Some(text) = files.text(file)? {
                let tokens = parse(&text).map_err(|reason| Error::file(file, reason))?;
                return Ok(Some(Self { file, pre, tokens }));
            }
        }
        Ok(None)
    }

    /// The pre-tokenizer of the model that publishes such a file.
    pub fn pre(&self) -> &'static str {
        self.pre
    }

    /// The ranked tokens, and those that the configuration adds.
    pub fn tokens(
        &self,
        config: Option<&TokenizerConfig>,
        request: &Request<'_>,
    ) -> Result<TokenList, Error> {
        let mut list = TokenList::new(self.file, request.vocab_size);
        for (rank, token) in (0u64..).zip(&self.tokens) {
            list.set(rank, Token::new(spelled(token), TokenType::Normal, 0.0))?;
        }
        let mut more = config.map_or_else(Vec::new, TokenizerConfig::added_tokens);
        more.extend(added_tokens_json(request)?);
        for token in &more {
            let (text, kind) = added(&token.text, token.special);
            list.set(token.id, Token::new(text, kind, 0.0))?;
        }
        // The first Qwen's tokens are named in its code alone.
        if more.is_empty() && self.file == "qwen.tiktoken" {
            let named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned);
            let extra = (0..205).map(|n| format!("<|extra_{n}|>"));
            for (id, text) in (self.tokens.len() as u64..).zip(named.into_iter().chain(extra)) {
                list.set(id, Token::new(text, TokenType::Control, 0.0))?;
            }
        }
        Ok(list)
    }

    /// The merges that lead to the tokens.
    pub fn merges(&self) -> Vec<String> {
        merges_below(&self.tokens)
    }
}

fn parse(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut tokens = Vec::new();
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    for (at, line) in lines {
        let mut parts = line.split_whitespace();
        let token = parts.next().and_then(base64);
        let rank = parts.next().and_then(|rank| rank.parse::<usize>().ok());
        match (token, rank) {
            (Some(token), Some(rank)) if rank == tokens.len() && token.len() <= LONGEST => {
                tokens.push(token);
            }
            _ => {
                return Err(format!(
                    "line {}: expected a token in base64 and the rank {}",
                    at + 1,
                    tokens.len()
                ));
            }
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_tokens_in_the_order_of_their_ranks() {
        assert_eq!(
            parse("YQ== 0\nIGI= 1\n\n").unwrap(),
            [b"a".to_vec(), b" b".to_vec()]
        );
        for bad in ["YQ==", "YQ== 1", "Y!== 0", "YQ== x"] {
            assert!(parse(bad).unwrap_err().starts_with("line 1"), "{bad}");
        }
    }
}
