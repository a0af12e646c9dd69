//! Checkpoints whose weights are already quantized: what is stored, as plain tensors.

mod awq;
mod bitnet;
mod bitsandbytes;
mod blocks;
mod compressed;
mod gptq;
mod mlx;
pub(crate) mod mxfp4;
mod nvfp4;
mod packed;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::Value as Json;

use crate::Error;
use crate::checkpoint::Stored;
use crate::config::Config;
use crate::expr::{Expr, values};

/// A name and its rows.
type Named = (String, Expr);

/// The tensors of a checkpoint by name, for schemes that put several of them together.
struct Tensors<'a>(HashMap<&'a str, &'a Stored>);

impl<'a> Tensors<'a> {
    fn get(&self, name: &str) -> Option<&'a Stored> {
        self.0.get(name).copied()
    }

    fn need(&self, name: &str) -> Result<&'a Stored, Error> {
        self.get(name)
            .ok_or_else(|| Error::tensor(name, "is missing"))
    }
}

/// All tensors as the model knows them: stored ones, and those that a scheme unpacks.
///
/// # Errors
/// If a scheme is unknown, or its tensors are incomplete or do not fit each other.
pub(crate) fn read(tensors: &[Stored], config: &Config) -> Result<Vec<Named>, Error> {
    let by_name = Tensors(tensors.iter().map(|t| (t.name.as_str(), t)).collect());
    let plain = || tensors.iter().map(|t| (t.name.clone(), Expr::load(t)));
    let quantized = ["quantization_config", "quantization"];
    let view = tensors.iter().find(|tensor| tensor.strides().is_some());
    if let (Some(view), Some((field, _))) = (view, config.first(&quantized)) {
        return Err(Error::tensor(
            &view.name,
            format!(
                "is a view whose values do not lie in order, and config.json has `{field}`; save \
                 the model again with contiguous tensors"
            ),
        ));
    }
    let Some(scheme) = config.get("quantization_config") else {
        // MLX states its parameters under another name.
        return match config.get("quantization") {
            // Mistral's own format.
            Some(scheme) if scheme.get("qformat_weight").is_some() => {
                blocks::read(tensors, &by_name, scheme)
            }
            Some(scheme) => mlx::read(tensors, &by_name, scheme),
            None => Ok(plain().collect()),
        };
    };
    let method = scheme.get("quant_method").and_then(Json::as_str);
    let flag = |name: &str| scheme.get(name).and_then(Json::as_bool) == Some(true);
    match method {
        Some("bitnet") => bitnet::read(tensors, &by_name),
        Some("bitsandbytes") => bitsandbytes::read(tensors, &by_name),
        // Files written before the method was named.
        None if flag("load_in_4bit") || flag("load_in_8bit") => {
            bitsandbytes::read(tensors, &by_name)
        }
        Some("mxfp4") => Ok(plain().collect()),
        Some("fp8" | "fbgemm_fp8") => blocks::read(tensors, &by_name, scheme),
        Some("gptq") => gptq::read(tensors, &by_name, scheme),
        Some("awq") => awq::read(tensors, &by_name, scheme),
        Some("compressed-tensors") => compressed::read(tensors, &by_name, scheme),
        // Its algorithms differ by layer at times, and can be told by what is stored.
        Some("modelopt") => nvfp4::read(tensors, &by_name),
        Some(method) => Err(Error::config(
            "quantization_config",
            format!(
                "has the method `{method}`, which is not supported; known are awq, bitnet, \
                 bitsandbytes, compressed-tensors, fp8, gptq, modelopt, mxfp4"
            ),
        )),
        None if scheme.get("group_size").is_some() && scheme.get("bits").is_some() => {
            mlx::read(tensors, &by_name, scheme)
        }
        None => Err(Error::config(
            "quantization_config",
            "does not name its `quant_method`",
        )),
    }
}

/// Whether a tensor is of use only to those who quantize activations or the cache as they run.
fn is_of_run_time(name: &str) -> bool {
    const SUFFIXES: [&str; 11] = [
        ".activation_scale",
        ".input_scale",
        ".input_zero_point",
        ".output_scale",
        ".output_zero_point",
        ".q_scale",
        ".k_scale",
        ".v_scale",
        ".k_zero_point",
        ".v_zero_point",
        ".qscale_act",
    ];
    SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// All values of a small tensor (scales, indices) as f32.
fn floats(stored: &Stored) -> Vec<f32> {
    let count = stored.elements() as usize;
    let mut out = Vec::with_capacity(count);
    values::widen(stored, 0, count, &mut out);
    out
}

/// The group of each input: as an index says, or by runs of `size`.
fn groups_of(
    weight: &Stored,
    index: Option<&Stored>,
    inputs: u64,
    size: u64,
    groups: u64,
) -> Result<Vec<u32>, Error> {
    let index: Vec<u32> = match index {
        Some(index) if index.elements() == inputs => floats(index)
            .into_iter()
            .map(|group| group as u32)
            .collect(),
        Some(_) => Vec::new(),
        None => (0..inputs)
            .map(|input| (input / size.max(1)) as u32)
            .collect(),
    };
    if index.len() as u64 != inputs || index.iter().any(|&group| u64::from(group) >= groups) {
        return Err(Error::tensor(
            &weight.name,
            format!("its index does not give each of {inputs} inputs one of {groups} groups"),
        ));
    }
    Ok(index)
}

/// A positive integer of a scheme's parameters.
fn parameter(scheme: &Json, field: &str) -> Option<u64> {
    scheme.get(field)?.as_u64().filter(|&value| value > 0)
}

/// A matrix's rows and columns.
fn matrix(stored: &Stored) -> Result<[u64; 2], Error> {
    match stored.shape[..] {
        [rows, columns] => Ok([rows, columns]),
        _ => Err(Error::tensor(
            &stored.name,
            format!("has shape {:?}, expected a matrix", stored.shape),
        )),
    }
}
