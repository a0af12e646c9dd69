//! Softmax attention of a few query rows over one head's cache.
//!
//! Keys are taken in tiles with a running maximum and sum (online softmax). Every step of a row
//! depends on that row alone and tiles stand at fixed positions, so that results do not depend on
//! how rows are grouped.

use std::ops::Range;

use gristmill_quantize::Isa;

use crate::cache::{HeadCache, TILE};
use crate::ops::exp;
use crate::simd::{Loops, Simd, dispatch, multiply_add};

/// What is added to scores by position.
#[derive(Debug, Clone)]
pub(crate) enum Bias {
    /// ALiBi: minus the distance times the head's slope.
    Slopes(Vec<f32>),
    /// T5: one value for each head and bucket of relative positions.
    Buckets {
        /// Head × bucket.
        values: Vec<f32>,
        /// Buckets of a head.
        count: usize,
        /// Whether later keys have buckets of their own.
        bidirectional: bool,
    },
}

impl Bias {
    /// ALiBi's slopes for this many heads (arXiv 2108.12409).
    pub fn alibi(heads: usize, max: f32) -> Self {
        let base = 1usize << heads.max(1).ilog2();
        let first = (-max / base as f32).exp2();
        let second = (-max / 2.0 / base as f32).exp2();
        let slope = |head: usize| match head < base {
            true => first.powi(head as i32 + 1),
            false => second.powi(2 * (head - base) as i32 + 1),
        };
        Self::Slopes((0..heads).map(slope).collect())
    }

    fn at(&self, head: usize, query: usize, key: usize) -> f32 {
        match self {
            Self::Slopes(slopes) => -slopes[head] * query.abs_diff(key) as f32,
            Self::Buckets {
                values,
                count,
                bidirectional,
            } => values[head * count + bucket(query, key, *count, *bidirectional)],
        }
    }
}

/// T5's bucket of a relative position, with a largest distance of 128.
fn bucket(query: usize, key: usize, count: usize, bidirectional: bool) -> usize {
    const MAX_DISTANCE: f32 = 128.0;
    let (count, first, distance) = if bidirectional {
        let half = count / 2;
        (
            half,
            if key > query { half } else { 0 },
            query.abs_diff(key),
        )
    } else {
        (count, 0, query.saturating_sub(key))
    };
    let exact = count / 2;
    if distance < exact {
        return first + distance;
    }
    let log = (distance as f32 / exact as f32).ln() / (MAX_DISTANCE / exact as f32).ln();
    first + (exact + (log * (count - exact) as f32) as usize).min(count - 1)
}

/// How scores become weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule<'a> {
    /// Multiplies `q · k`.
    pub scale: f32,
    /// `c · tanh(s / c)`; 0: none.
    pub softcap: f32,
    /// A further logit for each head, without value.
    pub sinks: Option<&'a [f32]>,
    pub bias: Option<&'a Bias>,
}

/// One row: a query head of a token.
#[derive(Debug, Clone)]
pub(crate) struct Row<'a> {
    pub head: usize,
    pub position: usize,
    /// Positions it sees.
    pub visible: Range<usize>,
    /// Those of them that it sees, where they are chosen: a bit each, a word for each tile.
    pub chosen: Option<&'a [u64]>,
}

/// Buffers of a thread.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    max: Vec<f32>,
    sum: Vec<f32>,
}

/// Attention of `rows` (their queries one after another in `queries`) into `out`, a value vector
/// for each.
pub(crate) fn attend(
    isa: Isa,
    cache: &HeadCache,
    rule: Rule<'_>,
    rows: &[Row<'_>],
    queries: &[f32],
    out: &mut [f32],
    buffers: &mut Buffers,
) {
    dispatch(
        isa,
        Attend {
            cache,
            rule,
            rows,
            queries,
            out,
            buffers,
        },
    );
}

struct Attend<'a> {
    cache: &'a HeadCache,
    rule: Rule<'a>,
    rows: &'a [Row<'a>],
    queries: &'a [f32],
    out: &'a mut [f32],
    buffers: &'a mut Buffers,
}

impl Loops for Attend<'_> {
    #[inline(always)]
    fn run<S: Simd, const WIDE: usize>(self, simd: S) {
        let Self {
            cache,
            rule,
            rows,
            queries,
            out,
            buffers,
        } = self;
        let n = rows.len();
        let key_length = queries.len() / n;
        let value_length = out.len() / n;
        let Buffers {
            keys,
            values,
            scores,
            max,
            sum,
        } = buffers;
        scores.resize(n * TILE, 0.0);
        max.clear();
        sum.clear();
        for row in rows {
            // A sink takes part in the softmax from the start.
            let sink = rule.sinks.map(|sinks| sinks[row.head]);
            max.push(sink.unwrap_or(f32::NEG_INFINITY));
            sum.push(if sink.is_some() { 1.0 } else { 0.0 });
        }
        out.fill(0.0);
        let first = rows.iter().map(|r| r.visible.start).min().unwrap_or(0);
        let last = rows.iter().map(|r| r.visible.end).max().unwrap_or(0);
        for tile in first / TILE..last.div_ceil(TILE) {
            let start = tile * TILE;
            let count = (last - start).min(TILE);
            let key_tile = cache.key_tile(simd, tile, keys);
            products::<S, WIDE>(simd, queries, key_length, key_tile, scores);
            for (r, row) in rows.iter().enumerate() {
                let scores = &mut scores[r * TILE..(r + 1) * TILE];
                scale_scores(&rule, row, start, scores);
                let out = &mut out[r * value_length..(r + 1) * value_length];
                weigh(scores, &mut max[r], &mut sum[r], out);
            }
            let value_tile = cache.value_tile(simd, tile, count, values);
            combine::<S, WIDE>(simd, scores, count, value_tile, value_length, out);
        }
        for (out, sum) in out.chunks_exact_mut(value_length).zip(sum) {
            let inverse = if *sum > 0.0 { 1.0 / *sum } else { 0.0 };
            out.iter_mut().for_each(|o| *o *= inverse);
        }
    }
}

/// Scale, soft cap, bias and mask of a row's scores in the tile that begins at `start`.
#[inline(always)]
fn scale_scores(rule: &Rule<'_>, row: &Row<'_>, start: usize, scores: &mut [f32]) {
    for s in scores.iter_mut() {
        *s *= rule.scale;
    }
    if rule.softcap > 0.0 {
        for s in scores.iter_mut() {
            *s = rule.softcap * (*s / rule.softcap).tanh();
        }
    }
    if let Some(bias) = rule.bias {
        for (i, s) in scores.iter_mut().enumerate() {
            *s += bias.at(row.head, row.position, start + i);
        }
    }
    let from = row.visible.start.saturating_sub(start).min(TILE);
    let until = row.visible.end.saturating_sub(start).min(TILE).max(from);
    scores[..from].fill(f32::NEG_INFINITY);
    scores[until..].fill(f32::NEG_INFINITY);
    if let Some(chosen) = row.chosen {
        let word = chosen.get(start / TILE).copied().unwrap_or(0);
        for (i, s) in scores.iter_mut().enumerate() {
            if (word >> i) & 1 == 0 {
                *s = f32::NEG_INFINITY;
            }
        }
    }
}

/// Turns scores into weights relative to the running maximum and adds them to the running sum.
#[inline(always)]
fn weigh(scores: &mut [f32], max: &mut f32, sum: &mut f32, out: &mut [f32]) {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for chunk in scores.chunks_exact(16) {
        for (lane, &s) in lanes.iter_mut().zip(chunk) {
            *lane = if s > *lane { s } else { *lane };
        }
    }
    let highest = lanes.iter().fold(*max, |a, &b| if b > a { b } else { a });
    if highest == f32::NEG_INFINITY {
        scores.fill(0.0);
        return;
    }
    if highest > *max {
        let shrink = exp(*max - highest);
        *sum *= shrink;
        out.iter_mut().for_each(|o| *o *= shrink);
        *max = highest;
    }
    let mut lanes = [0f32; 16];
    for chunk in scores.chunks_exact_mut(16) {
        for (lane, s) in lanes.iter_mut().zip(chunk) {
            *s = exp(*s - highest);
            *lane += *s;
        }
    }
    *sum += lanes.iter().sum::<f32>();
}

/// `scores[row][key] = query[row] · key`, for all keys of a tile.
#[inline(always)]
fn products<S: Simd, const WIDE: usize>(
    simd: S,
    queries: &[f32],
    length: usize,
    tile: &[f32],
    scores: &mut [f32],
) {
    let queries = queries.chunks(4 * length);
    for (queries, scores) in queries.zip(scores.chunks_mut(4 * TILE)) {
        for first in (0..TILE).step_by(WIDE * S::LANES) {
            if queries.len() == 4 * length {
                product_block::<S, WIDE, 4>(simd, queries, length, tile, first, scores);
                continue;
            }
            let rows = queries.chunks_exact(length);
            for (query, scores) in rows.zip(scores.chunks_exact_mut(TILE)) {
                product_block::<S, WIDE, 1>(simd, query, length, tile, first, scores);
            }
        }
    }
}

#[inline(always)]
fn product_block<S: Simd, const WIDE: usize, const ROWS: usize>(
    simd: S,
    queries: &[f32],
    length: usize,
    tile: &[f32],
    first: usize,
    scores: &mut [f32],
) {
    let mut sums = [[simd.splat(0.0); WIDE]; ROWS];
    for (i, keys) in tile.as_chunks::<TILE>().0.iter().enumerate() {
        for v in 0..WIDE {
            let keys = simd.load(&keys[first + v * S::LANES..]);
            for r in 0..ROWS {
                let query = simd.splat(queries[r * length + i]);
                sums[r][v] = simd.multiply_add(query, keys, sums[r][v]);
            }
        }
    }
    for r in 0..ROWS {
        for v in 0..WIDE {
            simd.store(sums[r][v], &mut scores[r * TILE + first + v * S::LANES..]);
        }
    }
}

/// `out[row] += Σ weight[row][key] · value[key]`.
#[inline(always)]
fn combine<S: Simd, const WIDE: usize>(
    simd: S,
    weights: &[f32],
    count: usize,
    values: &[f32],
    length: usize,
    out: &mut [f32],
) {
    let wide = WIDE * S::LANES;
    let whole = length / wide * wide;
    for (weights, out) in weights.chunks(4 * TILE).zip(out.chunks_mut(4 * length)) {
        for first in (0..whole).step_by(wide) {
            if out.len() == 4 * length {
                combine_block::<S, WIDE, 4>(simd, weights, count, values, length, first, out);
                continue;
            }
            let rows = weights.chunks_exact(TILE);
            for (weights, out) in rows.zip(out.chunks_exact_mut(length)) {
                combine_block::<S, WIDE, 1>(simd, weights, count, values, length, first, out);
            }
        }
        let rows = weights.chunks_exact(TILE);
        for (weights, out) in rows.zip(out.chunks_exact_mut(length)) {
            for i in whole..length {
                for (key, &w) in weights[..count].iter().enumerate() {
                    out[i] = multiply_add::<S>(w, values[key * length + i], out[i]);
                }
            }
        }
    }
}

#[inline(always)]
fn combine_block<S: Simd, const WIDE: usize, const ROWS: usize>(
    simd: S,
    weights: &[f32],
    count: usize,
    values: &[f32],
    length: usize,
    first: usize,
    out: &mut [f32],
) {
    let mut sums = [[simd.splat(0.0); WIDE]; ROWS];
    for (key, values) in values.chunks_exact(length).take(count).enumerate() {
        for v in 0..WIDE {
            let values = simd.load(&values[first + v * S::LANES..]);
            for r in 0..ROWS {
                let weight = simd.splat(weights[r * TILE + key]);
                sums[r][v] = simd.multiply_add(weight, values, sums[r][v]);
            }
        }
    }
    for r in 0..ROWS {
        for v in 0..WIDE {
            let out = &mut out[r * length + first + v * S::LANES..];
            simd.store(simd.add(simd.load(out), sums[r][v]), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::KvType;

    /// Scores, softmax and sum written down plainly.
    fn plain(
        keys: &[Vec<f32>],
        values: &[Vec<f32>],
        query: &[f32],
        row: &Row,
        scale: f32,
    ) -> Vec<f32> {
        let score = |k: &Vec<f32>| -> f64 {
            let dot: f32 = k.iter().zip(query).map(|(a, b)| a * b).sum();
            f64::from(dot * scale)
        };
        let sees = |p: &usize| {
            row.chosen
                .is_none_or(|words| (words[p / TILE] >> (p % TILE)) & 1 == 1)
        };
        let seen: Vec<usize> = row.visible.clone().filter(sees).collect();
        let weights: Vec<f64> = seen.iter().map(|&p| score(&keys[p]).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut out = vec![0f64; values[0].len()];
        for (w, &p) in weights.iter().zip(&seen) {
            for (o, v) in out.iter_mut().zip(&values[p]) {
                *o += w / sum * f64::from(*v);
            }
        }
        out.into_iter().map(|o| o as f32).collect()
    }

    #[test]
    fn equals_the_plain_formula_on_every_set_and_grouping() {
        let (key_length, value_length, context) = (24, 40, 150);
        let noise = |seed: usize| ((seed * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
        let vector = |p: usize, n: usize| (0..n).map(|i| noise(p * 97 + i * 13 + n)).collect();
        let keys: Vec<Vec<f32>> = (0..context).map(|p| vector(p, key_length)).collect();
        let values: Vec<Vec<f32>> = (0..context).map(|p| vector(p, value_length)).collect();
        let mut cache = HeadCache::new(KvType::F32, context, key_length, value_length);
        for p in 0..context {
            cache.write_key(p, &keys[p]);
            cache.write_value(p, &values[p]);
        }
        // Every third row sees a choice of its keys, the first of them none of the first tile.
        let words = [0, 0x0f0f_5a5a_1234_8421, u64::MAX];
        let rows: Vec<Row> = (0..context)
            .map(|p| Row {
                head: 0,
                position: p,
                visible: p.saturating_sub(70)..p + 1,
                chosen: (p % 3 == 0 && p > TILE).then_some(&words),
            })
            .collect();
        let queries: Vec<f32> = (0..context)
            .flat_map(|p| vector(p + 1000, key_length))
            .collect();
        let rule = Rule {
            scale: 0.7,
            softcap: 0.0,
            sinks: None,
            bias: None,
        };
        for isa in Isa::available() {
            let mut whole = vec![0f32; context * value_length];
            let mut buffers = Buffers::default();
            attend(isa, &cache, rule, &rows, &queries, &mut whole, &mut buffers);
            for (r, row) in rows.iter().enumerate() {
                let query = &queries[r * key_length..(r + 1) * key_length];
                let expected = plain(&keys, &values, query, row, 0.7);
                let found = &whole[r * value_length..(r + 1) * value_length];
                for (a, b) in expected.iter().zip(found) {
                    assert!((a - b).abs() < 2e-6, "{isa} row {r}: {a} {b}");
                }
                let mut alone = vec![0f32; value_length];
                attend(
                    isa,
                    &cache,
                    rule,
                    &rows[r..=r],
                    query,
                    &mut alone,
                    &mut buffers,
                );
                assert_eq!(alone, found, "{isa} row {r}");
            }
        }
    }

    #[test]
    fn buckets_follow_t5() {
        assert_eq!(bucket(5, 5, 32, true), 0);
        assert_eq!(bucket(0, 3, 32, true), 19);
        assert_eq!(bucket(300, 0, 32, true), 15);
        assert_eq!(bucket(3, 5, 32, false), 0);
        assert_eq!(bucket(20, 0, 32, false), 17);
    }
}
