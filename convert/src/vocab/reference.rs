//! The checkpoint's own tokenizer, run as its publisher means it.

use super::Error;
use super::files::TOKENIZER_JSON;
use crate::checkpoint::CheckpointFiles;

/// A `tokenizer.json` with all its rules, those included that GGUF cannot carry (Unicode
/// normalization, templates with several tokens in front).
#[derive(Debug)]
pub struct CheckpointTokenizer {
    tokenizer: tokenizers::Tokenizer,
}

impl CheckpointTokenizer {
    /// Reads the checkpoint's `tokenizer.json`; `None` if it has none.
    ///
    /// # Errors
    /// If the file is damaged, or uses what the tokenizers library does not know.
    pub fn open(files: &CheckpointFiles) -> Result<Option<Self>, Error> {
        let Some(bytes) = files.read(TOKENIZER_JSON)? else {
            return Ok(None);
        };
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| Error::file(TOKENIZER_JSON, error.to_string()))?;
        // Settings of training and serving that some files carry; ids of a text know neither.
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| Error::file(TOKENIZER_JSON, error.to_string()))?;
        Ok(Some(Self { tokenizer }))
    }

    /// The text of a token as the file spells it.
    pub fn text(&self, id: u32) -> String {
        self.tokenizer.id_to_token(id).unwrap_or_default()
    }

    /// The ids of a text. `add_special` adds the tokens around it; without `parse_special` the
    /// texts of special tokens inside it are plain text.
    ///
    /// # Errors
    /// If the tokenizer's model fails on the text (a token it must use is missing).
    pub fn encode(
        &mut self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<u32>, Error> {
        self.tokenizer.set_encode_special_tokens(!parse_special);
        let encoding = self
            .tokenizer
            .encode_fast(text, add_special)
            .map_err(|error| Error::file(TOKENIZER_JSON, error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }
}
