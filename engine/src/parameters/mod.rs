//! A model's hyper-parameters, read from the metadata of its file.

mod keys;
mod rope;

use gristmill_gguf::Metadata;

use crate::architecture::{
    Architecture, AttentionScale, EmbeddingScale, Gating, LogitScale, Norm, Rope, RopeLayers,
    WindowKind, WindowLayers,
};
use crate::error::Error;
use crate::pooling::Pooling;

pub(crate) use keys::{Keys, floats};
use rope::ropes;
pub(crate) use rope::{RopeParameters, latent_attention_scale};

/// Visible positions of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mask {
    Causal,
    Sliding(usize),
    Chunked(usize),
    Full,
    Symmetric(usize),
}

impl Mask {
    /// Whether later positions are hidden.
    pub fn is_causal(self) -> bool {
        !matches!(self, Self::Full | Self::Symmetric(_))
    }

    /// The keys that a query at `position` sees, of `keys` in all.
    pub fn visible(self, position: usize, keys: usize) -> std::ops::Range<usize> {
        let until = (position + 1).min(keys);
        match self {
            Self::Causal => 0..until,
            Self::Sliding(n) => (position + 1).saturating_sub(n)..until,
            Self::Chunked(n) => position / n * n..until,
            Self::Full => 0..keys,
            Self::Symmetric(n) => position.saturating_sub(n / 2)..(position + n / 2 + 1).min(keys),
        }
    }
}

/// Routing of tokens to experts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Routing {
    pub used: usize,
    pub gating: Gating,
    /// Sigmoids instead, if the choice has a bias.
    pub sigmoid_if_biased: bool,
    pub normalise: bool,
    pub scale: f32,
    pub groups: usize,
    pub groups_used: usize,
    pub weight_on_input: bool,
}

/// Sizes of recurrent blocks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Recurrence {
    pub conv: usize,
    pub inner: usize,
    pub state: usize,
    pub rank: usize,
    pub groups: usize,
    pub dt_b_c_rms: bool,
    /// Length of a head of Kimi's delta attention.
    pub head: usize,
    /// The logarithm of the most that it forgets at once.
    pub bound: Option<f32>,
}

/// Sizes of the branch that chooses keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SparseParameters {
    pub heads: usize,
    /// Length of a query or key of this branch.
    pub length: usize,
    /// Keys, or blocks of keys, that are chosen.
    pub top: usize,
    /// Keys of a block.
    pub block: usize,
    /// Blocks before the query that are always chosen.
    pub local: usize,
}

/// What layers differ in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LayerParameters {
    pub heads: usize,
    pub kv_heads: usize,
    pub key_length: usize,
    pub value_length: usize,
    pub windowed: bool,
    /// Whether queries and keys rotate.
    pub rotates: bool,
    pub mask: Mask,
    /// The layer whose keys and values this one reads.
    pub cache: usize,
}

/// All hyper-parameters.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    pub architecture: &'static Architecture,
    pub width: usize,
    pub context: usize,
    pub norm: Norm,
    pub epsilon: f32,
    pub layers: Vec<LayerParameters>,
    /// For full and for windowed layers.
    pub ropes: [RopeParameters; 2],
    pub original_context: usize,
    pub attention_scale: Option<f32>,
    pub attention_softcap: f32,
    pub clamp: f32,
    pub alibi: f32,
    pub temperature: Option<(f32, f32)>,
    /// What multiplies values.
    pub value_scale: f32,
    pub sparse: Option<SparseParameters>,
    pub experts: usize,
    pub routing: Option<Routing>,
    pub recurrence: Recurrence,
    pub embedding_scale: f32,
    pub residual_scale: f32,
    pub logit_scale: f32,
    pub logit_softcap: f32,
    pub parallel: bool,
    pub pooling: Pooling,
}

impl Parameters {
    /// Reads the keys. `tensors` bounds the number of layers.
    pub fn read(
        metadata: &Metadata,
        architecture: &'static Architecture,
        tensors: usize,
    ) -> Result<Self, Error> {
        let keys = Keys::new(metadata, architecture.name);
        let width = keys.positive("embedding_length")?;
        let blocks = keys.positive("block_count")?;
        let blocks = blocks.saturating_sub(keys.count("nextn_predict_layers")?.unwrap_or(0));
        if blocks > tensors {
            let problem = format!("{blocks} layers, but the file has only {tensors} tensors");
            return Err(keys.wrong("block_count", problem));
        }
        let context = keys.count("context_length")?.unwrap_or(2048);
        let layers = layers(&keys, architecture, width, blocks)?;
        let ropes = ropes(&keys, architecture, &layers, context)?;
        let heads = layers.first().map_or(0, |l| l.heads);
        let attention_scale = match (keys.float("attention.scale")?, architecture.attention_scale) {
            (Some(scale), _) if scale != 0.0 => Some(scale),
            (_, AttentionScale::One) => Some(1.0),
            (_, AttentionScale::WidthAt(depth)) if depth == blocks && heads > 0 => {
                Some(1.0 / (width as f32 / heads as f32).sqrt())
            }
            _ => None,
        };
        let embedding_scale = match architecture.embedding_scale {
            EmbeddingScale::Key(default) => match keys.float("embedding_scale")? {
                Some(scale) if scale != 0.0 => scale,
                _ => default,
            },
            EmbeddingScale::SqrtWidth => (width as f32).sqrt(),
        };
        let residual_scale = match keys.float("residual_scale")? {
            Some(scale) if scale != 0.0 => scale,
            _ if architecture.residual_depth > 0.0 => {
                architecture.residual_depth / (blocks as f32).sqrt()
            }
            _ => 1.0,
        };
        let logit_scale = match keys.float("logit_scale")? {
            Some(scale) if scale != 0.0 => scale,
            _ if architecture.logit_base > 0.0 => width as f32 / architecture.logit_base,
            _ => 1.0,
        };
        let (rms, layer) = (
            "attention.layer_norm_rms_epsilon",
            "attention.layer_norm_epsilon",
        );
        let norm = match architecture.norm_by_key && keys.get(rms).is_some() {
            true => Norm::Rms,
            false => architecture.norm,
        };
        let (first, second) = match norm {
            Norm::Rms => (rms, layer),
            Norm::Layer => (layer, rms),
        };
        let epsilon = match keys.float(first)? {
            Some(epsilon) => epsilon,
            None => keys.float(second)?.unwrap_or(1e-5),
        };
        let pooling = match keys.count("pooling_type")? {
            Some(1) => Pooling::Mean,
            Some(2) => Pooling::Cls,
            Some(3) => Pooling::Last,
            Some(4) => Pooling::Rank,
            _ => Pooling::None,
        };
        let temperature = match keys.float("attention.temperature_scale")? {
            Some(scale) if scale != 0.0 => {
                let floor = keys.float("attention.temperature_length")?;
                let original = keys.float("rope.scaling.original_context_length")?;
                Some((floor.or(original).unwrap_or(8192.0), scale))
            }
            _ => architecture.temperature,
        };
        Ok(Self {
            architecture,
            width,
            context,
            norm,
            epsilon,
            ropes,
            original_context: keys
                .count("rope.scaling.original_context_length")?
                .unwrap_or(context),
            attention_scale,
            attention_softcap: keys.float("attn_logit_softcapping")?.unwrap_or(0.0),
            clamp: keys.float("attention.clamp_kqv")?.unwrap_or(0.0),
            alibi: keys
                .float("attention.max_alibi_bias")?
                .unwrap_or(architecture.alibi),
            temperature,
            value_scale: keys.float("attention.value_scale")?.unwrap_or(1.0),
            sparse: sparse(&keys)?,
            experts: keys.count("expert_count")?.unwrap_or(0),
            routing: routing(&keys, architecture)?,
            recurrence: recurrence(&keys)?,
            embedding_scale,
            residual_scale,
            logit_scale: match architecture.logit_scale {
                LogitScale::Multiply => logit_scale,
                LogitScale::Divide => 1.0 / logit_scale,
            },
            logit_softcap: keys.float("final_logit_softcapping")?.unwrap_or(0.0),
            parallel: architecture.parallel && keys.flag("use_parallel_residual")?.unwrap_or(true),
            pooling,
            layers,
        })
    }
}

fn layers(
    keys: &Keys<'_>,
    architecture: &Architecture,
    width: usize,
    blocks: usize,
) -> Result<Vec<LayerParameters>, Error> {
    let heads = keys
        .per_layer("attention.head_count", blocks)?
        .unwrap_or_else(|| vec![0; blocks]);
    let kv_heads = keys
        .per_layer("attention.head_count_kv", blocks)?
        .unwrap_or_else(|| heads.clone());
    let key_length = keys.count("attention.key_length")?;
    let value_length = keys.count("attention.value_length")?;
    let key_windowed = keys.count("attention.key_length_swa")?;
    let value_windowed = keys.count("attention.value_length_swa")?;
    let window = keys
        .count("attention.sliding_window")?
        .unwrap_or(architecture.window_default);
    let windowed = windowed(keys, architecture, blocks, window)?;
    let causal = keys
        .flag("attention.causal")?
        .unwrap_or(architecture.causal);
    let rotation = keys.flag("rope.scaling.finetuned")?.unwrap_or(true);
    let dense = keys.count("leading_dense_block_count")?.unwrap_or(0);
    let pattern = match keys.get("attention.rope_pattern") {
        Some(_) => keys.per_layer("attention.rope_pattern", blocks)?,
        None => None,
    };
    let shared = keys.count("attention.shared_kv_layers")?.unwrap_or(0);
    let mut list: Vec<LayerParameters> = Vec::with_capacity(blocks);
    for il in 0..blocks {
        let default = width.checked_div(heads[il]).unwrap_or(0);
        let mut key = key_length.unwrap_or(default);
        let mut value = value_length.unwrap_or(key_length.unwrap_or(default));
        if windowed[il] {
            key = key_windowed.unwrap_or(key);
            value = value_windowed.unwrap_or(value);
        }
        let mask = match (causal, windowed[il], architecture.window) {
            (true, false, _) => Mask::Causal,
            (true, true, WindowKind::Chunked) => Mask::Chunked(window),
            (true, true, _) => Mask::Sliding(window),
            (false, true, _) => Mask::Symmetric(window),
            (false, false, _) => Mask::Full,
        };
        let rotates = architecture.rope != Rope::None
            && pattern.as_ref().is_none_or(|pattern| pattern[il] != 0)
            && match architecture.rope_layers {
                RopeLayers::All => true,
                RopeLayers::WindowedOrDense => windowed[il] || window == 0 || il < dense,
                RopeLayers::Windowed => windowed[il] || window == 0,
                RopeLayers::ThreeOfFour => (il + 1) % 4 != 0,
                RopeLayers::Finetuned => rotation,
            };
        let cache = match il >= blocks.saturating_sub(shared) {
            true => (0..blocks.saturating_sub(shared))
                .rev()
                .find(|&source| windowed[source] == windowed[il])
                .unwrap_or(il),
            false => il,
        };
        list.push(LayerParameters {
            heads: heads[il],
            kv_heads: kv_heads[il],
            key_length: key,
            value_length: value,
            windowed: windowed[il],
            rotates,
            mask,
            cache,
        });
    }
    Ok(list)
}

/// Which layers have the window.
fn windowed(
    keys: &Keys<'_>,
    architecture: &Architecture,
    blocks: usize,
    window: usize,
) -> Result<Vec<bool>, Error> {
    const PATTERN: &str = "attention.sliding_window_pattern";
    if window == 0 {
        return Ok(vec![false; blocks]);
    }
    let listed = keys.get(PATTERN).is_some_and(|v| v.as_array().is_some());
    if listed {
        let pattern = keys.per_layer(PATTERN, blocks)?.unwrap_or_default();
        return Ok(pattern.into_iter().map(|flag| flag != 0).collect());
    }
    let period = keys.count(PATTERN)?;
    let rule = match (architecture.window_layers, period) {
        (WindowLayers::FirstFull(_), Some(p)) => WindowLayers::FirstFull(p),
        (_, Some(p)) => WindowLayers::LastFull(p),
        (rule, None) => rule,
    };
    Ok((0..blocks)
        .map(|il| match rule {
            WindowLayers::All | WindowLayers::LastFull(0) | WindowLayers::FirstFull(0) => true,
            WindowLayers::LastFull(p) => il % p < p - 1,
            WindowLayers::FirstFull(p) => il % p != 0,
        })
        .collect())
}

fn routing(keys: &Keys<'_>, architecture: &Architecture) -> Result<Option<Routing>, Error> {
    for key in ["swiglu_clamp_exp", "swiglu_clamp_shexp"] {
        let limits = keys.floats(key).unwrap_or_default();
        if limits.iter().any(|&limit| limit > 0.0) {
            return Err(keys.wrong(key, "limits activations, which no graph here does"));
        }
    }
    let Some(used) = keys.count("expert_used_count")?.filter(|&n| n > 0) else {
        return Ok(None);
    };
    let gating = match keys.count("expert_gating_func")? {
        // Softmax over all, divided by its sum over the chosen ones, is softmax over these.
        Some(1) if architecture.gating == Gating::SoftmaxChosen => Gating::SoftmaxChosen,
        Some(1) => Gating::Softmax,
        Some(2) => Gating::Sigmoid,
        Some(3) => Gating::SoftmaxChosen,
        None | Some(0) => architecture.gating,
        Some(kind) => {
            return Err(keys.wrong("expert_gating_func", format!("{kind} is not known")));
        }
    };
    Ok(Some(Routing {
        used,
        gating,
        sigmoid_if_biased: architecture.sigmoid_if_biased
            && keys.count("expert_gating_func")?.unwrap_or(0) == 0,
        normalise: keys
            .flag("expert_weights_norm")?
            .unwrap_or(architecture.expert_norm),
        scale: match keys.float("expert_weights_scale")? {
            Some(scale) if scale != 0.0 => scale,
            _ => 1.0,
        },
        groups: keys.count("expert_group_count")?.unwrap_or(1),
        groups_used: keys.count("expert_group_used_count")?.unwrap_or(1),
        weight_on_input: architecture.expert_weight_on_input,
    }))
}

fn sparse(keys: &Keys<'_>) -> Result<Option<SparseParameters>, Error> {
    let Some(top) = keys.count("attention.indexer.top_k")? else {
        return Ok(None);
    };
    Ok(Some(SparseParameters {
        heads: keys.positive("attention.indexer.head_count")?,
        length: keys.positive("attention.indexer.key_length")?,
        top,
        block: keys.count("attention.indexer.block_size")?.unwrap_or(0),
        local: keys.count("attention.indexer.local_blocks")?.unwrap_or(0),
    }))
}

fn recurrence(keys: &Keys<'_>) -> Result<Recurrence, Error> {
    let count = |name| keys.count(name).map(|v| v.unwrap_or(0));
    Ok(Recurrence {
        conv: count("ssm.conv_kernel")?.max(count("shortconv.l_cache")?),
        inner: count("ssm.inner_size")?,
        state: count("ssm.state_size")?,
        rank: count("ssm.time_step_rank")?,
        groups: count("ssm.group_count")?.max(1),
        dt_b_c_rms: keys.flag("ssm.dt_b_c_rms")?.unwrap_or(false),
        head: count("kda.head_dim")?,
        bound: keys.float("kda.gate_lower_bound")?,
    })
}

impl Parameters {
    /// Whether a Llama 4 model is of the kind whose queries and keys are normalised: the one with
    /// 128 experts is not. No key says so.
    pub fn scout(&self) -> bool {
        self.experts != 128
    }
}

impl Parameters {
    /// Gemma 3n's sparsity of a layer in standard deviations; minus infinity: none.
    pub fn sparsity(metadata: &Metadata, architecture: &str, layer: usize) -> f32 {
        let values = Keys::new(metadata, architecture).floats("activation_sparsity_scale");
        let value = values.and_then(|values| values.get(layer).copied());
        value.unwrap_or(f32::NEG_INFINITY)
    }
}
