//! LoRA adapters: as GGUF adapters, or merged into the model they were trained on.

use std::collections::BTreeMap;
use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use serde_json::Value as Json;

use crate::Error;
use crate::checkpoint::{Checkpoint, Stored};
use crate::expr::{Expr, Rows};

/// What is known of an adapter: for each weight of the base its two factors.
#[derive(Debug)]
pub(crate) struct Adapter<'a> {
    /// As stated; the pair's product is scaled by it over the rank.
    pub(crate) alpha: f64,
    /// Divides by the root of the rank instead.
    rank_stabilised: bool,
    /// By the weight's name in the base.
    pub(crate) pairs: BTreeMap<String, Pair<'a>>,
}

/// The factors of an update: `W + scale · B·A`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'a> {
    /// rank × inputs
    pub(crate) a: &'a Stored,
    /// outputs × rank
    pub(crate) b: &'a Stored,
}

impl<'a> Adapter<'a> {
    /// Reads an adapter's configuration and pairs its tensors.
    pub(crate) fn new(checkpoint: &'a Checkpoint) -> Result<Self, Error> {
        let config = checkpoint.config();
        let field = |name: &str| config.get(name).filter(|value| !value.is_null());
        let refuse = |field: &str, reason: &str| {
            let file = checkpoint.files().root().join("adapter_config.json");
            Err(Error::File {
                file,
                reason: format!("`{field}` {reason}"),
                help: Some("merge the adapter with its own tools and convert the model".into()),
            })
        };
        if field("use_dora").and_then(Json::as_bool) == Some(true) {
            return refuse("use_dora", "is set, and GGUF adapters carry no magnitudes");
        }
        for name in ["rank_pattern", "alpha_pattern"] {
            if field(name)
                .and_then(Json::as_object)
                .is_some_and(|map| !map.is_empty())
            {
                return refuse(name, "varies by layer, and a GGUF adapter has one alpha");
            }
        }
        let alpha = field("lora_alpha").and_then(Json::as_f64);
        let Some(alpha) = alpha else {
            return refuse("lora_alpha", "is missing");
        };
        let mut halves: BTreeMap<String, [Option<&Stored>; 2]> = BTreeMap::new();
        for tensor in checkpoint.tensors() {
            let (name, half) = split(&tensor.name).ok_or_else(|| {
                Error::tensor(
                    &tensor.name,
                    "is no factor of an update; whole tensors (modules_to_save) do not fit an \
                     adapter: merge it with its own tools",
                )
            })?;
            halves.entry(name).or_default()[half] = Some(tensor);
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
            pairs.insert(name, Pair { a, b });
        }
        Ok(Self {
            alpha,
            rank_stabilised: field("use_rslora").and_then(Json::as_bool) == Some(true),
            pairs,
        })
    }

    /// The alpha that a GGUF adapter states; readers divide it by the rank.
    pub(crate) fn stated_alpha(&self) -> f64 {
        let rank = self.pairs.values().next().map_or(1, |pair| pair.a.shape[0]);
        if self.rank_stabilised {
            self.alpha * (rank as f64).sqrt()
        } else {
            self.alpha
        }
    }

    /// Adds the updates to a model's tensors. All pairs must find their weight.
    pub(crate) fn merge(&self, inputs: &mut [(String, Expr)]) -> Result<(), Error> {
        let mut open: Vec<&String> = self.pairs.keys().collect();
        for (name, expr) in inputs {
            let Some(pair) = self.pairs.get(name) else {
                continue;
            };
            open.retain(|other| *other != name);
            *expr = pair.merged(name, expr, self.stated_alpha())?;
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

/// `base_model.model.X.lora_A.weight` as `X.weight` and 0; 1 for the second factor.
fn split(name: &str) -> Option<(String, usize)> {
    let inner = name.strip_prefix("base_model.model.").unwrap_or(name);
    for (marker, half) in [(".lora_A.weight", 0), (".lora_B.weight", 1)] {
        if let Some(module) = inner.strip_suffix(marker) {
            return Some((format!("{module}.weight"), half));
        }
    }
    None
}

impl Pair<'_> {
    fn merged(&self, name: &str, base: &Expr, alpha: f64) -> Result<Expr, Error> {
        let (rank, inputs, outputs) = (self.a.shape[0], self.a.shape[1], self.b.shape[0]);
        if base.shape() != [inputs, outputs] {
            return Err(Error::tensor(
                name,
                format!(
                    "has shape {:?} in the base, its update has {:?}",
                    base.shape(),
                    [inputs, outputs]
                ),
            ));
        }
        let failed = |error: ReadError| Error::tensor(name, error.to_string());
        let update = Update {
            base: base.clone(),
            a: Expr::load(self.a).f32_rows(0..rank).map_err(failed)?,
            b: Expr::load(self.b),
            scale: (alpha / rank as f64) as f32,
        };
        Ok(Expr::scheme(TensorType::F32, &[inputs, outputs], update))
    }
}

/// Rows of `base + scale · b·a`. The factor `a` is small and kept; `b` is read by rows.
#[derive(Debug)]
struct Update {
    base: Expr,
    a: Vec<f32>,
    b: Expr,
    scale: f32,
}

impl Rows for Update {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let inputs = self.base.row_len() as usize;
        let rank = self.b.row_len() as usize;
        let mut base = self.base.f32_rows(rows.clone())?;
        let b = self.b.f32_rows(rows)?;
        let mut update = vec![0.0f32; inputs];
        for (row, factors) in base.chunks_exact_mut(inputs).zip(b.chunks_exact(rank)) {
            update.fill(0.0);
            for (factor, a) in factors.iter().zip(self.a.chunks_exact(inputs)) {
                update
                    .iter_mut()
                    .zip(a)
                    .for_each(|(sum, a)| *sum += factor * a);
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
        self.b.release(rows);
    }
}
