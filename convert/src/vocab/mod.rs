//! Tokenizer files as `tokenizer.*` metadata.
//!
//! The kind of tokenizer follows from the files' structure, not from a list of classes; what an
//! architecture does differently stands in one place, [`family`]. Keys, values and their order are
//! those of `convert_hf_to_gguf.py`.

mod byte_level;
mod characters;
mod error;
mod family;
mod files;
mod known_hashes;
mod mistral;
mod pre_tokenizer;
mod ranks;
mod reference;
mod rwkv;
mod sentencepiece;
mod special;
mod tekken;
mod template;
mod tiktoken;
mod tokens;
mod unigram;
mod wordpiece;

use gristmill_gguf::Value;
use serde_json::Value as Json;

use crate::checkpoint::CheckpointFiles;
use files::{ModelKind, TokenizerConfig, TokenizerJson};
use sentencepiece::SentencePiece;
use special::SpecialTokens;
use tekken::Tekken;
use tokens::{TokenList, Tokens};

pub use error::Error;
pub use reference::CheckpointTokenizer;

/// What the vocabulary needs to know of the model.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The checkpoint's files.
    pub files: &'a CheckpointFiles,
    /// The configuration, `text_config` merged over the root.
    pub config: &'a Json,
    /// GGUF name of the architecture.
    pub architecture: &'a str,
    /// The model class that the configuration names.
    pub class: &'a str,
    /// Length that the token list is padded to, if the configuration states one.
    pub vocab_size: Option<u64>,
    /// Rows of the token embedding, if it is stored.
    pub embedding_rows: Option<u64>,
    /// The pre-tokenizer's name that the user states.
    pub pre: Option<&'a str>,
}

/// `tokenizer.*` keys in the order in which they are written.
#[derive(Debug, Clone, Default)]
pub struct VocabMetadata {
    /// Keys and values.
    pub entries: Vec<(String, Value)>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl VocabMetadata {
    /// Sets a key: in its place if present, else at the end.
    fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.entries.iter_mut().find(|(known, _)| *known == key) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((key, value)),
        }
    }

    /// The token list, and a word on padding.
    fn set_tokens(&mut self, tokens: &Tokens, with_scores: bool) {
        self.set("tokenizer.ggml.tokens", tokens.texts());
        if with_scores {
            self.set("tokenizer.ggml.scores", tokens.scores());
        }
        self.set("tokenizer.ggml.token_type", tokens.types());
        if tokens.padding > 0 {
            self.warnings.push(format!(
                "the vocabulary has {} tokens; {} places without one are filled with [PADn]",
                tokens.tokens.len() - tokens.padding,
                tokens.padding
            ));
        }
    }
}

/// The tokenizer files of a checkpoint.
struct Sources<'a> {
    request: &'a Request<'a>,
    json: Option<TokenizerJson>,
    /// Whether the former was put together from older files; the reference takes roles of tokens
    /// from a stored one only.
    rebuilt: bool,
    config: Option<TokenizerConfig>,
}

/// The tokenizer's metadata.
///
/// # Errors
/// If there is no tokenizer, it is not understood, or it contradicts the model.
pub fn metadata(request: &Request<'_>) -> Result<VocabMetadata, Error> {
    let request = &Request {
        vocab_size: family::vocab_size(request),
        ..*request
    };
    let config = TokenizerConfig::read(request.files)?;
    let mut json = TokenizerJson::read(request.files)?;
    if let Some(world) = rwkv::World::read(request.files)? {
        let mut out = VocabMetadata::default();
        let sources = Sources {
            request,
            json,
            rebuilt: false,
            config,
        };
        sources.write_world(&world, &mut out)?;
        return Ok(out);
    }
    if json.is_none()
        && let Some(tekken) = Tekken::read(request.files)?
    {
        return tekken.metadata(request);
    }
    if json.is_none()
        && let Some(out) = mistral::metadata(request)?
    {
        return Ok(out);
    }
    if json.is_none()
        && let Some(old) = wordpiece::json_of_vocab_txt(request, config.as_ref())?
    {
        json = Some(TokenizerJson::from_json(old)?);
    }
    let mut out = VocabMetadata::default();
    let mut rebuilt = false;
    if json.is_none()
        && let Some(old) = byte_level::json_of_files(request, config.as_ref(), &mut out.warnings)?
    {
        json = Some(TokenizerJson::from_json(old)?);
        rebuilt = true;
    }
    let sources = Sources {
        request,
        json,
        rebuilt,
        config,
    };
    if sources.json.is_none()
        && let Some(ranked) = tiktoken::Ranked::read(request.files)?
    {
        family::before(&sources, &mut out);
        sources.write_ranked(&ranked, &mut out)?;
        family::after(&sources, &mut out);
        return Ok(out);
    }
    family::before(&sources, &mut out);
    sources.write(&mut out)?;
    family::after(&sources, &mut out);
    Ok(out)
}

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";

impl Sources<'_> {
    fn write(&self, out: &mut VocabMetadata) -> Result<(), Error> {
        let kind = self.json.as_ref().map(|json| json.kind);
        if kind != Some(ModelKind::ByteLevel)
            && kind != Some(ModelKind::WordPiece)
            && self.request.architecture != "gemma4"
            && let Some(model) = self.sentencepiece()?
        {
            return if model.unigram && kind != Some(ModelKind::Characters) {
                self.write_unigram(Some(model), out)
            } else {
                self.write_characters(Some(&model), out)
            };
        }
        match kind {
            Some(ModelKind::ByteLevel) => self.write_byte_level(out),
            Some(ModelKind::WordPiece) => self.write_wordpiece(out),
            Some(ModelKind::Unigram) => self.write_unigram(None, out),
            Some(ModelKind::Characters) if self.request.architecture == "gemma4" => {
                self.write_gemma4(out)
            }
            Some(ModelKind::Characters) => self.write_characters(None, out),
            None => Err(Error::Missing),
        }
    }

    fn sentencepiece(&self) -> Result<Option<SentencePiece>, Error> {
        for name in unigram::MODEL_FILES {
            if let Some(bytes) = self.request.files.read(name)? {
                return SentencePiece::parse_file(name, &bytes).map(Some);
            }
        }
        Ok(None)
    }

    /// The `tokenizer.json` that the kind of tokenizer was read from.
    fn json(&self) -> Result<&TokenizerJson, Error> {
        self.json.as_ref().ok_or(Error::Missing)
    }

    /// The complete list, lengthened to `size`.
    fn finish(&self, list: TokenList, size: Option<u64>) -> Result<Tokens, Error> {
        let tokens = list.finish(size)?;
        match self.request.embedding_rows {
            // Fillings come with an embedding that is lengthened like the list.
            Some(rows) if (tokens.tokens.len() - tokens.padding) as u64 > rows => {
                Err(Error::BeyondEmbedding {
                    tokens: tokens.tokens.len() - tokens.padding,
                    rows,
                })
            }
            _ => Ok(tokens),
        }
    }

    fn write_byte_level(&self, out: &mut VocabMetadata) -> Result<(), Error> {
        let json = self.json()?;
        let list = byte_level::tokens(json, self.config.as_ref(), self.request.vocab_size)?;
        let pre = pre_tokenizer::name(self.request, json, self.config.as_ref(), &mut out.warnings)?;
        out.set(MODEL, "gpt2");
        out.set(PRE, pre);
        let tokens = self.finish(list, self.request.vocab_size)?;
        out.set_tokens(&tokens, false);
        let merges = byte_level::merges(json, self.request, &mut out.warnings)?;
        out.set(MERGES, strings(merges));
        self.write_special(&tokens, out)
    }

    fn write_ranked(
        &self,
        ranked: &tiktoken::Ranked,
        out: &mut VocabMetadata,
    ) -> Result<(), Error> {
        let list = ranked.tokens(self.config.as_ref(), self.request)?;
        let stated = self.request.pre.map(pre_tokenizer::stated).transpose()?;
        out.set(MODEL, "gpt2");
        out.set(PRE, stated.unwrap_or_else(|| ranked.pre()));
        let tokens = self.finish(list, self.request.vocab_size)?;
        out.set_tokens(&tokens, false);
        out.set(MERGES, strings(ranked.merges()));
        self.write_special(&tokens, out)
    }

    fn write_world(&self, world: &rwkv::World, out: &mut VocabMetadata) -> Result<(), Error> {
        let (list, size) = world.tokens(self.request)?;
        out.set(MODEL, "rwkv");
        let tokens = self.finish(list, Some(size))?;
        out.set_tokens(&tokens, false);
        self.write_special(&tokens, out)?;
        if !out.entries.iter().any(|(key, _)| key == template::KEY) {
            out.set(template::KEY, rwkv::CHAT_TEMPLATE);
        }
        Ok(())
    }

    fn write_gemma4(&self, out: &mut VocabMetadata) -> Result<(), Error> {
        let json = self.json()?;
        let list = characters::from_json(json, self.config.as_ref(), self.request)?;
        out.set(MODEL, "gemma4");
        let tokens = self.finish(list, self.request.vocab_size)?;
        out.set_tokens(&tokens, true);
        if let Some(merges) = json.merges()? {
            out.set(MERGES, strings(merges));
        }
        self.write_special(&tokens, out)
    }

    fn write_characters(
        &self,
        model: Option<&SentencePiece>,
        out: &mut VocabMetadata,
    ) -> Result<(), Error> {
        let config = self.config.as_ref();
        let prefix = model.map(|model| model.add_dummy_prefix);
        let list = match model {
            Some(model) if family::types_by_flag(self.request) => {
                characters::from_model_by_flag(model, self.request, self.json.as_ref(), config)?
            }
            Some(model) => characters::from_model(model, self.request, config, &mut out.warnings)?,
            None => characters::from_json(self.json()?, config, self.request)?,
        };
        out.set(MODEL, "llama");
        out.set(PRE, "default");
        let tokens = self.finish(list, self.request.vocab_size)?;
        out.set_tokens(&tokens, true);
        if let Some(prefix) = prefix.filter(|_| self.request.architecture == "internlm2") {
            out.set("tokenizer.ggml.add_space_prefix", prefix);
        }
        self.write_special(&tokens, out)
    }

    fn write_wordpiece(&self, out: &mut VocabMetadata) -> Result<(), Error> {
        let json = self.json()?;
        let list = wordpiece::tokens(json, self.config.as_ref(), self.request.vocab_size)?;
        out.set(
            "tokenizer.ggml.token_type_count",
            Value::U32(family::token_types(self.request.config)),
        );
        out.set(MODEL, "bert");
        let pre = match self.request.pre {
            Some(name) => name,
            None => pre_tokenizer::by_hash(json).unwrap_or("bert-bge"),
        };
        out.set(PRE, pre);
        let tokens = self.finish(list, self.request.vocab_size)?;
        out.set_tokens(&tokens, false);
        self.write_special(&tokens, out)
    }

    fn write_unigram(
        &self,
        model: Option<SentencePiece>,
        out: &mut VocabMetadata,
    ) -> Result<(), Error> {
        let fairseq = family::fairseq_ids(self.request);
        let unigram = match model {
            Some(model) => unigram::from_model(model, self.request, fairseq)?,
            None => unigram::from_json(self.json()?, self.request.vocab_size)?,
        };
        out.set(MODEL, "t5");
        out.set(PRE, "default");
        let tokens = self.finish(unigram.list, self.request.vocab_size)?;
        out.set_tokens(&tokens, true);
        out.set("tokenizer.ggml.add_space_prefix", unigram.add_space_prefix);
        if fairseq {
            out.set(
                "tokenizer.ggml.token_type_count",
                Value::U32(family::token_types(self.request.config)),
            );
        }
        out.set(
            "tokenizer.ggml.remove_extra_whitespaces",
            unigram.remove_extra_whitespaces,
        );
        if !unigram.charsmap.is_empty() {
            out.set("tokenizer.ggml.precompiled_charsmap", unigram.charsmap);
        }
        self.write_special(&tokens, out)
    }

    /// Special ids and flags, normalizer flags, chat templates.
    fn write_special(&self, tokens: &Tokens, out: &mut VocabMetadata) -> Result<(), Error> {
        let mut special = SpecialTokens::gather(
            self.json.as_ref().filter(|_| !self.rebuilt),
            self.config.as_ref(),
            self.request.config,
            tokens.tokens.len(),
            &mut out.warnings,
        );
        family::special(self, tokens, &mut special);
        for (key, value) in special.entries() {
            out.set(key, value);
        }
        let templates =
            template::entries(self.request.files, self.config.as_ref(), &mut out.warnings)?;
        for (key, value) in templates {
            out.set(key, value);
        }
        if let Some(json) = &self.json {
            for (key, value) in normalizer_flags(&json.json["normalizer"]) {
                out.set(key, value);
            }
        }
        Ok(())
    }
}

fn strings(list: Vec<String>) -> Value {
    let list: Vec<bstr::BString> = list.into_iter().map(Into::into).collect();
    list.into()
}

/// What the normalizer does to letters, as far as the format can say.
fn normalizer_flags(normalizer: &Json) -> impl Iterator<Item = (String, Value)> {
    let mut flags = [("lowercase", None), ("strip_accents", None)];
    for part in files::components(normalizer) {
        let kind = part["type"].as_str();
        for (name, on) in &mut flags {
            match (kind, *name) {
                (Some("Lowercase"), "lowercase") | (Some("StripAccents"), "strip_accents") => {
                    *on = Some(true);
                }
                (Some("BertNormalizer"), name) => *on = part[name].as_bool(),
                _ => {}
            }
        }
    }
    flags.into_iter().filter_map(|(name, on)| {
        let key = format!("tokenizer.ggml.normalizer.{name}");
        on.map(|on| (key, on.into()))
    })
}
