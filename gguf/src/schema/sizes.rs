//! The sizes that follow from a model's metadata, and the shapes that follow from them.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::metadata::Metadata;
use crate::schema::keys;
use crate::value::{Array, Value};

const SHAPES: &str = include_str!("shapes.tsv");

static TABLE: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    SHAPES
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('\t'))
        .collect()
});

/// The metadata of a model, asked for sizes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
}

impl<'a> Sizes<'a> {
    /// The sizes of a model; `None` if the metadata name no architecture.
    pub fn new(metadata: &'a Metadata) -> Option<Self> {
        Some(Self {
            metadata,
            architecture: keys::architecture(metadata)?,
        })
    }

    /// The architecture's name.
    pub fn architecture(&self) -> &'a str {
        self.architecture
    }

    /// The value of one of the architecture's keys.
    pub fn value(&self, name: &str) -> Option<&'a Value> {
        self.metadata.get(keys::of(self.architecture, name))
    }

    /// An integer that holds for the whole model.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.as_u64()
    }

    /// An integer that may be given for all layers at once or as an array with one for each.
    pub fn of_layer(&self, name: &str, layer: Option<u32>) -> Option<u64> {
        match (self.value(name)?, layer) {
            (Value::Array(array), Some(layer)) => array.get(layer as usize)?.as_u64(),
            (Value::Array(_), None) => None,
            (value, _) => value.as_u64(),
        }
    }

    /// The shape that a tensor must have: `stem` and `suffix` as [`super::tensors::parse`] gives
    /// them. `None` where the tables or the metadata do not say.
    pub fn shape(&self, stem: &str, suffix: &str, layer: Option<u32>) -> Option<Vec<u64>> {
        let name = match suffix {
            "" => stem.to_owned(),
            suffix => format!("{stem}.{suffix}"),
        };
        let own = format!("{} {name}", self.architecture);
        let row = TABLE
            .get(own.as_str())
            .or_else(|| TABLE.get(name.as_str()))?;
        row.split(' ').map(|size| self.size(size, layer)).collect()
    }

    /// A size by the name it has in the table of shapes.
    fn size(&self, name: &str, layer: Option<u32>) -> Option<u64> {
        if let Some(name) = name.strip_suffix("*2") {
            return self.size(name, layer)?.checked_mul(2);
        }
        let product = |a: Option<u64>, b: Option<u64>| a?.checked_mul(b?);
        match name {
            "embd" => self.number("embedding_length"),
            "vocab" => self.vocabulary(),
            "context" => self.number("context_length"),
            "types" => self.metadata.u64("tokenizer.ggml.token_type_count"),
            "heads" => self.of_layer("attention.head_count", layer),
            "kv_heads" => match self.value("attention.head_count_kv") {
                Some(_) => self.of_layer("attention.head_count_kv", layer),
                None => self.size("heads", layer),
            },
            "key" => self.head_length("attention.key_length", layer),
            "q" => {
                let length = self
                    .number("attention.key_length_mla")
                    .or_else(|| self.size("key", layer));
                product(self.size("heads", layer), length)
            }
            // With latent attention there are no plain keys and values.
            "k" | "v" if self.value("attention.key_length_mla").is_some() => None,
            "k" => product(self.size("kv_heads", layer), self.size("key", layer)),
            "v" => {
                let length = self.head_length("attention.value_length", layer);
                product(self.size("kv_heads", layer), length)
            }
            "o" => {
                let length = self
                    .number("attention.value_length_mla")
                    .or_else(|| self.head_length("attention.value_length", layer));
                product(self.size("heads", layer), length)
            }
            "qkv" => self
                .size("q", layer)?
                .checked_add(self.size("k", layer)?)?
                .checked_add(self.size("v", layer)?),
            "ff" => self.of_layer("feed_forward_length", layer),
            "experts" => self.number("expert_count"),
            "ffe" => match self.value("expert_feed_forward_length") {
                Some(_) => self.of_layer("expert_feed_forward_length", layer),
                None => self.size("ff", layer),
            },
            "ffs" => self
                .number("expert_shared_feed_forward_length")
                .or_else(|| {
                    self.value("expert_feed_forward_length")?;
                    product(self.number("expert_shared_count"), self.size("ffe", layer))
                }),
            "q_rank" => self.number("attention.q_lora_rank"),
            "kv_rank" => self.number("attention.kv_lora_rank"),
            // Latent keys and values with the rotary part of the keys.
            "kv_rank+rope" => {
                let rope = self.number("rope.dimension_count")?;
                self.number("attention.kv_lora_rank")?.checked_add(rope)
            }
            "conv" => self.number("ssm.conv_kernel"),
            "inner" => self.number("ssm.inner_size"),
            "state" => self.number("ssm.state_size"),
            "dt" => self.number("ssm.time_step_rank"),
            "dt+state*2" => self
                .size("dt", None)?
                .checked_add(self.size("state*2", None)?),
            // Of Mamba 2: what the convolution runs over, and the gate and the steps beside it.
            "xbc" => {
                let groups = product(self.number("ssm.group_count"), self.size("state*2", None));
                self.size("inner", None)?.checked_add(groups?)
            }
            "z+xbc+dt" => self
                .size("inner", None)?
                .checked_add(self.size("xbc", None)?)?
                .checked_add(self.size("dt", None)?),
            _ => None,
        }
    }

    fn head_length(&self, key: &str, layer: Option<u32>) -> Option<u64> {
        self.number(key).or_else(|| {
            let heads = self.size("heads", layer).filter(|&heads| heads > 0)?;
            Some(self.number("embedding_length")? / heads)
        })
    }

    /// Number of tokens: those listed, else what the metadata say.
    pub fn vocabulary(&self) -> Option<u64> {
        let listed = self.metadata.array("tokenizer.ggml.tokens").map(Array::len);
        listed
            .map(|count| count as u64)
            .or_else(|| self.number("vocab_size"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_from_the_metadata() {
        let mut metadata: Metadata = [
            ("llama.embedding_length", 64u32),
            ("llama.attention.head_count", 4),
            ("llama.attention.head_count_kv", 2),
            ("llama.vocab_size", 100),
        ]
        .into_iter()
        .collect();
        metadata.set(keys::ARCHITECTURE, "llama");
        metadata.set("llama.feed_forward_length", vec![96i32, 128]);
        let sizes = Sizes::new(&metadata).unwrap();
        let shape = |stem, layer| sizes.shape(stem, "weight", layer);
        assert_eq!(shape("token_embd", None), Some(vec![64, 100]));
        assert_eq!(shape("blk.{}.attn_k", Some(0)), Some(vec![64, 32]));
        assert_eq!(shape("blk.{}.ffn_up", Some(1)), Some(vec![64, 128]));
        assert_eq!(shape("blk.{}.ffn_up", Some(2)), None);
        assert_eq!(shape("my_own", None), None);
    }
}
