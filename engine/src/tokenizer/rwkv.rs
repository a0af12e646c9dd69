//! RWKV's tokenizer: the longest token at every place.

use super::trie::Trie;
use super::vocabulary::Vocabulary;

/// An RWKV encoder.
#[derive(Debug)]
pub(super) struct Rwkv {
    texts: Vec<Vec<u8>>,
    tokens: Trie,
    unknown: u32,
}

impl Rwkv {
    pub fn new(vocabulary: &Vocabulary, unknown: u32) -> Self {
        let texts: Vec<_> = vocabulary.iter().map(|(_, text)| unescaped(text)).collect();
        let entries = (0u32..).zip(&texts).filter(|(_, text)| !text.is_empty());
        let tokens = Trie::new(entries.map(|(id, text)| (id, text.as_slice())));
        Self {
            texts,
            tokens,
            unknown,
        }
    }

    /// Appends the tokens of a text.
    pub fn encode(&self, text: &[u8], out: &mut Vec<u32>) {
        let mut rest = text;
        while !rest.is_empty() {
            let (length, token) = self
                .tokens
                .longest_prefix(rest)
                .unwrap_or((1, self.unknown));
            out.push(token);
            rest = &rest[length..];
        }
    }

    /// The bytes of a token.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.texts.get(id as usize).map_or(&[], Vec::as_slice)
    }
}

/// Bytes of a text with the escapes of a Python literal.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let Some((&escape, after)) = rest.split_first() else {
            out.push(b'\\');
            break;
        };
        rest = after;
        let hex = (escape == b'x')
            .then(|| rest.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(match (escape, hex) {
            (b'x', Some(byte)) => {
                rest = &rest[2..];
                byte
            }
            (b't', _) => b'\t',
            (b'n', _) => b'\n',
            (b'r', _) => b'\r',
            (other, _) => other,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn escapes() {
        assert_eq!(super::unescaped(br"a\n\x41\\\'"), b"a\nA\\'");
    }
}
