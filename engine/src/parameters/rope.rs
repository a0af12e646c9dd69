//! Rotation: dimensions, base, scaling.

use gristmill_gguf::Metadata;

use super::{Keys, LayerParameters, Parameters};
use crate::architecture::{Architecture, Rope};
use crate::error::Error;

/// No head rotates more dimensions than this.
const MAX_ROTATED: usize = 1 << 13;

/// Scaling of the rotation's frequencies.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RopeParameters {
    pub kind: Rope,
    /// Dimensions of a head that rotate.
    pub dims: usize,
    pub base: f32,
    /// What positions are divided by (linear and YaRN); 1: nothing.
    pub factor: f32,
    pub yarn: Option<Yarn>,
    /// Cosine and sine are multiplied with this.
    pub amplitude: f32,
    /// Whether frequency factors (`rope_freqs`, `rope_factors_*`) apply.
    pub factors: bool,
}

/// The ramp between interpolated and extrapolated frequencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Yarn {
    pub original_context: f32,
    pub beta_fast: f32,
    pub beta_slow: f32,
    pub extrapolation: f32,
    pub exact_ramp: bool,
}

/// The rotations of full and of windowed layers.
pub(super) fn ropes(
    keys: &Keys<'_>,
    architecture: &Architecture,
    layers: &[LayerParameters],
    context: usize,
) -> Result<[RopeParameters; 2], Error> {
    let length = |windowed: bool| {
        let layer = layers
            .iter()
            .find(|l| l.windowed == windowed && l.heads > 0);
        layer.map_or(0, |l| l.key_length.min(MAX_ROTATED))
    };
    for key in ["rope.dimension_count", "rope.dimension_count_swa"] {
        if let Some(dims) = keys.count(key)?.filter(|&dims| dims > MAX_ROTATED) {
            return Err(keys.wrong(key, format!("{dims} is more than a head has")));
        }
    }
    let dims = keys.count("rope.dimension_count")?;
    let mut base = keys.float("rope.freq_base")?.unwrap_or(10000.0);
    if let Some(alpha) = keys
        .float("rope.scaling.alpha")?
        .filter(|&alpha| alpha > 0.0)
    {
        // A larger base instead of a scale (Hunyuan).
        let dims = dims.unwrap_or(length(false)) as f32;
        base *= alpha.powf(dims / (dims - 2.0));
    }
    let mut full = RopeParameters {
        // Sections of several positions (all the same for text) come in halves.
        kind: match keys.get("rope.dimension_sections").is_some() {
            true => Rope::Halves,
            false if architecture.whole_pairs && dims.is_some_and(|dims| dims < length(false)) => {
                Rope::HalvesOfPairs
            }
            false => architecture.rope,
        },
        dims: dims.unwrap_or(length(false)),
        base,
        factor: 1.0,
        yarn: None,
        amplitude: 1.0,
        factors: true,
    };
    let mut windowed = RopeParameters {
        dims: keys
            .count("rope.dimension_count_swa")?
            .or(dims)
            .unwrap_or(length(true)),
        base: match keys.float("rope.freq_base_swa")? {
            Some(base) => base,
            None if architecture.rope_base_windowed > 0.0 => architecture.rope_base_windowed,
            None => base,
        },
        factors: architecture.rope_scaling_windowed,
        ..full.clone()
    };
    let factor = match keys.float("rope.scaling.factor")? {
        Some(factor) => factor,
        None => keys.float("rope.scale_linear")?.unwrap_or(1.0),
    };
    let attention_factor = keys.float("rope.scaling.attn_factor")?.unwrap_or(1.0);
    full.amplitude = attention_factor;
    match keys.str("rope.scaling.type").unwrap_or("linear") {
        "linear" if factor > 0.0 => full.factor = factor,
        "yarn" if factor > 0.0 => {
            full.factor = factor;
            full.yarn = Some(Yarn {
                original_context: keys
                    .float("rope.scaling.original_context_length")?
                    .unwrap_or(context as f32),
                beta_fast: keys.float("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: keys.float("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                extrapolation: keys.float("rope.scaling.yarn_ext_factor")?.unwrap_or(1.0),
                exact_ramp: architecture.yarn_exact_ramp,
            });
            let net = match keys.float("rope.scaling.yarn_attn_factor")? {
                Some(net) if net > 0.0 => net,
                _ => yarn_amplitude(keys, architecture, factor)?,
            };
            full.amplitude *= net;
        }
        _ => {}
    }
    if architecture.rope_scaling_windowed {
        windowed.factor = full.factor;
        windowed.yarn = full.yarn;
        windowed.amplitude = full.amplitude;
    }
    Ok([full, windowed])
}

/// `0.1 ln(factor) + 1`, divided by the same with the model's own multiplier where it has one:
/// DeepSeek's two `mscale` values, of which files carry only the second. V3 has both at 1, V2-Lite
/// both at the same other value.
fn yarn_amplitude(keys: &Keys<'_>, architecture: &Architecture, factor: f32) -> Result<f32, Error> {
    let scale = |multiplier: f32| 1.0 + 0.1 * multiplier * factor.max(1.0).ln();
    let multiplier = keys
        .float("rope.scaling.yarn_log_multiplier")?
        .unwrap_or(0.0);
    Ok(match multiplier {
        0.0 => scale(1.0),
        _ if architecture.yarn_tenth => 1.0,
        multiplier => scale(1.0) / scale(multiplier),
    })
}

/// What the scores of latent attention are multiplied with besides `1 / sqrt(head size)`.
pub(crate) fn latent_attention_scale(
    metadata: &Metadata,
    parameters: &Parameters,
) -> Result<f32, Error> {
    let keys = Keys::new(metadata, parameters.architecture.name);
    let multiplier = keys
        .float("rope.scaling.yarn_log_multiplier")?
        .unwrap_or(0.0);
    let rope = &parameters.ropes[0];
    if rope.yarn.is_none() || multiplier == 0.0 {
        return Ok(1.0);
    }
    let tenth = match parameters.architecture.yarn_tenth {
        true => multiplier,
        false => 0.1 * multiplier,
    };
    Ok((rope.amplitude * (1.0 + tenth * rope.factor.ln())).powi(2))
}
