//! What single architectures do differently from the files' structure.

use gristmill_gguf::Value;
use serde_json::Value as Json;

use super::special::SpecialTokens;
use super::tokens::Tokens;
use super::{Request, Sources, VocabMetadata, rwkv};

/// Architectures whose converter is the Llama one.
const LLAMA_LIKE: &[&str] = &[
    "llama",
    "llama-embed",
    "granite",
    "granitemoe",
    "granite_swa",
    "graniteswitch",
    "arcee",
    "smollm3",
    "apertus",
    "afmoe",
    "nanbeige",
    "cogvlm",
    "mistral3",
    "mistral4",
];

/// Entries of the vocabulary: what the configuration states or the embedding has, rounded up where
/// the embedding is.
pub(super) fn vocab_size(request: &Request<'_>) -> Option<u64> {
    // An embedding that was lengthened without a word in the configuration has more rows.
    let stated = request.vocab_size.max(request.embedding_rows)?;
    let multiple = match request.architecture {
        "mamba" | "granitehybrid" | "nemotron_h" | "nemotron_h_moe" => 8,
        "mamba2" => request.config["pad_vocab_size_multiple"]
            .as_u64()
            .filter(|multiple| (1..=4096).contains(multiple))
            .unwrap_or(16),
        _ => 1,
    };
    stated.checked_next_multiple_of(multiple)
}

const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// Keys that stand before `tokenizer.ggml.model`.
pub(super) fn before(sources: &Sources<'_>, out: &mut VocabMetadata) {
    match sources.request.architecture {
        "eurobert" => out.set("tokenizer.ggml.add_bos_token", true),
        "modern-bert" => {
            out.set("tokenizer.ggml.add_bos_token", true);
            out.set("tokenizer.ggml.add_eos_token", true);
            out.set("tokenizer.ggml.add_sep_token", true);
        }
        architecture
            if LLAMA_LIKE.contains(&architecture)
                // Its vocabulary is read as that of the state space models of the class.
                && sources.request.class != "GraniteMoeHybridForCausalLM" =>
        {
            if let Some(prefix) = stated_space_prefix(sources) {
                out.set(ADD_SPACE_PREFIX, prefix);
            }
        }
        _ => {}
    }
}

fn stated_space_prefix(sources: &Sources<'_>) -> Option<bool> {
    sources.config.as_ref()?.0["add_prefix_space"].as_bool()
}

/// Roles that the files do not state in the common way.
pub(super) fn special(sources: &Sources<'_>, tokens: &Tokens, special: &mut SpecialTokens) {
    if matches!(sources.request.architecture, "rwkv6" | "rwkv7") {
        special.set("eot", rwkv::END_OF_TURN);
        for role in ["bos", "eos"] {
            special.replace(role, rwkv::END_OF_TEXT);
        }
    }
    let mut by_text = |role: &'static str, text: &str| {
        if let Some(id) = tokens.find(text) {
            special.set(role, id);
        }
    };
    let kind = match sources.request.class {
        "Glm4MoeLiteForCausalLM" => "glm4moe",
        _ => sources.request.architecture,
    };
    match kind {
        "glm4" | "chatglm" => {
            by_text("eos", "<|endoftext|>");
            by_text("eot", "<|user|>");
            by_text("unk", "<|endoftext|>");
            by_text("bos", "<|endoftext|>");
        }
        "glm4moe" | "glm-dsa" | "glm5-next" => {
            by_text("eos", "<|endoftext|>");
            by_text("bos", "[gMASK]");
            by_text("eot", "<|user|>");
            by_text("unk", "<|endoftext|>");
            by_text("eom", "<|observation|>");
        }
        _ => {}
    }
}

/// Keys after all others, and corrections.
pub(super) fn after(sources: &Sources<'_>, out: &mut VocabMetadata) {
    let request = sources.request;
    let id = |name: &str| {
        request.config[name]
            .as_u64()
            .map(|id| Value::U32(id as u32))
    };
    match request.architecture {
        "gemma" => {
            out.set("tokenizer.ggml.eot_token_id", 107u32);
            out.set(ADD_SPACE_PREFIX, false);
        }
        "jamba"
            if request
                .files
                .text("tokenizer.model")
                .is_ok_and(|text| text.is_none()) =>
        {
            out.set(ADD_SPACE_PREFIX, false);
        }
        "gemma2" | "gemma3" | "gemma3n" | "gemma-embedding" => {
            out.set(ADD_SPACE_PREFIX, false);
        }
        "gemma4" => {
            out.set(ADD_SPACE_PREFIX, false);
            out.set("tokenizer.ggml.add_bos_token", true);
        }
        "ernie4_5" | "ernie4_5-moe" | "paddleocr" => {
            if let Some(prefix) = stated_space_prefix(sources) {
                out.set(ADD_SPACE_PREFIX, prefix);
            }
        }
        "nemotron" => {
            out.set("tokenizer.ggml.padding_token_id", 0u32);
            out.set("tokenizer.ggml.unknown_token_id", 1u32);
        }
        "bert" if request.class.starts_with("Roberta") => {
            out.set(
                "tokenizer.ggml.token_type_count",
                Value::U32(token_types(request.config)),
            );
        }
        architecture if LLAMA_LIKE.contains(&architecture) => {
            // Code Llama, and the small Granite and SmolLM models.
            if request.vocab_size == Some(32016) {
                out.set("tokenizer.ggml.eot_token_id", 32010u32);
            }
            if request.vocab_size == Some(49152) {
                out.set("tokenizer.ggml.add_bos_token", false);
            }
        }
        "hunyuan-dense" | "hunyuan_vl" => {
            // The class's own end of a document is 3.
            let stated = !request.config["eod_token_id"].is_null();
            if let Some(end) = id("eod_token_id").or((!stated).then_some(Value::U32(3))) {
                out.set("tokenizer.ggml.eos_token_id", end);
            }
            if let Some(first) = first_of_several_ends(sources) {
                out.set("tokenizer.ggml.eot_token_id", first);
            }
        }
        _ => {}
    }
}

/// The first of several tokens at which generation ends: that of a turn.
fn first_of_several_ends(sources: &Sources<'_>) -> Option<u32> {
    let generation = sources
        .request
        .files
        .json("generation_config.json")
        .ok()??;
    match generation["eos_token_id"].as_array()?.as_slice() {
        [first, _, ..] => u32::try_from(first.as_u64()?).ok(),
        _ => None,
    }
}

/// Tokens that a reader of the text is to see, though they look like control tokens.
pub(super) fn is_visible(request: &Request<'_>, text: &str) -> bool {
    const GEMMA4: &[&str] = &[
        "<|channel>",
        "<channel|>",
        "<|tool_call>",
        "<tool_call|>",
        "<|tool_response>",
        "<tool_response|>",
        "<|\"|>",
    ];
    request.architecture == "gemma4" && GEMMA4.contains(&text)
}

/// Whether added tokens' types go by their flag alone, whatever they look like.
pub(super) fn types_by_flag(request: &Request<'_>) -> bool {
    matches!(request.architecture, "phi3" | "phimoe")
}

/// Whether the shifted ids end in a mask that the sentencepiece model lacks.
pub(super) fn appends_mask(request: &Request<'_>) -> bool {
    request.architecture == "nomic-bert-moe"
}

/// Whether ids are fairseq's, shifted against the sentencepiece model.
pub(super) fn fairseq_ids(request: &Request<'_>) -> bool {
    matches!(
        request.architecture,
        "bert" | "nomic-bert" | "nomic-bert-moe" | "jina-bert-v3"
    )
}

/// Kinds of segments an encoder tells apart.
pub(super) fn token_types(config: &Json) -> u32 {
    config["type_vocab_size"]
        .as_u64()
        .and_then(|count| u32::try_from(count).ok())
        .unwrap_or(1)
}
