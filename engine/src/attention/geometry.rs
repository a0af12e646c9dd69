//! Attention of a whole batch over the caches, split into units of work.

use std::sync::Arc;

use super::kernel::{self, Bias, Buffers, Row, Rule};
use super::sparse::Selection;
use crate::cache::HeadCache;
use crate::parameters::Mask;
use crate::pass::Pass;

/// Query rows of one unit of work.
const UNIT_ROWS: usize = 64;

/// What a layer's attention does with scores, and its geometry.
#[derive(Debug)]
pub(crate) struct Geometry {
    pub heads: usize,
    pub kv_heads: usize,
    pub key_length: usize,
    pub value_length: usize,
    pub mask: Mask,
    pub scale: f32,
    pub softcap: f32,
    pub sinks: Option<Vec<f32>>,
    pub bias: Option<Arc<Bias>>,
}

impl Geometry {
    /// Attention of all tokens: `queries` is token × head × key length, the result token × head ×
    /// value length. `caches` holds sequence × KV head; `selection` what is seen of it.
    pub fn attend(
        &self,
        pass: &mut Pass<'_>,
        caches: &[HeadCache],
        queries: &[f32],
        selection: Option<&Selection>,
    ) -> Vec<f32> {
        self.attend_to(pass, caches, queries, None, selection)
    }

    /// As [`Geometry::attend`], to `keys[sequence]` keys instead of the sequence's own.
    pub fn attend_to(
        &self,
        pass: &mut Pass<'_>,
        caches: &[HeadCache],
        queries: &[f32],
        keys: Option<&[usize]>,
        selection: Option<&Selection>,
    ) -> Vec<f32> {
        let Self {
            heads,
            kv_heads,
            key_length,
            value_length,
            ..
        } = *self;
        let group = heads / kv_heads;
        let mut out = pass.scratch.take(pass.tokens() * heads * value_length);
        let rule = Rule {
            scale: self.scale,
            softcap: self.softcap,
            sinks: self.sinks.as_deref(),
            bias: self.bias.as_deref(),
        };
        let isa = pass.compute.isa();
        // A unit of several tokens holds all heads; a single token is split by KV heads.
        let mut units = Vec::new();
        let mut rest: &mut [f32] = &mut out;
        for &span in &pass.spans {
            let tokens = (UNIT_ROWS / group).clamp(1, span.count);
            let kv_step = if span.count == 1 { 1 } else { kv_heads };
            for first in (0..span.count).step_by(tokens) {
                let count = tokens.min(span.count - first);
                for kv in (0..kv_heads).step_by(kv_step) {
                    let len = count * kv_step * group * value_length;
                    let (part, tail) = std::mem::take(&mut rest).split_at_mut(len);
                    rest = tail;
                    units.push((span, first, count, kv..kv + kv_step, part));
                }
            }
        }
        pass.pool().chunks(&mut units, 1, |_, unit| {
            let (span, first, count, kv_range, part) = &mut unit[0];
            let mut buffers = Buffers::default();
            let rows = *count * group;
            let mut q = vec![0f32; rows * key_length];
            let mut o = vec![0f32; rows * value_length];
            for kv in kv_range.clone() {
                let mut list = Vec::with_capacity(rows);
                for t in 0..*count {
                    let position = span.start + *first + t;
                    let own = span.start + span.count;
                    let keys = keys.map_or(own, |keys| keys[span.sequence]);
                    let visible = self.mask.visible(position, keys);
                    let token = span.first + *first + t;
                    for g in 0..group {
                        let (head, visible) = (kv * group + g, visible.clone());
                        list.push(Row {
                            head,
                            position,
                            visible,
                            chosen: selection.map(|s| s.row(token, head, heads)),
                        });
                    }
                    let from = (token * heads + kv * group) * key_length;
                    q[t * group * key_length..][..group * key_length]
                        .copy_from_slice(&queries[from..][..group * key_length]);
                }
                let cache = &caches[span.sequence * kv_heads + kv];
                kernel::attend(isa, cache, rule, &list, &q, &mut o, &mut buffers);
                let (width, at) = (group * value_length, kv - kv_range.start);
                let stride = kv_range.len() * width;
                for t in 0..*count {
                    part[t * stride + at * width..][..width]
                        .copy_from_slice(&o[t * width..][..width]);
                }
            }
        });
        out
    }

    /// Stores keys and values of all tokens; `write` gets the token's row in the batch, the KV head,
    /// its position and the cache.
    pub fn store(
        &self,
        pass: &Pass<'_>,
        caches: &mut [HeadCache],
        write: impl Fn(usize, usize, usize, &mut HeadCache) + Sync,
    ) {
        let kv_heads = self.kv_heads;
        pass.pool().chunks(caches, 1, |index, cache| {
            let (sequence, head) = (index / kv_heads, index % kv_heads);
            for span in pass.spans.iter().filter(|s| s.sequence == sequence) {
                for i in 0..span.count {
                    write(span.first + i, head, span.start + i, &mut cache[0]);
                }
            }
        });
    }
}
