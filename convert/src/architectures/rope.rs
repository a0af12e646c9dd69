//! Rotary factors that a file holds as tensors.

use serde_json::Value as Json;

use super::rules::{Named, shape_error};
use super::{Model, Part};
use crate::Error;
use crate::config::as_f64;
use crate::expr::Expr;

/// The factors of `llama3` and `longrope` scaling, for architectures that have such tensors.
pub(super) fn factors(model: &Model) -> Result<Vec<Named>, Error> {
    let has = |part: Part| {
        let parts = model.architecture.parts.iter().copied().flatten();
        parts.into_iter().any(|p| *p == part)
    };
    let mut out = Vec::new();
    if model.config.rope_type() == "llama3" && has(Part::RopeFreqs) {
        out.push(named("rope_freqs.weight", llama3(model)?)?);
    }
    if has(Part::RopeFactorsLong) {
        for (field, name) in [
            ("long_factor", "rope_factors_long.weight"),
            ("short_factor", "rope_factors_short.weight"),
        ] {
            if let Some(factors) = model.config.rope(field).and_then(Json::as_array) {
                let factors = factors
                    .iter()
                    .map(|factor| as_f64(factor).map(|f| f as f32))
                    .collect::<Option<Vec<f32>>>()
                    .ok_or_else(|| Error::config(field, "has an item that is no number"))?;
                out.push(named(name, factors)?);
            }
        }
    }
    Ok(out)
}

/// Values of the longest head that is believed.
const LARGEST_HEAD: u32 = 1 << 16;

/// A generated row of values.
pub(super) fn named(name: &str, values: Vec<f32>) -> Result<Named, Error> {
    let shape = [values.len() as u64];
    let expr = Expr::values(values, &shape).map_err(|error| shape_error(name, &error))?;
    Ok((name.to_owned(), expr))
}

/// Divisors of the rotary frequencies under `llama3` scaling: 1 for short wavelengths, `factor`
/// for long ones, a blend between. All in f32 and with the roundings of PyTorch, which divides a
/// number by a tensor as the tensor's reciprocal times the number.
fn llama3(model: &Model) -> Result<Vec<f32>, Error> {
    let config = &model.config;
    let number = |name: &str, default: f64| config.rope_f64(name).unwrap_or(default) as f32;
    let dim = config.head_dim()?;
    // A row is made here that nothing stored bounds.
    if dim > LARGEST_HEAD {
        return Err(Error::config(
            "head_dim",
            format!("is {dim}, expected {LARGEST_HEAD} at most"),
        ));
    }
    let base = config.rope_f64("rope_theta").unwrap_or(10000.0);
    let factor = number("factor", 8.0);
    let low = number("low_freq_factor", 1.0);
    let high = number("high_freq_factor", 4.0);
    let context = number("original_max_position_embeddings", 8192.0);
    let turn = std::f64::consts::TAU as f32;
    let mut factors = Vec::new();
    for i in (0..dim).step_by(2) {
        let frequency = (base as f32).powf(i as f32 / dim as f32).recip();
        let wavelength = frequency.recip() * turn;
        factors.push(if wavelength < context / high {
            1.0
        } else if wavelength > context / low {
            factor
        } else {
            let smooth = (wavelength.recip() * context - low) / (high - low);
            ((1.0 - smooth) / factor + smooth).recip()
        });
    }
    Ok(factors)
}
