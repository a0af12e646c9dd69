//! What an importance matrix looks like: the figures of `llama-imatrix --show-statistics`.

use std::collections::BTreeMap;

use bstr::{BStr, BString, ByteSlice};

use super::{Entry, Importance};

/// Mean squares below this count as no activation.
const INACTIVE: f32 = 1e-5;

/// Figures of one entry. `a` is the mean squared activation of a column.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryStatistics {
    /// The tensor.
    pub tensor: BString,
    /// Columns measured, over all matrices that saw a token.
    pub columns: usize,
    /// Fewest and most tokens a matrix saw.
    pub tokens: (u64, u64),
    /// Σ a.
    pub sum: f64,
    /// Least a.
    pub min: f32,
    /// Greatest a.
    pub max: f32,
    /// Mean of a.
    pub mean: f64,
    /// Standard deviation of a.
    pub deviation: f64,
    /// Share of columns with activations, 0..1.
    pub active: f64,
    /// Entropy of a as a distribution, in bits.
    pub entropy: f64,
    /// The same as a share of the greatest possible, 0..1.
    pub normalized_entropy: f64,
    /// Share of columns more than a standard deviation above the mean, 0..1.
    pub outliers: f64,
    /// Cosine between the sums of this tensor and of the same one a layer earlier; 0 without one.
    pub similarity: f64,
}

/// Averages over a layer's entries, weighted by columns.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerStatistics {
    /// The layer.
    pub layer: u64,
    /// As [`EntryStatistics::sum`].
    pub sum: f64,
    /// As [`EntryStatistics::outliers`].
    pub outliers: f64,
    /// As [`EntryStatistics::similarity`].
    pub similarity: f64,
}

/// All figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// By tensor kind, the greatest sums first.
    pub entries: Vec<EntryStatistics>,
    /// By layer.
    pub layers: Vec<LayerStatistics>,
}

impl Importance {
    /// Computes the figures of every entry and layer.
    pub fn statistics(&self) -> Statistics {
        let mut entries: Vec<EntryStatistics> = self
            .entries
            .iter()
            .map(|(name, entry)| self.entry_statistics(name.as_ref(), entry))
            .collect();
        let mut layers: BTreeMap<u64, Vec<&EntryStatistics>> = BTreeMap::new();
        for entry in &entries {
            if let Some((layer, _)) = layer_and_kind(entry.tensor.as_ref()) {
                layers.entry(layer).or_default().push(entry);
            }
        }
        let layers = layers
            .into_iter()
            .map(|(layer, entries)| {
                let columns: f64 = entries.iter().map(|e| e.columns as f64).sum();
                let average = |figure: fn(&EntryStatistics) -> f64| {
                    let weighted = entries.iter().map(|e| figure(e) * e.columns as f64);
                    weighted.sum::<f64>() / columns.max(1.0)
                };
                LayerStatistics {
                    layer,
                    sum: average(|e| e.sum),
                    outliers: average(|e| e.outliers),
                    similarity: average(|e| e.similarity),
                }
            })
            .collect();
        let kind = |entry: &EntryStatistics| {
            let name = entry.tensor.as_bstr();
            layer_and_kind(name).map_or_else(|| name.to_owned(), |(_, kind)| kind.to_owned())
        };
        entries.sort_by(|a, b| kind(a).cmp(&kind(b)).then(b.sum.total_cmp(&a.sum)));
        Statistics { entries, layers }
    }

    fn entry_statistics(&self, name: &BStr, entry: &Entry) -> EntryStatistics {
        let columns = entry.columns(entry.counts.len());
        let values: Vec<f32> = entry
            .sums
            .chunks_exact(columns.max(1))
            .zip(&entry.counts)
            .filter(|&(_, &count)| count > 0)
            .flat_map(|(sums, &count)| sums.iter().map(move |sum| sum / count as f32))
            .collect();
        let n = values.len().max(1) as f64;
        let sum: f64 = values.iter().map(|&a| f64::from(a)).sum();
        let squares: f64 = values.iter().map(|&a| f64::from(a) * f64::from(a)).sum();
        let mean = sum / n;
        let deviation = (squares / n - mean * mean).max(0.0).sqrt();
        let entropy: f64 = values
            .iter()
            .map(|&a| f64::from(a) / sum)
            .filter(|&p| p > 0.0)
            .map(|p| -p * p.log2())
            .sum();
        let share = |is: &dyn Fn(f32) -> bool| values.iter().filter(|&&a| is(a)).count() as f64 / n;
        let before = layer_and_kind(name)
            .and_then(|(layer, kind)| Some((layer.checked_sub(1)?, kind)))
            .and_then(|(layer, kind)| self.get(format!("blk.{layer}.{kind}")));
        EntryStatistics {
            tensor: name.to_owned(),
            columns: values.len(),
            tokens: (
                entry.counts.iter().copied().min().unwrap_or(0),
                entry.counts.iter().copied().max().unwrap_or(0),
            ),
            sum,
            min: values.iter().copied().reduce(f32::min).unwrap_or(0.0),
            max: values.iter().copied().reduce(f32::max).unwrap_or(0.0),
            mean,
            deviation,
            active: 1.0 - share(&|a| a.abs() <= INACTIVE),
            entropy,
            normalized_entropy: if n > 1.0 { entropy / n.log2() } else { 0.0 },
            outliers: if deviation > 0.0 {
                share(&|a| (f64::from(a) - mean) / deviation > 1.0)
            } else {
                0.0
            },
            similarity: before.map_or(0.0, |before| cosine(&entry.sums, &before.sums)),
        }
    }
}

fn layer_and_kind(name: &BStr) -> Option<(u64, &BStr)> {
    crate::plan::layer(name)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return 0.0;
    }
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&x, &y)| f64::from(x) * f64::from(y))
            .sum()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}
