//! The machine-readable results: `report.json` and the documents of `--json`.
//!
//! Field names are public: scripts read them. Units stand in the names, shares are in 0..1, and what
//! is unknown is `null`, never left out.

use serde::{Deserialize, Serialize};

/// Perplexity of one model on one text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PerplexityReport {
    /// Whether activations stayed in `f32` on decoded weights.
    pub exact: bool,
    /// exp of the mean negative log-probability of the scored tokens.
    pub perplexity: f64,
    /// Standard error of `perplexity`.
    pub perplexity_error: f64,
    /// Scored predictions.
    pub tokens: u64,
    /// Chunks of the text.
    pub chunks: u64,
    /// Tokens a chunk.
    pub context: u64,
    /// Wall time of the measurement.
    pub seconds: f64,
    /// The comparison with a base, where one was given.
    #[serde(flatten)]
    pub against: Option<DivergenceReport>,
}

/// A variant beside its base, over all scored predictions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DivergenceReport {
    /// Mean KL divergence of the variant from the base, in nats.
    pub kl_mean: f64,
    /// Standard error of `kl_mean`.
    pub kl_error: f64,
    /// Median KL divergence.
    pub kl_median: f64,
    /// 90th percentile.
    pub kl_p90: f64,
    /// 95th percentile.
    pub kl_p95: f64,
    /// 99th percentile.
    pub kl_p99: f64,
    /// 99.9th percentile.
    pub kl_p999: f64,
    /// Largest KL divergence.
    pub kl_max: f64,
    /// Mean change of the probability given to the token that came.
    pub delta_p_mean: f64,
    /// Root mean square of that change.
    pub delta_p_rms: f64,
    /// Share of predictions with the base's most probable token.
    pub same_top: f64,
    /// Standard error of `same_top`.
    pub same_top_error: f64,
    /// Perplexity of the variant over that of the base.
    pub perplexity_ratio: f64,
    /// Standard error of the ratio; the correlation of both is taken into account.
    pub perplexity_ratio_error: f64,
}

/// One file of a release or comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Preset or type name.
    #[serde(rename = "type")]
    pub ty: String,
    /// File name, relative to the report.
    pub file: String,
    /// Size of the file (all parts of a split set).
    pub size_bytes: u64,
    /// Bits of tensor data per weight.
    pub bits_per_weight: f64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// `reference` or `best`; unknown for files that others made.
    pub effort: Option<String>,
    /// File name of the importance matrix used.
    pub imatrix: Option<String>,
    /// Perplexity and divergence.
    #[serde(flatten)]
    pub measured: PerplexityReport,
    /// Prompt processing speed.
    pub prompt_tokens_per_second: Option<f64>,
    /// Generation speed.
    pub generation_tokens_per_second: Option<f64>,
}

/// The text that was measured on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// File name.
    pub file: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Chunks measured.
    pub chunks: u64,
    /// Tokens a chunk.
    pub context: u64,
}

/// `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The unquantized model all variants are held against.
    pub base: Base,
    /// The text.
    pub text: Text,
    /// The commands that made the files and the figures.
    pub commands: Vec<String>,
    /// One entry a file.
    pub variants: Vec<Variant>,
}

/// The base of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Base {
    /// File name.
    pub file: String,
    /// Size of the file.
    pub size_bytes: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Its perplexity on the text.
    pub perplexity: f64,
    /// Standard error of that.
    pub perplexity_error: f64,
}
