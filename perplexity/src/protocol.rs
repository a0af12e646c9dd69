//! How a text is cut and which predictions count: the protocol of `llama-perplexity`, so that
//! figures compare with those that publishers know.
//!
//! The text is tokenized with its special tokens and cut into chunks of `context` tokens; what does
//! not fill a chunk is dropped. Each chunk is evaluated alone; where the vocabulary puts a BOS in
//! front of texts, BOS replaces the chunk's first token. Only the second half of a chunk is scored:
//! positions `context/2 ..= context − 2` predict the token after them.

use std::ops::Range;

/// A text cut into chunks.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunks {
    tokens: Vec<u32>,
    context: usize,
    bos: Option<u32>,
}

/// Why a text cannot be measured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Not one chunk is full.
    #[error("the text has {tokens} tokens, one chunk needs {context}")]
    TooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens a chunk.
        context: usize,
    },
    /// A chunk without a scored prediction.
    #[error("a context of {0} tokens scores nothing: at least 4 are needed")]
    ContextTooSmall(usize),
}

impl Chunks {
    /// Cuts `tokens`; takes the first `limit` chunks, or all. `bos` is given if the vocabulary adds it.
    ///
    /// # Errors
    /// If there is not one full chunk, or chunks are too small to score anything.
    pub fn new(
        mut tokens: Vec<u32>,
        context: usize,
        limit: Option<usize>,
        bos: Option<u32>,
    ) -> Result<Self, TextError> {
        if context < 4 {
            return Err(TextError::ContextTooSmall(context));
        }
        let full = tokens.len() / context;
        let count = limit.map_or(full, |limit| limit.max(1).min(full));
        if count == 0 {
            return Err(TextError::TooShort {
                tokens: tokens.len(),
                context,
            });
        }
        tokens.truncate(count * context);
        Ok(Self {
            tokens,
            context,
            bos,
        })
    }

    /// Number of chunks.
    pub fn count(&self) -> usize {
        self.tokens.len() / self.context
    }

    /// Tokens a chunk.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Scored predictions a chunk.
    pub fn scored_per_chunk(&self) -> usize {
        self.scored().len()
    }

    /// The positions whose logits are scored, the same in every chunk.
    pub fn scored(&self) -> Range<usize> {
        self.context / 2..self.context - 1
    }

    /// The tokens that chunk `index` is evaluated on.
    ///
    /// # Panics
    /// If there is no such chunk.
    pub fn evaluated(&self, index: usize) -> Vec<u32> {
        let mut tokens = self.chunk(index).to_vec();
        if let Some(bos) = self.bos {
            tokens[0] = bos;
        }
        tokens
    }

    /// The tokens to be predicted at [`Chunks::scored`] positions of chunk `index`.
    ///
    /// # Panics
    /// If there is no such chunk.
    pub fn targets(&self, index: usize) -> &[u32] {
        let scored = self.scored();
        &self.chunk(index)[scored.start + 1..scored.end + 1]
    }

    fn chunk(&self, index: usize) -> &[u32] {
        &self.tokens[index * self.context..(index + 1) * self.context]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_the_second_half() -> Result<(), TextError> {
        let chunks = Chunks::new((0..1100).collect(), 512, None, Some(9999))?;
        assert_eq!((chunks.count(), chunks.scored_per_chunk()), (2, 255));
        assert_eq!(chunks.evaluated(1)[..2], [9999, 513]);
        assert_eq!(chunks.targets(1).first(), Some(&(512 + 257)));
        assert_eq!(chunks.targets(1).last(), Some(&(512 + 511)));
        Ok(())
    }

    #[test]
    fn refuses_what_cannot_be_scored() {
        let short = Chunks::new(vec![1; 511], 512, None, None);
        assert_eq!(
            short,
            Err(TextError::TooShort {
                tokens: 511,
                context: 512
            })
        );
        assert_eq!(
            Chunks::new(vec![1; 511], 3, None, None),
            Err(TextError::ContextTooSmall(3))
        );
    }

    #[test]
    fn limits_chunks() -> Result<(), TextError> {
        assert_eq!(Chunks::new(vec![1; 100], 10, Some(3), None)?.count(), 3);
        assert_eq!(Chunks::new(vec![1; 100], 10, Some(30), None)?.count(), 10);
        Ok(())
    }
}
