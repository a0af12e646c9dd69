//! From a model and a wish to the type of every tensor, before anything is written.
//!
//! The choices are those of `llama-quantize` (llama.cpp, `src/llama-quant.cpp`); what it gets wrong
//! without need (types forced on rows they cannot hold) is put right.

mod options;
mod role;
mod rules;

use bstr::{BStr, BString};
use gristmill_gguf::{Metadata, TensorInfo, TensorType};

pub use options::{KeyOverride, OptionError, Options, TypePattern, holds_weights, parse_type};
pub(crate) use role::layer;
use role::{Role, is_kept};
use rules::{Counters, Facts, Subject};

use crate::preset::Preset;

/// Why a tensor has the type it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The preset's rules, or what is never quantized.
    Rule,
    /// The user asked for it.
    Override,
    /// The rows do not fit the type chosen first.
    Fallback {
        /// That type.
        wanted: TensorType,
    },
}

impl Reason {
    /// `rule`, `override` or `fallback`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Override => "override",
            Self::Fallback { .. } => "fallback",
        }
    }
}

/// One tensor of a planned output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// Index among the source's tensors.
    pub source: usize,
    /// Name, shape and type in the output. The name differs from the source's after pruning.
    pub info: TensorInfo,
    /// Type in the source.
    pub from: TensorType,
    /// Why it has its type.
    pub reason: Reason,
}

impl PlannedTensor {
    /// Whether `llama-quantize` refuses to encode this tensor without importance.
    pub fn needs_importance(&self, preset: Preset) -> bool {
        use TensorType as T;
        let low = match self.info.ty {
            T::IQ3_XXS | T::IQ2_XXS | T::IQ2_XS | T::IQ2_S | T::IQ1_M | T::IQ1_S => true,
            T::Q2_K => preset == Preset::Q2_K_S,
            _ => false,
        };
        let role = Role::of(self.info.name.as_ref());
        low && self.from != self.info.ty && !matches!(role, Role::Output | Role::TokenEmbedding)
    }
}

/// The tensors of an output, in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The tensors.
    pub tensors: Vec<PlannedTensor>,
    /// Number of layers left after pruning, if there was any.
    pub layers_left: Option<u64>,
}

impl Plan {
    /// Bytes of all tensors' data, without padding.
    pub fn data_bytes(&self) -> u64 {
        let bytes = |tensor: &PlannedTensor| tensor.info.bytes().unwrap_or(0);
        self.tensors.iter().map(bytes).sum()
    }

    /// Bits of tensor data per weight, norms and biases included.
    pub fn bits_per_weight(&self) -> f64 {
        self.data_bytes() as f64 * 8.0 / self.elements().max(1) as f64
    }

    /// Bits per weight if every tensor could have had the type chosen first.
    pub fn nominal_bits_per_weight(&self) -> f64 {
        let bits = |tensor: &PlannedTensor| {
            let ty = match tensor.reason {
                Reason::Fallback { wanted } => wanted,
                Reason::Rule | Reason::Override => tensor.info.ty,
            };
            tensor.info.elements() as f64 * ty.bits_per_weight()
        };
        self.tensors.iter().map(bits).sum::<f64>() / self.elements().max(1) as f64
    }

    /// Tensors that could not have the type chosen first.
    pub fn fallbacks(&self) -> impl Iterator<Item = &PlannedTensor> {
        self.tensors
            .iter()
            .filter(|tensor| matches!(tensor.reason, Reason::Fallback { .. }))
    }

    /// The first tensor that cannot be encoded without importance, in order of writing: types of
    /// two bits and less on matrices of layers, and `Q2_K` where the preset is all of it.
    pub fn first_needing_importance(
        &self,
        preset: Preset,
        is_missing: impl Fn(&PlannedTensor) -> bool,
    ) -> Option<&PlannedTensor> {
        self.tensors
            .iter()
            .find(|tensor| tensor.needs_importance(preset) && is_missing(tensor))
    }

    fn elements(&self) -> u64 {
        self.tensors.iter().map(|t| t.info.elements()).sum()
    }
}

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing smaller-blocked stands in for this type.
    #[error(
        "{tensor}: rows of {row} values do not fit the blocks of {ty}, and no type stands in for it"
    )]
    NoFallback {
        /// The tensor.
        tensor: BString,
        /// The type chosen.
        ty: TensorType,
        /// Values in a row.
        row: u64,
    },
    /// Fallbacks are needed and refused.
    #[error(
        "{tensor}: rows of {row} values do not fit the blocks of {wanted} ({count} tensors would fall back; this one to {found})"
    )]
    FallbackRefused {
        /// The first such tensor.
        tensor: BString,
        /// Values in a row.
        row: u64,
        /// The type chosen first.
        wanted: TensorType,
        /// The type it would get.
        found: TensorType,
        /// How many tensors would fall back.
        count: usize,
    },
    /// The rules need the layer of a tensor, and its name does not tell one.
    #[error("{tensor}: cannot tell its layer (found {}, expected blk.N. with N below {layers})", .found.map_or_else(|| "none".into(), |n| n.to_string()))]
    Layer {
        /// The tensor.
        tensor: BString,
        /// The number in its name.
        found: Option<u64>,
        /// Number of layers.
        layers: u64,
    },
    /// A layer to prune that the model does not have.
    #[error("layer {layer} cannot be pruned: the model has no tensor of it")]
    NoSuchLayer {
        /// The layer.
        layer: u64,
    },
    /// A type for a tensor that the model does not have.
    #[error("{tensor}: the recipe gives it a type, but the model has no such tensor")]
    NoSuchTensor {
        /// The tensor.
        tensor: BString,
    },
    /// The source is quantized already.
    #[error("{tensor}: is {from} already; quantizing it again to {to} loses quality twice")]
    Requantize {
        /// The tensor.
        tensor: BString,
        /// Its type.
        from: TensorType,
        /// The type planned.
        to: TensorType,
    },
    /// Integers are no weights.
    #[error("{tensor}: values of type {from} cannot be converted to {to}")]
    NotWeights {
        /// The tensor.
        tensor: BString,
        /// Its type.
        from: TensorType,
        /// The type planned.
        to: TensorType,
    },
}

/// Chooses the type of every tensor under a preset.
///
/// `importance` says whether importance data are given: some rules ask. Tensors come in the order
/// in which they are chosen and written: those outside layers first, then by layer and name; or the
/// source's, with [`Options::keep_split`].
///
/// # Errors
/// If the options contradict the model, a type fits no rows and nothing stands in for it, or
/// tensors would be quantized twice.
pub fn plan(
    metadata: &Metadata,
    tensors: &[TensorInfo],
    preset: Preset,
    options: &Options,
    importance: bool,
) -> Result<Plan, PlanError> {
    let (order, layers_left) = ordered(tensors, options)?;
    for (name, _) in &options.exact {
        if !order.iter().any(|(_, known)| known == name) {
            return Err(PlanError::NoSuchTensor {
                tensor: name.clone(),
            });
        }
    }
    let named: Vec<(BString, &TensorInfo)> = order
        .iter()
        .map(|(source, name)| (name.clone(), &tensors[*source]))
        .collect();
    let facts = Facts::new(metadata, &named, importance);
    let mut counters = Counters::default();
    let mut planned = Vec::with_capacity(order.len());
    for (source, name) in order {
        let from = &tensors[source];
        let (ty, reason) = choose(&facts, preset, options, name.as_ref(), from, &mut counters)?;
        let info = TensorInfo {
            name,
            shape: from.shape.clone(),
            ty,
        };
        check_conversion(from.ty, &info, options.allow_requantize)?;
        planned.push(PlannedTensor {
            source,
            info,
            from: from.ty,
            reason,
        });
    }
    let plan = Plan {
        tensors: planned,
        layers_left,
    };
    if options.no_fallback {
        refuse_fallbacks(&plan)?;
    }
    Ok(plan)
}

fn refuse_fallbacks(plan: &Plan) -> Result<(), PlanError> {
    for tensor in &plan.tensors {
        if let Reason::Fallback { wanted } = tensor.reason {
            return Err(PlanError::FallbackRefused {
                tensor: tensor.info.name.clone(),
                row: tensor.info.row_len(),
                wanted,
                found: tensor.info.ty,
                count: plan.fallbacks().count(),
            });
        }
    }
    Ok(())
}

/// A plan in which each of the source's tensors has the given type, in the source's order:
/// a conversion rather than a preset.
///
/// # Errors
/// If a type does not fit a tensor's rows, or the source's type cannot be converted.
pub fn plan_types(tensors: &[TensorInfo], types: &[TensorType]) -> Result<Plan, PlanError> {
    assert_eq!(tensors.len(), types.len(), "one type for each tensor");
    let planned = tensors.iter().zip(types).enumerate();
    let tensors = planned
        .map(|(source, (from, &ty))| {
            let info = TensorInfo { ty, ..from.clone() };
            if info.bytes().is_none() {
                return Err(PlanError::NoFallback {
                    tensor: info.name,
                    ty,
                    row: from.row_len(),
                });
            }
            check_conversion(from.ty, &info, true)?;
            Ok(PlannedTensor {
                source,
                info,
                from: from.ty,
                reason: Reason::Rule,
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Plan {
        tensors,
        layers_left: None,
    })
}

/// The tensors in the order of choice and writing, with their names after pruning.
#[allow(clippy::type_complexity)]
fn ordered(
    tensors: &[TensorInfo],
    options: &Options,
) -> Result<(Vec<(usize, BString)>, Option<u64>), PlanError> {
    let prune = &options.prune_layers;
    let mut order: Vec<(Option<u64>, usize)> = tensors
        .iter()
        .enumerate()
        .map(|(index, tensor)| (layer(tensor.name.as_ref()).map(|(n, _)| n), index))
        .collect();
    let mut numbers: Vec<u64> = order.iter().filter_map(|&(layer, _)| layer).collect();
    numbers.retain(|number| !prune.contains(number));
    numbers.sort_unstable();
    numbers.dedup();
    if !options.keep_split {
        order.sort_by(|a, b| (a.0, &tensors[a.1].name).cmp(&(b.0, &tensors[b.1].name)));
    }
    if let Some(&layer) = prune
        .iter()
        .find(|&&pruned| !order.iter().any(|(layer, _)| *layer == Some(pruned)))
    {
        return Err(PlanError::NoSuchLayer { layer });
    }
    let mut left = Vec::new();
    for (_, index) in order {
        let name = &tensors[index].name;
        let name = match layer(name.as_ref()) {
            Some((number, _)) if prune.contains(&number) => continue,
            Some((number, rest)) if !prune.is_empty() => {
                let before = numbers.partition_point(|&left| left < number);
                BString::from(format!("blk.{before}.{rest}"))
            }
            _ => name.clone(),
        };
        left.push((index, name));
    }
    Ok((left, (!prune.is_empty()).then_some(numbers.len() as u64)))
}

/// The type of one tensor, and why.
fn choose(
    facts: &Facts,
    preset: Preset,
    options: &Options,
    name: &BStr,
    from: &TensorInfo,
    counters: &mut Counters,
) -> Result<(TensorType, Reason), PlanError> {
    if let Some((_, ty)) = options.exact.iter().find(|(exact, _)| exact == name) {
        return fitting(name, from.row_len(), *ty, Reason::Override);
    }
    let kept = Ok((from.ty, Reason::Rule));
    let Some(default) = preset.default_type() else {
        return kept;
    };
    if is_kept(name, from.dims(), &facts.architecture) {
        return kept;
    }
    if options.leave_output_tensor && name == "output.weight" {
        return Ok((from.ty, Reason::Override));
    }
    let role = Role::of(name);
    let by_pattern = options
        .tensor_types
        .iter()
        .find(|pattern| pattern.matches(&name.to_owned()))
        .map(|pattern| pattern.ty);
    let by_role = match role {
        Role::TokenEmbedding if name == "token_embd.weight" || by_pattern.is_none() => {
            options.token_embedding_type
        }
        Role::Output => options.output_tensor_type,
        _ => None,
    };
    if let Some(ty) = by_role {
        return fitting(name, from.row_len(), ty, Reason::Override);
    }
    if !default.is_quantized() {
        return Ok((default, Reason::Rule));
    }
    let (ty, reason) = match by_pattern {
        Some(ty) => (ty, Reason::Override),
        None if options.pure => (default, Reason::Rule),
        None => {
            let subject = Subject {
                facts,
                preset,
                default,
                name,
                shape: &from.shape,
                role,
            };
            let tied_output = options.output_tensor_type;
            let ty = subject.choose(counters, tied_output)?;
            let asked = role == Role::TokenEmbedding && facts.tied && tied_output == Some(ty);
            (
                ty,
                if asked {
                    Reason::Override
                } else {
                    Reason::Rule
                },
            )
        }
    };
    fitting(name, from.row_len(), ty, reason)
}

/// The type itself, or what stands in for it where the rows are not whole blocks.
fn fitting(
    name: &BStr,
    row: u64,
    wanted: TensorType,
    reason: Reason,
) -> Result<(TensorType, Reason), PlanError> {
    use TensorType as T;
    if wanted.row_bytes(row).is_some() {
        return Ok((wanted, reason));
    }
    let smaller = match wanted {
        T::IQ1_S
        | T::IQ1_M
        | T::IQ2_XXS
        | T::IQ2_XS
        | T::IQ2_S
        | T::IQ3_XXS
        | T::IQ3_S
        | T::IQ4_XS => T::IQ4_NL,
        T::Q2_0 | T::Q2_K | T::Q3_K | T::TQ1_0 | T::TQ2_0 => T::Q4_0,
        T::Q4_K => T::Q5_0,
        T::Q5_K => T::Q5_1,
        T::Q6_K => T::Q8_0,
        _ if wanted.layout().values <= 32 => wanted,
        _ => {
            return Err(PlanError::NoFallback {
                tensor: name.to_owned(),
                ty: wanted,
                row,
            });
        }
    };
    let ty = if smaller.row_bytes(row).is_some() {
        smaller
    } else {
        T::F16
    };
    Ok((ty, Reason::Fallback { wanted }))
}

/// Whether the source's type may become the planned one.
fn check_conversion(
    from: TensorType,
    to: &TensorInfo,
    allow_requantize: bool,
) -> Result<(), PlanError> {
    if from == to.ty {
        return Ok(());
    }
    if !holds_weights(from) {
        return Err(PlanError::NotWeights {
            tensor: to.name.clone(),
            from,
            to: to.ty,
        });
    }
    if from.is_quantized() && !allow_requantize {
        return Err(PlanError::Requantize {
            tensor: to.name.clone(),
            from,
            to: to.ty,
        });
    }
    Ok(())
}
