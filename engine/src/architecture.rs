//! The architectures that the engine runs, as a table of features.
//!
//! A row says only what the tensors and keys of a file do not show by themselves. What they do
//! show decides by itself: biases, q/k norms, gates, fused projections, pre and post norms, experts,
//! shared experts, recurrent blocks, learned positions, tied heads, scales, soft caps. Field names
//! follow the feature list of llama.cpp's model graphs.

/// How activations are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Divided by the root of the mean square.
    Rms,
    /// Mean taken away, divided by the standard deviation.
    Layer,
}

/// Which dimensions of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rope {
    /// No rotation.
    None,
    /// Dimensions `2i` and `2i + 1`.
    Pairs,
    /// Dimensions `i` and `i + n / 2`.
    Halves,
    /// The same in heads whose halves were made pairs as a whole, though only a part rotates.
    HalvesOfPairs,
}

/// Which layers rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayers {
    /// All.
    All,
    /// The windowed ones, if the model has a window; else all.
    Windowed,
    /// The windowed ones and those without experts before the first that has them.
    WindowedOrDense,
    /// All but every fourth.
    ThreeOfFour,
    /// All if `rope.scaling.finetuned` is true, else none.
    Finetuned,
}

/// What a windowed layer sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    /// The last `n` positions.
    Sliding,
    /// Positions since the last multiple of `n`.
    Chunked,
    /// Positions at most `n / 2` away on either side.
    Symmetric,
}

/// Which layers are windowed when the file does not list them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowLayers {
    /// Every layer.
    All,
    /// Every layer but the last of each group of this many.
    LastFull(usize),
    /// Every layer but the first of each group of this many.
    FirstFull(usize),
}

/// The activation function of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// GELU in its tanh form.
    GeluTanh,
    /// GELU by the error function.
    GeluErf,
    /// `max(x, 0)`.
    Relu,
    /// `max(x, 0)²`.
    ReluSquared,
    /// xIELU with per-layer parameters from the metadata.
    XIelu,
    /// The clamped SwiGLU of gpt-oss.
    SwigluOai,
}

/// How router logits become probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gating {
    /// Softmax over all experts.
    Softmax,
    /// Sigmoid of each.
    Sigmoid,
    /// Softmax over the chosen ones.
    SoftmaxChosen,
    /// Phi-MoE's two-step sparse mixer.
    SparseMixer,
}

/// What a gate of the attention's output goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateActivation {
    /// Sigmoid.
    Sigmoid,
    /// `ln(1 + e^x)`.
    Softplus,
}

/// What the attention scores are multiplied with when no key says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionScale {
    /// `1 / sqrt(head size)`.
    Head,
    /// `1 / sqrt(head size)`, but `1 / sqrt(width / heads)` for a model of this many layers.
    WidthAt(usize),
    /// 1.
    One,
}

/// What token embeddings are multiplied with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EmbeddingScale {
    /// The key `embedding_scale`, else this.
    Key(f32),
    /// The square root of the width.
    SqrtWidth,
}

/// What `logit_scale` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitScale {
    /// Multiplies.
    Multiply,
    /// Divides.
    Divide,
}

/// One architecture.
#[derive(Debug, Clone, Copy)]
pub struct Architecture {
    /// `general.architecture`.
    pub name: &'static str,
    /// Normalisation.
    pub norm: Norm,
    /// RMS norms instead where the file has the key of their epsilon.
    pub norm_by_key: bool,
    /// Stem of the tensor that normalises the input of the feed-forward block.
    pub ffn_norm: &'static str,
    /// Stem of the final norm.
    pub output_norm: &'static str,
    /// Attention and feed-forward read the same residual stream and are added together (unless the
    /// key `use_parallel_residual` is false).
    pub parallel: bool,
    /// Rotation.
    pub rope: Rope,
    /// Where only a part of a head rotates, rows were nevertheless brought from halves to pairs as a
    /// whole.
    pub whole_pairs: bool,
    /// Layers that rotate.
    pub rope_layers: RopeLayers,
    /// Whether scaled frequencies (and frequency factors) also hold for windowed layers.
    pub rope_scaling_windowed: bool,
    /// Base of windowed layers when the file gives none; 0: that of the others.
    pub rope_base_windowed: f32,
    /// Files hold a tenth of YaRN's multiplier for the amplitude.
    pub yarn_tenth: bool,
    /// YaRN's ramp ends are not rounded to whole dimensions.
    pub yarn_exact_ramp: bool,
    /// Form of the window.
    pub window: WindowKind,
    /// Layers that have it.
    pub window_layers: WindowLayers,
    /// Window size when the file gives none; 0: no window.
    pub window_default: usize,
    /// Score scale.
    pub attention_scale: AttentionScale,
    /// Norms of queries and keys come after the rotation.
    pub qk_norm_after_rope: bool,
    /// Queries and keys of rotating layers are normalised without a weight.
    pub qk_norm_plain: bool,
    /// Which dimensions of a head of the indexer rotate together.
    pub indexer_rope: Rope,
    /// What gates of the attention's output go through.
    pub attention_gate: GateActivation,
    /// Values are normalised without a weight.
    pub value_norm: bool,
    /// Queries are scaled with the logarithm of the position: floor and factor.
    pub temperature: Option<(f32, f32)>,
    /// Largest ALiBi bias when the file gives none; 0: no ALiBi.
    pub alibi: f32,
    /// Tokens see only earlier ones (unless `attention.causal` is false).
    pub causal: bool,
    /// Activation.
    pub activation: Activation,
    /// Routing, unless `expert_gating_func` says otherwise.
    pub gating: Gating,
    /// A bias of the choice means that routing is by sigmoids where no key says otherwise.
    pub sigmoid_if_biased: bool,
    /// Weights of the chosen experts are divided by their sum, unless `expert_weights_norm` says
    /// otherwise.
    pub expert_norm: bool,
    /// The expert's weight multiplies its input, not its output.
    pub expert_weight_on_input: bool,
    /// Routed and shared experts are averaged, not added.
    pub expert_average: bool,
    /// The least time step of Mamba 2; files do not carry it, all published models have this one.
    pub least_step: f32,
    /// Embedding scale.
    pub embedding_scale: EmbeddingScale,
    /// Multiplies every block's output unless the key `residual_scale` is there: `c / sqrt(layers)`;
    /// 0: none.
    pub residual_depth: f32,
    /// Use of `logit_scale`.
    pub logit_scale: LogitScale,
    /// Divides the width for a default `logit_scale` of `width / this`; 0: none.
    pub logit_base: f32,
}

/// The plain decoder: RMS norms before each block, SwiGLU, no rotation named yet.
const PLAIN: Architecture = Architecture {
    name: "",
    norm: Norm::Rms,
    norm_by_key: false,
    ffn_norm: "ffn_norm",
    output_norm: "output_norm",
    parallel: false,
    rope: Rope::None,
    whole_pairs: false,
    rope_layers: RopeLayers::All,
    rope_scaling_windowed: true,
    rope_base_windowed: 0.0,
    yarn_tenth: false,
    yarn_exact_ramp: false,
    window: WindowKind::Sliding,
    window_layers: WindowLayers::All,
    window_default: 0,
    attention_scale: AttentionScale::Head,
    qk_norm_after_rope: false,
    qk_norm_plain: false,
    indexer_rope: Rope::Halves,
    attention_gate: GateActivation::Sigmoid,
    value_norm: false,
    temperature: None,
    alibi: 0.0,
    causal: true,
    activation: Activation::Silu,
    gating: Gating::Softmax,
    sigmoid_if_biased: false,
    expert_norm: true,
    expert_weight_on_input: false,
    expert_average: false,
    least_step: 0.0,
    embedding_scale: EmbeddingScale::Key(1.0),
    residual_depth: 0.0,
    logit_scale: LogitScale::Multiply,
    logit_base: 0.0,
};

const PAIRS: Architecture = Architecture {
    rope: Rope::Pairs,
    ..PLAIN
};

const HALVES: Architecture = Architecture {
    rope: Rope::Halves,
    ..PLAIN
};

/// LayerNorm with a plain feed-forward block and GELU.
const CLASSIC: Architecture = Architecture {
    norm: Norm::Layer,
    activation: Activation::GeluTanh,
    ..PLAIN
};

const GEMMA: Architecture = Architecture {
    activation: Activation::GeluTanh,
    embedding_scale: EmbeddingScale::SqrtWidth,
    ..HALVES
};

const GEMMA3: Architecture = Architecture {
    window_layers: WindowLayers::LastFull(6),
    rope_base_windowed: 10000.0,
    rope_scaling_windowed: false,
    attention_scale: AttentionScale::WidthAt(62),
    ..GEMMA
};

const GRANITE: Architecture = Architecture {
    logit_scale: LogitScale::Divide,
    ..PAIRS
};

const DEEPSEEK: Architecture = Architecture {
    yarn_tenth: true,
    sigmoid_if_biased: true,
    expert_norm: false,
    ..PAIRS
};

const ENCODER: Architecture = Architecture {
    causal: false,
    ..CLASSIC
};

const QWEN_NEXT: Architecture = Architecture {
    ffn_norm: "post_attention_norm",
    ..HALVES
};

/// All rows, in order of name.
pub const TABLE: &[Architecture] = &[
    Architecture {
        name: "afmoe",
        rope_layers: RopeLayers::Windowed,
        window_layers: WindowLayers::LastFull(4),
        gating: Gating::Sigmoid,
        embedding_scale: EmbeddingScale::SqrtWidth,
        ..HALVES
    },
    Architecture {
        name: "apertus",
        activation: Activation::XIelu,
        ..HALVES
    },
    Architecture {
        name: "arcee",
        activation: Activation::ReluSquared,
        ..PAIRS
    },
    Architecture {
        name: "baichuan",
        ..PAIRS
    },
    Architecture {
        name: "bailingmoe",
        expert_norm: false,
        ..PAIRS
    },
    Architecture {
        name: "bailingmoe2",
        gating: Gating::Sigmoid,
        expert_norm: false,
        ..HALVES
    },
    Architecture {
        name: "bailingmoe3",
        gating: Gating::Sigmoid,
        expert_norm: false,
        ..PAIRS
    },
    Architecture {
        name: "bert",
        activation: Activation::GeluErf,
        ..ENCODER
    },
    Architecture {
        name: "bitnet",
        ..HALVES
    },
    Architecture {
        name: "bloom",
        alibi: 8.0,
        ..CLASSIC
    },
    Architecture {
        name: "chatglm",
        ..PAIRS
    },
    Architecture {
        name: "codeshell",
        rope: Rope::Halves,
        ..CLASSIC
    },
    Architecture {
        name: "cohere2",
        norm: Norm::Layer,
        parallel: true,
        rope_layers: RopeLayers::Windowed,
        window_layers: WindowLayers::LastFull(4),
        ..PAIRS
    },
    Architecture {
        name: "cohere2moe",
        norm: Norm::Layer,
        norm_by_key: true,
        parallel: true,
        rope_layers: RopeLayers::WindowedOrDense,
        window_layers: WindowLayers::LastFull(4),
        gating: Gating::SoftmaxChosen,
        expert_average: true,
        ..PAIRS
    },
    Architecture {
        name: "command-r",
        norm: Norm::Layer,
        parallel: true,
        ..PAIRS
    },
    Architecture {
        name: "dbrx",
        norm: Norm::Layer,
        ffn_norm: "attn_output_norm",
        ..HALVES
    },
    Architecture {
        name: "deci",
        ..PAIRS
    },
    Architecture {
        name: "deepseek",
        expert_norm: false,
        ..PAIRS
    },
    Architecture {
        name: "deepseek2",
        ..DEEPSEEK
    },
    Architecture {
        name: "deepseek32",
        ..DEEPSEEK
    },
    Architecture {
        name: "dots1",
        sigmoid_if_biased: true,
        expert_norm: false,
        ..HALVES
    },
    Architecture {
        name: "dream",
        causal: false,
        ..HALVES
    },
    Architecture {
        name: "ernie4_5",
        ..PAIRS
    },
    Architecture {
        name: "ernie4_5-moe",
        ..PAIRS
    },
    Architecture {
        name: "eurobert",
        causal: false,
        ..HALVES
    },
    Architecture {
        name: "exaone",
        ..HALVES
    },
    Architecture {
        name: "exaone-moe",
        rope_layers: RopeLayers::Windowed,
        window_layers: WindowLayers::LastFull(4),
        gating: Gating::Sigmoid,
        expert_norm: false,
        ..HALVES
    },
    Architecture {
        name: "exaone4",
        rope_layers: RopeLayers::Windowed,
        window_layers: WindowLayers::LastFull(4),
        ..HALVES
    },
    Architecture {
        name: "falcon",
        parallel: true,
        rope: Rope::Halves,
        activation: Activation::GeluErf,
        ..CLASSIC
    },
    Architecture {
        name: "falcon-h1",
        ..HALVES
    },
    Architecture {
        name: "gemma",
        ..GEMMA
    },
    Architecture {
        name: "gemma-embedding",
        window: WindowKind::Symmetric,
        causal: false,
        ..GEMMA3
    },
    Architecture {
        name: "gemma2",
        window_layers: WindowLayers::LastFull(2),
        window_default: 4096,
        attention_scale: AttentionScale::WidthAt(46),
        ..GEMMA
    },
    Architecture {
        name: "gemma3",
        ..GEMMA3
    },
    Architecture {
        name: "gemma3n",
        window_layers: WindowLayers::LastFull(5),
        attention_scale: AttentionScale::One,
        value_norm: true,
        ..GEMMA3
    },
    Architecture {
        name: "gemma4",
        attention_scale: AttentionScale::One,
        value_norm: true,
        ..GEMMA3
    },
    Architecture {
        name: "glm-dsa",
        indexer_rope: Rope::Pairs,
        ..DEEPSEEK
    },
    Architecture {
        name: "glm4",
        ..PAIRS
    },
    Architecture {
        name: "glm4moe",
        ffn_norm: "post_attention_norm",
        gating: Gating::Sigmoid,
        expert_norm: false,
        ..HALVES
    },
    Architecture {
        name: "gpt-oss",
        ffn_norm: "post_attention_norm",
        window_layers: WindowLayers::LastFull(2),
        yarn_exact_ramp: true,
        activation: Activation::SwigluOai,
        gating: Gating::SoftmaxChosen,
        expert_norm: false,
        ..HALVES
    },
    Architecture {
        name: "gpt2",
        ..CLASSIC
    },
    Architecture {
        name: "gptneox",
        parallel: true,
        rope: Rope::Halves,
        activation: Activation::GeluErf,
        ..CLASSIC
    },
    Architecture {
        name: "granite",
        ..GRANITE
    },
    Architecture {
        name: "granite_swa",
        window_layers: WindowLayers::FirstFull(4),
        ..GRANITE
    },
    Architecture {
        name: "granitehybrid",
        whole_pairs: true,
        rope_layers: RopeLayers::Finetuned,
        ..GRANITE
    },
    Architecture {
        name: "granitemoe",
        ..GRANITE
    },
    Architecture {
        name: "hunyuan-dense",
        qk_norm_after_rope: true,
        ..HALVES
    },
    Architecture {
        name: "hunyuan-moe",
        qk_norm_after_rope: true,
        ..HALVES
    },
    Architecture {
        name: "hunyuan_vl",
        qk_norm_after_rope: true,
        ..HALVES
    },
    Architecture {
        name: "hy_v3",
        gating: Gating::Sigmoid,
        ..HALVES
    },
    Architecture {
        name: "internlm2",
        ..PAIRS
    },
    Architecture {
        name: "jais",
        norm: Norm::Layer,
        alibi: 8.0,
        ..PLAIN
    },
    Architecture {
        name: "jais2",
        rope: Rope::Halves,
        activation: Activation::ReluSquared,
        ..CLASSIC
    },
    Architecture {
        name: "jamba",
        expert_norm: false,
        ..PLAIN
    },
    Architecture {
        name: "jina-bert-v2",
        alibi: 8.0,
        activation: Activation::GeluErf,
        ..ENCODER
    },
    Architecture {
        name: "kimi-linear",
        gating: Gating::Sigmoid,
        ..PLAIN
    },
    Architecture {
        name: "laguna",
        rope_scaling_windowed: false,
        window_layers: WindowLayers::FirstFull(4),
        attention_gate: GateActivation::Softplus,
        gating: Gating::Sigmoid,
        ..HALVES
    },
    Architecture {
        name: "lfm2",
        output_norm: "token_embd_norm",
        ..HALVES
    },
    Architecture {
        name: "lfm2moe",
        output_norm: "token_embd_norm",
        gating: Gating::Sigmoid,
        ..HALVES
    },
    Architecture {
        name: "llada",
        causal: false,
        ..PAIRS
    },
    Architecture {
        name: "llada-moe",
        causal: false,
        expert_norm: false,
        ..HALVES
    },
    Architecture {
        name: "llama",
        ..PAIRS
    },
    Architecture {
        name: "llama-embed",
        causal: false,
        ..PAIRS
    },
    Architecture {
        name: "llama4",
        rope_layers: RopeLayers::ThreeOfFour,
        window: WindowKind::Chunked,
        window_layers: WindowLayers::LastFull(4),
        window_default: 8192,
        qk_norm_plain: true,
        temperature: Some((8192.0, 0.1)),
        gating: Gating::Sigmoid,
        expert_norm: false,
        expert_weight_on_input: true,
        ..PAIRS
    },
    Architecture {
        name: "maincoder",
        ..PAIRS
    },
    Architecture {
        name: "mamba",
        ..PLAIN
    },
    Architecture {
        name: "mamba2",
        ..PLAIN
    },
    Architecture {
        name: "mellum",
        rope_scaling_windowed: false,
        window_layers: WindowLayers::LastFull(4),
        ..HALVES
    },
    Architecture {
        name: "mimo2",
        rope_scaling_windowed: false,
        gating: Gating::Sigmoid,
        ..HALVES
    },
    Architecture {
        name: "minicpm",
        embedding_scale: EmbeddingScale::Key(12.0),
        residual_depth: 1.4,
        logit_base: 256.0,
        ..GRANITE
    },
    Architecture {
        name: "minicpm3",
        embedding_scale: EmbeddingScale::Key(12.0),
        residual_depth: 1.4,
        logit_scale: LogitScale::Divide,
        logit_base: 256.0,
        ..HALVES
    },
    Architecture {
        name: "minimax-m2",
        gating: Gating::Sigmoid,
        ..HALVES
    },
    Architecture {
        name: "minimax-m3",
        activation: Activation::SwigluOai,
        gating: Gating::Sigmoid,
        ..HALVES
    },
    Architecture {
        name: "mistral3",
        ..PAIRS
    },
    Architecture {
        name: "mistral4",
        ..DEEPSEEK
    },
    Architecture {
        name: "modern-bert",
        rope: Rope::Halves,
        rope_scaling_windowed: false,
        window: WindowKind::Symmetric,
        window_layers: WindowLayers::FirstFull(3),
        activation: Activation::GeluErf,
        ..ENCODER
    },
    Architecture {
        name: "mpt",
        activation: Activation::GeluErf,
        ..CLASSIC
    },
    Architecture {
        name: "nanbeige",
        ..PAIRS
    },
    Architecture {
        name: "nemotron",
        rope: Rope::Halves,
        activation: Activation::ReluSquared,
        ..CLASSIC
    },
    Architecture {
        name: "nemotron_h",
        ffn_norm: "attn_norm",
        activation: Activation::ReluSquared,
        gating: Gating::Sigmoid,
        expert_norm: false,
        least_step: 1e-3,
        ..PLAIN
    },
    Architecture {
        name: "nemotron_h_moe",
        ffn_norm: "attn_norm",
        activation: Activation::ReluSquared,
        gating: Gating::Sigmoid,
        expert_norm: false,
        least_step: 1e-3,
        ..PLAIN
    },
    Architecture {
        name: "neo-bert",
        causal: false,
        ..PAIRS
    },
    Architecture {
        name: "nomic-bert",
        rope: Rope::Halves,
        activation: Activation::Silu,
        ..ENCODER
    },
    Architecture {
        name: "nomic-bert-moe",
        rope: Rope::Halves,
        activation: Activation::GeluErf,
        expert_norm: false,
        ..ENCODER
    },
    Architecture {
        name: "olmo",
        norm: Norm::Layer,
        ..PAIRS
    },
    Architecture {
        name: "olmo2",
        rope_scaling_windowed: false,
        window_layers: WindowLayers::LastFull(4),
        ..HALVES
    },
    Architecture {
        name: "olmoe",
        expert_norm: false,
        ..HALVES
    },
    Architecture {
        name: "openelm",
        ..HALVES
    },
    Architecture {
        name: "orion",
        norm: Norm::Layer,
        ..HALVES
    },
    Architecture {
        name: "paddleocr",
        ..HALVES
    },
    Architecture {
        name: "pangu-embedded",
        ..HALVES
    },
    Architecture {
        name: "phi2",
        parallel: true,
        rope: Rope::Halves,
        ..CLASSIC
    },
    Architecture {
        name: "phi3",
        ..HALVES
    },
    Architecture {
        name: "phimoe",
        norm: Norm::Layer,
        gating: Gating::SparseMixer,
        expert_norm: false,
        ..HALVES
    },
    Architecture {
        name: "plamo",
        parallel: true,
        ..HALVES
    },
    Architecture {
        name: "qwen",
        ..HALVES
    },
    Architecture {
        name: "qwen2",
        ..HALVES
    },
    Architecture {
        name: "qwen2moe",
        expert_norm: false,
        ..HALVES
    },
    Architecture {
        name: "qwen2vl",
        ..HALVES
    },
    Architecture {
        name: "qwen3",
        ..HALVES
    },
    Architecture {
        name: "qwen35",
        ..QWEN_NEXT
    },
    Architecture {
        name: "qwen35moe",
        ..QWEN_NEXT
    },
    Architecture {
        name: "qwen3moe",
        ..HALVES
    },
    Architecture {
        name: "qwen3next",
        ..QWEN_NEXT
    },
    Architecture {
        name: "qwen3vl",
        ..HALVES
    },
    Architecture {
        name: "qwen3vlmoe",
        ..HALVES
    },
    Architecture {
        name: "refact",
        alibi: 8.0,
        ..PLAIN
    },
    Architecture {
        name: "rnd1",
        causal: false,
        ..HALVES
    },
    Architecture {
        name: "seed_oss",
        ffn_norm: "post_attention_norm",
        ..HALVES
    },
    Architecture {
        name: "smollm3",
        rope_layers: RopeLayers::ThreeOfFour,
        ..PAIRS
    },
    Architecture {
        name: "stablelm",
        norm: Norm::Layer,
        parallel: true,
        ..HALVES
    },
    Architecture {
        name: "starcoder",
        ..CLASSIC
    },
    Architecture {
        name: "starcoder2",
        rope: Rope::Halves,
        ..CLASSIC
    },
    Architecture {
        name: "t5",
        activation: Activation::GeluTanh,
        attention_scale: AttentionScale::One,
        ..PLAIN
    },
    Architecture {
        name: "t5encoder",
        activation: Activation::GeluTanh,
        attention_scale: AttentionScale::One,
        causal: false,
        ..PLAIN
    },
    Architecture {
        name: "xverse",
        ..PAIRS
    },
];

/// The row of an architecture.
pub fn find(name: &str) -> Option<&'static Architecture> {
    TABLE.iter().find(|row| row.name == name)
}

/// The supported architecture whose name is nearest to `name`, if any is near.
pub fn nearest(name: &str) -> Option<&'static str> {
    let distance = |row: &&Architecture| edit_distance(row.name, name);
    let row = TABLE.iter().min_by_key(distance)?;
    (distance(&row) * 2 <= name.len().max(row.name.len())).then_some(row.name)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_unique() {
        assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn an_unknown_name_finds_its_neighbour() {
        assert_eq!(nearest("lama"), Some("llama"));
        assert_eq!(nearest("qwen3mo"), Some("qwen3moe"));
        assert_eq!(nearest("0123456789"), None);
    }
}
