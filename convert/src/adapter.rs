//! LoRA adapters: as GGUF adapters, or merged into the model they were trained on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use regex::Regex;
use serde_json::Value as Json;

use crate::Error;
use crate::checkpoint::{Checkpoint, Stored};
use crate::expr::{Expr, Rows, ShapeError};

/// What is known of an adapter: for each weight of the base its two factors.
#[derive(Debug)]
pub(crate) struct Adapter<'a> {
    /// As stated, or over the root of the rank instead of the rank where the adapter says so.
    alpha: f64,
    /// By the weight's name in the base.
    pub(crate) pairs: BTreeMap<String, Pair<'a>>,
    /// Weights that were trained whole and replace the base's.
    pub(crate) whole: BTreeMap<String, &'a Stored>,
}

/// The factors of an update: `W + scale · B·A`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    /// rank × inputs
    a: &'a Stored,
    /// outputs × rank
    b: &'a Stored,
    scale: f64,
    pub(crate) base: BaseRows,
}

/// What a row of an adapted weight belongs to, as the base stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BaseRows {
    Outputs,
    /// As in GPT-2, whose layers conversion transposes.
    Inputs,
    /// An embedding's inputs are its tokens.
    Tokens,
}

impl<'a> Adapter<'a> {
    /// Reads an adapter's configuration and pairs its tensors. Scales are those of PEFT's
    /// `LoraLayer.update_layer`.
    pub(crate) fn new(checkpoint: &'a Checkpoint) -> Result<Self, Error> {
        let scaling = Scaling::new(checkpoint)?;
        let mut halves: BTreeMap<String, [Option<&Stored>; 2]> = BTreeMap::new();
        let mut embeddings = BTreeSet::new();
        let mut whole = BTreeMap::new();
        for tensor in checkpoint.tensors() {
            let inner = tensor.name.strip_prefix("base_model.model.");
            let inner = inner.unwrap_or(&tensor.name);
            if let Some(half) = Half::of(inner) {
                if half.of_embedding {
                    embeddings.insert(half.weight.clone());
                }
                halves.entry(half.weight).or_default()[half.place] = Some(tensor);
            } else if inner.contains(".lora_") {
                return Err(Error::tensor(
                    &tensor.name,
                    "is part of an update of an unknown kind; merge the adapter with its own tools",
                ));
            } else if !inner.contains(".base_layer.") {
                whole.insert(inner.replace(".modules_to_save.default.", "."), tensor);
            }
        }
        let mut pairs = BTreeMap::new();
        for (name, halves) in halves {
            let [Some(a), Some(b)] = halves else {
                return Err(Error::tensor(name, "has one of its two factors only"));
            };
            let (&[rank, _], &[_, other]) = (&a.shape[..], &b.shape[..]) else {
                return Err(Error::tensor(name, "has factors that are no matrices"));
            };
            if rank != other || rank == 0 {
                return Err(Error::tensor(
                    name,
                    format!("has factors of different ranks, {rank} and {other}"),
                ));
            }
            let scale = scaling.of(&name, rank);
            let base = match embeddings.contains(&name) {
                true => BaseRows::Tokens,
                false => scaling.base,
            };
            pairs.insert(name, Pair { a, b, scale, base });
        }
        let first = pairs.iter().next();
        Ok(Self {
            // Whatever a pattern says of single weights.
            alpha: first.map_or(scaling.alpha, |(_, pair)| {
                let rank = pair.a.shape[0] as f64;
                scaling.divided(scaling.alpha, rank) * rank
            }),
            pairs,
            whole,
        })
    }

    /// The alpha that a GGUF adapter states; readers divide it by a pair's rank.
    pub(crate) fn stated_alpha(&self) -> f64 {
        self.alpha
    }

    /// Adds the updates to a model's tensors. All must find their weight.
    pub(crate) fn merge(&self, inputs: &mut [(String, Expr)]) -> Result<(), Error> {
        let mut open: BTreeSet<&String> = self.pairs.keys().chain(self.whole.keys()).collect();
        for (name, expr) in inputs {
            if let Some((key, stored)) = in_base(&self.whole, name) {
                open.remove(key);
                let own = Expr::load(stored);
                if own.shape() != expr.shape() {
                    return Err(shapes(name, expr, own.shape()));
                }
                *expr = own;
            }
            if let Some((key, pair)) = in_base(&self.pairs, name) {
                open.remove(key);
                *expr = pair.merged(name, expr)?;
            }
        }
        match open.first() {
            None => Ok(()),
            Some(first) => Err(Error::tensor(
                *first,
                format!(
                    "is adapted, and {} such tensors are not in the base",
                    open.len()
                ),
            )),
        }
    }
}

/// The entry of a weight that the base stores under this name. A base without a head stores its
/// weights without the prefix that an adapter, trained with one, knows them by; or the other way.
fn in_base<'m, T>(map: &'m BTreeMap<String, T>, name: &str) -> Option<(&'m String, &'m T)> {
    const PREFIXES: [&str; 3] = ["model.", "transformer.", "language_model."];
    let longer = PREFIXES.iter().map(|prefix| format!("{prefix}{name}"));
    let shorter = PREFIXES
        .iter()
        .filter_map(|prefix| name.strip_prefix(prefix));
    std::iter::once(name.to_owned())
        .chain(longer)
        .chain(shorter.map(ToOwned::to_owned))
        .find_map(|name| map.get_key_value(&name))
}

fn shapes(name: &str, base: &Expr, own: &[u64]) -> Error {
    let base = base.shape();
    Error::tensor(
        name,
        format!("has shape {base:?} in the base, its update has {own:?}"),
    )
}

/// How an adapter's configuration scales its updates.
struct Scaling {
    alpha: f64,
    /// Of weights whose module's name ends in a match.
    alphas: Vec<(Regex, f64)>,
    /// Divides by the root of the rank instead of the rank.
    rank_stabilised: bool,
    base: BaseRows,
}

impl Scaling {
    fn new(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let config = checkpoint.config();
        let field = |name: &str| config.get(name).filter(|value| !value.is_null());
        let is_set = |name: &str| field(name).and_then(Json::as_bool) == Some(true);
        let refuse = |field: &str, reason: &str| Error::File {
            file: checkpoint.files().root().join("adapter_config.json"),
            reason: format!("`{field}` {reason}"),
            help: Some("merge the adapter with its own tools and convert the model".into()),
        };
        if is_set("use_dora") {
            return Err(refuse(
                "use_dora",
                "is set, and GGUF adapters carry no magnitudes",
            ));
        }
        let alpha = field("lora_alpha").and_then(Json::as_f64);
        let alpha = alpha.ok_or_else(|| refuse("lora_alpha", "is missing"))?;
        let mut alphas = Vec::new();
        for (pattern, alpha) in field("alpha_pattern")
            .and_then(Json::as_object)
            .into_iter()
            .flatten()
        {
            let regex = Regex::new(&format!(r"^(.*\.)?({pattern})$"));
            match (regex, alpha.as_f64()) {
                (Ok(regex), Some(alpha)) => alphas.push((regex, alpha)),
                _ => {
                    let reason = format!("holds `{pattern}`: {alpha}, no pattern with a number");
                    return Err(refuse("alpha_pattern", &reason));
                }
            }
        }
        Ok(Self {
            alpha,
            alphas,
            rank_stabilised: is_set("use_rslora"),
            base: match is_set("fan_in_fan_out") {
                true => BaseRows::Inputs,
                false => BaseRows::Outputs,
            },
        })
    }

    /// The factor of a weight's update.
    fn of(&self, weight: &str, rank: u64) -> f64 {
        let module = weight.strip_suffix(".weight").unwrap_or(weight);
        let own = self.alphas.iter().find(|(regex, _)| regex.is_match(module));
        self.divided(own.map_or(self.alpha, |(_, alpha)| *alpha), rank as f64)
    }

    fn divided(&self, alpha: f64, rank: f64) -> f64 {
        alpha
            / if self.rank_stabilised {
                rank.sqrt()
            } else {
                rank
            }
    }
}

/// A tensor that is one of two factors.
struct Half {
    /// The weight's name in the base.
    weight: String,
    /// 0 for the factor of the inputs, 1 for that of the outputs.
    place: usize,
    of_embedding: bool,
}

impl Half {
    /// By name: `X.lora_A.weight` is the first factor of `X.weight`.
    fn of(name: &str) -> Option<Self> {
        let name = name.strip_suffix(".weight").unwrap_or(name);
        let name = name.strip_suffix(".default").unwrap_or(name);
        let (module, factor) = name.rsplit_once('.')?;
        let (place, of_embedding) = match factor {
            "lora_A" => (0, false),
            "lora_B" => (1, false),
            "lora_embedding_A" => (0, true),
            "lora_embedding_B" => (1, true),
            _ => return None,
        };
        Some(Self {
            weight: format!("{module}.weight"),
            place,
            of_embedding,
        })
    }
}

impl Pair<'_> {
    /// The factors as a GGUF adapter holds them, whose readers scale by `alpha` over the rank:
    /// rank × inputs, and outputs × rank.
    pub(crate) fn factors(&self, alpha: f64) -> Result<[Expr; 2], ShapeError> {
        let b = Expr::load(self.b);
        let left = self.scale * self.a.shape[0] as f64 / alpha;
        let scaled = match alpha != 0.0 && (left - 1.0).abs() > 1e-9 {
            true => b.scale_rows(vec![left as f32; b.row_count() as usize])?,
            false => b,
        };
        Ok([Expr::load(self.a), scaled])
    }

    fn merged(&self, name: &str, base: &Expr) -> Result<Expr, Error> {
        let (rank, inputs, outputs) = (self.a.shape[0], self.a.shape[1], self.b.shape[0]);
        let failed = |error: ReadError| Error::tensor(name, error.to_string());
        let shape = match self.base {
            BaseRows::Outputs => [inputs, outputs],
            BaseRows::Inputs | BaseRows::Tokens => [outputs, inputs],
        };
        if base.shape() != shape {
            return Err(shapes(name, base, &shape));
        }
        let transposed = |stored: &Stored| {
            let fits = Expr::load(stored).transpose();
            fits.map_err(|error| Error::tensor(name, error.to_string()))
        };
        let (directions, shares) = match self.base {
            BaseRows::Outputs => (Expr::load(self.a), Expr::load(self.b)),
            BaseRows::Inputs | BaseRows::Tokens => (transposed(self.b)?, transposed(self.a)?),
        };
        let update = Update {
            base: base.clone(),
            directions: directions.f32_rows(0..rank).map_err(failed)?,
            shares,
            scale: self.scale as f32,
        };
        Ok(Expr::scheme(TensorType::F32, &shape, update))
    }
}

/// Rows of `base + scale · shares·directions`. The directions are few and kept; the shares are read
/// by rows.
#[derive(Debug)]
struct Update {
    base: Expr,
    directions: Vec<f32>,
    shares: Expr,
    scale: f32,
}

impl Rows for Update {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let width = self.base.row_len() as usize;
        let rank = self.shares.row_len() as usize;
        let mut base = self.base.f32_rows(rows.clone())?;
        let shares = self.shares.f32_rows(rows)?;
        let mut update = vec![0.0f32; width];
        for (row, shares) in base.chunks_exact_mut(width).zip(shares.chunks_exact(rank)) {
            update.fill(0.0);
            for (share, direction) in shares.iter().zip(self.directions.chunks_exact(width)) {
                update
                    .iter_mut()
                    .zip(direction)
                    .for_each(|(sum, value)| *sum += share * value);
            }
            row.iter_mut()
                .zip(&update)
                .for_each(|(value, sum)| *value += self.scale * sum);
        }
        out.extend(base.iter().flat_map(|value| value.to_le_bytes()));
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        self.base.release(rows.clone());
        self.shares.release(rows);
    }
}
