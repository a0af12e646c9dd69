//! Importance where none was measured: what a model's own weights say about the columns of its matrices.
//!
//! A matrix that reads what a norm gives sees columns of mean square `g² + b²`, `g` being the norm's weights
//! and `b` its bias, as far as the normed vectors are evenly spread. What attention mixes, and what a
//! feed-forward layer multiplies, comes out of matrices that read a norm: the mean square of each of their
//! rows' results is `Σ w²·m` over mean squares `m` of their inputs, as far as these are independent.

use std::borrow::Cow;

use bstr::{BStr, BString, ByteSlice};
use gristmill_gguf::{ReadError, Source, TensorInfo};

use super::matrices;
use crate::types;

/// Added to an estimate, as a share of its mean: no column is taken to matter much less than others on the
/// word of a norm alone.
const DOUBT: f32 = 0.1;

/// Rows that are read at a time hold about so many values.
const READ_VALUES: u64 = 1 << 18;

/// What a matrix reads.
enum Input {
    /// What the first of these norms that there is gives.
    Norm(&'static [&'static str]),
    /// Values, mixed by attention.
    Attention,
    /// What the feed-forward layer's other matrices, of this suffix, give.
    FeedForward(&'static str),
}

/// The norms before attention and before the feed-forward layer, which in some architectures share one.
const BEFORE_ATTENTION: &[&str] = &["attn_norm_2", "attn_norm"];
const BEFORE_FEED_FORWARD: &[&str] = &["ffn_norm", "post_attention_norm", "attn_norm"];

/// What the matrix called `part` in its layer reads.
fn input(part: &BStr) -> Option<Input> {
    Some(match part.as_bytes() {
        b"output" => Input::Norm(&["output_norm"]),
        b"attn_q" | b"attn_k" | b"attn_v" | b"attn_qkv" | b"attn_gate" | b"attn_q_a"
        | b"attn_kv_a_mqa" | b"ssm_in" => Input::Norm(BEFORE_ATTENTION),
        b"attn_q_b" => Input::Norm(&["attn_q_a_norm"]),
        b"attn_kv_b" => Input::Norm(&["attn_kv_a_norm"]),
        b"ffn_gate" | b"ffn_up" | b"ffn_gate_inp" | b"ffn_gate_exps" | b"ffn_up_exps"
        | b"ffn_gate_up_exps" | b"ffn_gate_shexp" | b"ffn_up_shexp" => {
            Input::Norm(BEFORE_FEED_FORWARD)
        }
        b"attn_output" => Input::Attention,
        b"ffn_down" => Input::FeedForward(""),
        b"ffn_down_exps" => Input::FeedForward("_exps"),
        b"ffn_down_shexp" => Input::FeedForward("_shexp"),
        _ => return None,
    })
}

/// Estimated importance of the columns of tensor `info`, matrix after matrix for a stack; `None` where
/// nothing is known.
///
/// # Errors
/// If the source cannot be read.
pub(crate) fn estimate(
    source: &dyn Source,
    info: &TensorInfo,
) -> Result<Option<Vec<f32>>, ReadError> {
    let Some(name) = info.name.strip_suffix(b".weight") else {
        return Ok(None);
    };
    let at = name.rfind_byte(b'.').map_or(0, |dot| dot + 1);
    let layer = Layer {
        source,
        prefix: name[..at].as_bstr(),
    };
    let found = match input(name[at..].as_bstr()) {
        None => None,
        Some(Input::Norm(norms)) => layer.normed(norms)?,
        Some(Input::Attention) => layer.attention(info.row_len() as usize)?,
        Some(Input::FeedForward(suffix)) => {
            let columns = info.row_len() as usize;
            layer.feed_forward(suffix, columns, matrices(info) as usize)?
        }
    };
    let columns = info.row_len() as usize;
    let found = found.filter(|found| {
        [columns, columns * matrices(info) as usize].contains(&found.len())
            && found.iter().all(|value| value.is_finite())
    });
    Ok(found.map(|mut found| {
        for matrix in found.chunks_exact_mut(columns.max(1)) {
            let mean = matrix.iter().sum::<f32>() / columns as f32;
            matrix.iter_mut().for_each(|value| *value += DOUBT * mean);
        }
        found
    }))
}

/// The tensors of a layer, which have a prefix in common.
struct Layer<'a> {
    source: &'a dyn Source,
    prefix: &'a BStr,
}

impl Layer<'_> {
    fn find(&self, part: &str) -> Option<(usize, &TensorInfo)> {
        let mut name = BString::from(self.prefix);
        name.extend_from_slice(part.as_bytes());
        let tensors = self.source.tensors().iter().enumerate();
        tensors.into_iter().find(|(_, tensor)| tensor.name == name)
    }

    /// Mean squares of what the first of these norms that there is gives.
    fn normed(&self, norms: &[&str]) -> Result<Option<Vec<f32>>, ReadError> {
        let weight = |norm: &str| self.find(&format!("{norm}.weight"));
        // A layer without a norm before attention has norms after, whatever they are called.
        if norms == BEFORE_FEED_FORWARD && weight("attn_norm").is_none() {
            return Ok(None);
        }
        for norm in norms {
            let Some(found) = weight(norm) else { continue };
            let Some(mut squares) = self.squares(found)? else {
                return Ok(None);
            };
            if let Some(bias) = self.find(&format!("{norm}.bias")) {
                let bias = self.squares(bias)?.unwrap_or_default();
                squares
                    .iter_mut()
                    .zip(bias)
                    .for_each(|(sum, more)| *sum += more);
            }
            return Ok(Some(squares));
        }
        Ok(None)
    }

    /// The squares of a vector.
    fn squares(&self, (at, info): (usize, &TensorInfo)) -> Result<Option<Vec<f32>>, ReadError> {
        if info.rows() != 1 {
            return Ok(None);
        }
        let values = self.decode(at, info, 0, 1)?;
        Ok(values.map(|values| values.iter().map(|value| value * value).collect()))
    }

    /// Mean squares of what the matrix called `part` gives for inputs of mean squares `input`, by row.
    fn results(&self, part: &str, input: &[f32]) -> Result<Option<Vec<f32>>, ReadError> {
        let Some((at, info)) = self.find(&format!("{part}.weight")) else {
            return Ok(None);
        };
        if info.row_len() != input.len() as u64 || input.is_empty() {
            return Ok(None);
        }
        let step = (READ_VALUES / info.row_len()).max(1);
        let mut results = Vec::with_capacity(info.rows() as usize);
        for start in (0..info.rows()).step_by(step as usize) {
            let end = info.rows().min(start + step);
            let Some(values) = self.decode(at, info, start, end)? else {
                return Ok(None);
            };
            results.extend(
                values
                    .chunks_exact(input.len())
                    .map(|row| weighted_square(row, input)),
            );
        }
        Ok(Some(results))
    }

    fn decode(
        &self,
        at: usize,
        info: &TensorInfo,
        start: u64,
        end: u64,
    ) -> Result<Option<Vec<f32>>, ReadError> {
        let bytes: Cow<'_, [u8]> = self.source.rows(at, start..end)?;
        let mut values = vec![0.0; ((end - start) * info.row_len()) as usize];
        Ok(types::decode(info.ty, &bytes, &mut values)
            .ok()
            .map(|()| values))
    }

    /// What attention mixes: the values of each head, which several heads may share.
    fn attention(&self, columns: usize) -> Result<Option<Vec<f32>>, ReadError> {
        let Some(input) = self.normed(BEFORE_ATTENTION)? else {
            return Ok(None);
        };
        let (Some(heads), Some(value_heads)) = (self.number("head_count"), self.value_heads())
        else {
            return Ok(None);
        };
        let shared = heads / value_heads.max(1);
        let size = columns / heads.max(1);
        if size * heads != columns || shared * value_heads != heads {
            return Ok(None);
        }
        // Where queries, keys and values are one matrix, values come last.
        let values = match self.results("attn_v", &input)? {
            Some(values) => Some(values),
            None => self.results("attn_qkv", &input)?,
        };
        let Some(values) = values.filter(|values| values.len() >= value_heads * size) else {
            return Ok(None);
        };
        let values = &values[values.len() - value_heads * size..];
        let of = |column: usize| values[column / size / shared * size + column % size];
        Ok(Some((0..columns).map(of).collect()))
    }

    /// What the feed-forward layer multiplies, for `matrices` of `columns` each.
    fn feed_forward(
        &self,
        suffix: &str,
        columns: usize,
        matrices: usize,
    ) -> Result<Option<Vec<f32>>, ReadError> {
        let Some(input) = self.normed(BEFORE_FEED_FORWARD)? else {
            return Ok(None);
        };
        let count = columns * matrices;
        let up = self.results(&format!("ffn_up{suffix}"), &input)?;
        let gate = self.results(&format!("ffn_gate{suffix}"), &input)?;
        Ok(match (up, gate) {
            (Some(up), Some(gate)) if up.len() == count && gate.len() == count => {
                Some(up.iter().zip(gate).map(|(up, gate)| up * gate).collect())
            }
            (Some(up), None) if up.len() == count => Some(up),
            _ => None,
        })
    }

    fn value_heads(&self) -> Option<usize> {
        self.number("head_count_kv").or(self.number("head_count"))
    }

    /// A number of the architecture's attention.
    fn number(&self, key: &str) -> Option<usize> {
        let metadata = self.source.metadata();
        let architecture = metadata.str("general.architecture")?;
        let number = metadata.u64(format!("{architecture}.attention.{key}"))?;
        usize::try_from(number).ok()
    }
}

/// `Σ w²·m`, in an order that vector instructions keep.
fn weighted_square(row: &[f32], means: &[f32]) -> f32 {
    const PARTS: usize = 16;
    let mut sums = [0.0; PARTS];
    for (row, means) in row.chunks(PARTS).zip(means.chunks(PARTS)) {
        for ((sum, w), m) in sums.iter_mut().zip(row).zip(means) {
            *sum += w * w * m;
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use gristmill_gguf::{Metadata, TensorType, Value};

    use super::*;

    /// A model in memory.
    struct Model {
        metadata: Metadata,
        tensors: Vec<TensorInfo>,
        data: Vec<Vec<u8>>,
    }

    impl Model {
        fn new(tensors: &[(&str, &[u64], &[f32])]) -> Self {
            let metadata: [(&str, Value); 3] = [
                ("general.architecture", "llama".into()),
                ("llama.attention.head_count", 2u32.into()),
                ("llama.attention.head_count_kv", 1u32.into()),
            ];
            let info = |&(name, shape, _): &(&str, &[u64], _)| TensorInfo {
                name: name.into(),
                shape: shape.to_vec(),
                ty: TensorType::F32,
            };
            let bytes = |(.., values): &(_, _, &[f32])| -> Vec<u8> {
                values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect()
            };
            Self {
                metadata: metadata.into_iter().collect(),
                tensors: tensors.iter().map(info).collect(),
                data: tensors.iter().map(bytes).collect(),
            }
        }

        /// The estimate for a tensor of this name and shape, without the doubt.
        fn sure(&self, name: &str, shape: &[u64]) -> Option<Vec<f32>> {
            let info = TensorInfo {
                name: name.into(),
                shape: shape.to_vec(),
                ty: TensorType::F32,
            };
            let found = estimate(self, &info).unwrap()?;
            let columns = shape[0] as usize;
            let sure = |matrix: &[f32]| {
                let mean = matrix.iter().sum::<f32>() / columns as f32 / (1.0 + DOUBT);
                let sure = |value: &f32| ((value - DOUBT * mean) * 1e3).round() / 1e3;
                matrix.iter().map(sure).collect::<Vec<_>>()
            };
            Some(found.chunks(columns).flat_map(sure).collect())
        }
    }

    impl Source for Model {
        fn metadata(&self) -> &Metadata {
            &self.metadata
        }

        fn tensors(&self) -> &[TensorInfo] {
            &self.tensors
        }

        fn rows(&self, tensor: usize, rows: Range<u64>) -> Result<Cow<'_, [u8]>, ReadError> {
            let row = self.tensors[tensor].row_len() * 4;
            let bytes = (rows.start * row) as usize..(rows.end * row) as usize;
            Ok(Cow::Borrowed(&self.data[tensor][bytes]))
        }
    }

    fn model() -> Model {
        Model::new(&[
            ("output_norm.weight", &[2], &[1.0, 2.0]),
            ("blk.0.attn_norm.weight", &[2], &[1.0, 2.0]),
            ("blk.0.attn_norm.bias", &[2], &[0.0, 3.0]),
            ("blk.0.attn_v.weight", &[2, 2], &[1.0, 0.0, 2.0, 1.0]),
            ("blk.0.ffn_norm.weight", &[2], &[1.0, 0.5]),
            ("blk.0.ffn_up.weight", &[2, 2], &[1.0, 2.0, 3.0, 0.0]),
            (
                "blk.0.ffn_gate_exps.weight",
                &[2, 1, 2],
                &[1.0, 0.0, 0.0, 2.0],
            ),
            (
                "blk.0.ffn_up_exps.weight",
                &[2, 1, 2],
                &[3.0, 0.0, 0.0, 2.0],
            ),
            ("blk.1.ffn_norm.weight", &[2], &[1.0, f32::NAN]),
            ("blk.1.attn_norm.weight", &[2], &[1.0, 1.0]),
        ])
    }

    #[test]
    fn a_norm_tells_of_what_reads_it() {
        let model = model();
        let query = model.sure("blk.0.attn_q.weight", &[2, 4]);
        assert_eq!(query.as_deref(), Some([1.0, 13.0].as_slice()));
        let head = model.sure("output.weight", &[2, 5]);
        assert_eq!(head.as_deref(), Some([1.0, 4.0].as_slice()));
    }

    #[test]
    fn the_rows_of_one_matrix_tell_of_the_columns_of_the_next() {
        let model = model();
        // One head of two values, which two heads share.
        let mixed = model.sure("blk.0.attn_output.weight", &[4, 2]);
        assert_eq!(mixed.as_deref(), Some([1.0, 17.0, 1.0, 17.0].as_slice()));
        let hidden = model.sure("blk.0.ffn_down.weight", &[2, 2]);
        assert_eq!(hidden.as_deref(), Some([2.0, 9.0].as_slice()));
        let experts = model.sure("blk.0.ffn_down_exps.weight", &[1, 2, 2]);
        assert_eq!(experts.as_deref(), Some([9.0, 1.0].as_slice()));
    }

    #[test]
    fn nothing_is_said_of_what_is_not_known() {
        let model = model();
        for (name, shape) in [
            ("token_embd.weight", [2, 5]),
            ("blk.0.attn_q.weight", [3, 4]),
            ("blk.0.attn_output.weight", [3, 2]),
            ("blk.0.ffn_down.weight", [3, 2]),
            ("blk.1.ffn_up.weight", [2, 2]),
            ("blk.2.attn_q.weight", [2, 2]),
        ] {
            assert_eq!(model.sure(name, &shape), None, "{name}");
        }
    }
}
