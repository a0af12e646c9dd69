//! Sentencepiece models (`tokenizer.model`, `spiece.model`): the few fields of their protobuf that
//! a conversion needs. Source: `sentencepiece_model.proto` of google/sentencepiece.

use bstr::BString;

use super::Error;
use super::tokens::TokenType;

/// A piece: its text, score and kind.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub text: BString,
    pub score: f32,
    pub kind: TokenType,
}

/// A sentencepiece model.
#[derive(Debug)]
pub(super) struct SentencePiece {
    pub pieces: Vec<Piece>,
    /// Whether it is a unigram model; else byte-pair merges.
    pub unigram: bool,
    pub charsmap: Vec<u8>,
    pub add_dummy_prefix: bool,
    pub remove_extra_whitespaces: bool,
}

/// A field's value.
enum Field<'a> {
    Number(u64),
    Bits32([u8; 4]),
    Bytes(&'a [u8]),
    Other,
}

impl SentencePiece {
    /// Parses a model file; `None` if the bytes are no such model.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut model = Self {
            pieces: Vec::new(),
            unigram: true,
            charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
        };
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(piece)) => model.pieces.push(parse_piece(piece)?),
                (2, Field::Bytes(trainer)) => {
                    for field in Fields(trainer) {
                        if let (3, Field::Number(kind)) = field? {
                            model.unigram = kind == 1;
                        }
                    }
                }
                (3, Field::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        match field? {
                            (2, Field::Bytes(charsmap)) => model.charsmap = charsmap.to_vec(),
                            (3, Field::Number(on)) => model.add_dummy_prefix = on != 0,
                            (4, Field::Number(on)) => model.remove_extra_whitespaces = on != 0,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        (!model.pieces.is_empty()).then_some(model)
    }

    /// Parses a model file that must be one.
    pub fn parse_file(name: &str, bytes: &[u8]) -> Result<Self, Error> {
        Self::parse(bytes).ok_or_else(|| {
            let reason = if bytes.starts_with(b"version https://git-lfs") {
                "is a git-lfs pointer, not the file itself"
            } else {
                "is no sentencepiece model"
            };
            Error::file(name, reason)
        })
    }
}

fn parse_piece(bytes: &[u8]) -> Option<Piece> {
    let mut piece = Piece {
        text: BString::default(),
        score: 0.0,
        kind: TokenType::Normal,
    };
    for field in Fields(bytes) {
        match field? {
            (1, Field::Bytes(text)) => piece.text = text.into(),
            (2, Field::Bits32(score)) => piece.score = f32::from_le_bytes(score),
            (3, Field::Number(kind)) => {
                piece.kind = match kind {
                    2 => TokenType::Unknown,
                    3 => TokenType::Control,
                    5 => TokenType::Unused,
                    6 => TokenType::Byte,
                    // User-defined pieces are written as normal ones.
                    _ => TokenType::Normal,
                }
            }
            _ => {}
        }
    }
    Some(piece)
}

/// The fields of a protobuf message; `None` once where the bytes are malformed.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Bits32(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}
