//! A checkpoint as a GGUF source.

use std::borrow::Cow;
use std::ops::Range;

use gristmill_gguf::{Metadata, ReadError, Source, TensorInfo, TensorType};

use crate::adapter::{Adapter, BaseRows};
use crate::architectures::{self, Mapped, Mapping, Model};
use crate::checkpoint::{Checkpoint, Stored};
use crate::config::{self, Config};
use crate::expr::{Expr, ShapeError};
use crate::output::{self, Output};
use crate::preflight::{self, Tied};
use crate::{Error, audit, general, storage, vocab};

/// Version of the block layouts, `general.quantization_version`.
const QUANTIZATION_VERSION: u32 = 2;

/// What a conversion may be told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Type of the matrices.
    pub output: Output,
    /// The pre-tokenizer's name, where it is not to be found out.
    pub pre: Option<String>,
}

/// A model under conversion: its architecture is known, its tensors are not mapped yet.
fn model_of(checkpoint: &Checkpoint) -> Result<(String, Model<'_>), Error> {
    let config = Config::new(checkpoint.config());
    let class = config.class().ok_or_else(|| no_class(checkpoint))?;
    let class = class.to_owned();
    let architecture = architectures::find(&class, &config)?;
    let files = checkpoint.files();
    let model = Model::new(architecture, config, files, checkpoint.tensors());
    Ok((class, model))
}

/// A planned conversion: everything about the file to be written is known, and nothing of the
/// weights has been read. As a [`Source`] it gives rows in the types that the checkpoint stores
/// (or that a scheme unpacks to); [`Conversion::types`] says what each tensor is to be written as.
#[derive(Debug)]
pub struct Conversion {
    metadata: Metadata,
    infos: Vec<TensorInfo>,
    exprs: Vec<Expr>,
    types: Vec<TensorType>,
    dropped: Vec<String>,
    warnings: Vec<String>,
}

impl Conversion {
    /// Plans the conversion of a checkpoint.
    ///
    /// # Errors
    /// If the architecture is unknown, the configuration lacks a field or contradicts the
    /// weights, a tensor has no place, or the tokenizer is not understood.
    pub fn new(checkpoint: &Checkpoint, options: &Options) -> Result<Self, Error> {
        Self::merged(checkpoint, &[], options)
    }

    /// Plans the conversion of a checkpoint with LoRA adapters merged into it.
    ///
    /// # Errors
    /// As [`Conversion::new`], and if an adapter does not fit the model.
    pub fn merged(
        checkpoint: &Checkpoint,
        adapters: &[Checkpoint],
        options: &Options,
    ) -> Result<Self, Error> {
        if checkpoint.is_adapter() {
            return Err(Error::NotACheckpoint {
                path: checkpoint.files().root().to_owned(),
                reason: "is a LoRA adapter, not a model".into(),
                help: "name the model it was trained on: --base MODEL; or merge it into that \
                       model: --lora ADAPTER"
                    .into(),
            });
        }
        let (class, model) = model_of(checkpoint)?;
        let architecture = model.architecture;
        audit::check_kinds(&model.config)?;
        let mut inputs = storage::read(checkpoint.tensors(), &model.config)?;
        let wanted = options
            .output
            .tensor_type(inputs.iter().map(|(_, expr)| expr));
        for adapter in adapters {
            Adapter::new(adapter)?.merge(&mut inputs)?;
        }
        let plain = preflight::plainly_stored(&inputs, &model.config);
        let tied = Tied::find(&inputs, &model.config);
        let Mapping { tensors, dropped } = model.map(inputs)?;
        preflight::check_types(&tensors)?;
        match tied {
            Some(tied) => tied.check(&tensors)?,
            None => preflight::check_head(&tensors, &model.config, &class)?,
        }
        let blocks = tensors.iter().map(|tensor| tensor.expr.ty());
        let blocks = blocks.into_iter().find(|ty| ty.is_quantized());
        let file_type = output::file_type(wanted, blocks);
        let mut warnings = checkpoint.warnings().to_vec();
        warnings.extend(plain);
        let mut size = general::Size::default();
        for tensor in &tensors {
            size.count(&tensor.name, &tensor.expr);
        }
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", architecture.name);
        model.write_early(&mut metadata, file_type)?;
        metadata.set("general.type", "model");
        general::write(
            checkpoint.files(),
            &model.config,
            &size,
            &mut metadata,
            &mut warnings,
        )?;
        model.write_params(&mut metadata, file_type)?;
        audit::refuse(&model.config, architecture.name)?;
        metadata.set("general.quantization_version", QUANTIZATION_VERSION);
        let embedding = tensors.iter().find(|t| t.name == "token_embd.weight");
        let embedding_rows = embedding.map(|tensor| tensor.expr.row_count());
        let stated = model.config.opt_u32(&["vocab_size"])?;
        // Without an embedding, which is an error of its own, a stated number would be believed.
        let sizes = stated.zip(embedding_rows);
        if let Some((stated, rows)) = sizes {
            warnings.extend(preflight::check_vocabulary(stated, rows)?);
        }
        let vocab = vocab::metadata(&vocab::Request {
            files: checkpoint.files(),
            config: model.config.json(),
            architecture: architecture.name,
            class: &class,
            vocab_size: sizes.map(|(stated, _)| u64::from(stated)),
            embedding_rows,
            pre: options.pre.as_deref(),
        })?;
        for (key, value) in vocab.entries {
            metadata.set(key, value);
        }
        warnings.extend(vocab.warnings);
        warnings.extend(audit::unheeded(&model.config, architecture.name));
        warnings.extend(audit::unheeded_scaling(
            &model.config,
            architecture.name,
            &metadata,
            |name| tensors.iter().any(|tensor| tensor.name == name),
        ));

        let mut conversion = Self::assemble(metadata, tensors, wanted, dropped, warnings);
        let odd = preflight::check(&conversion)?;
        conversion.warnings.extend(odd);
        Ok(conversion)
    }

    /// Plans the conversion of a LoRA adapter to a GGUF adapter of the model it was trained on.
    /// Its matrices are written as F32 unless the options say otherwise.
    ///
    /// # Errors
    /// As [`Conversion::new`], and if the adapter does not fit the base, or adapts tensors whose
    /// layout changes in GGUF.
    pub fn adapter(
        adapter: &Checkpoint,
        base: &Checkpoint,
        options: &Options,
    ) -> Result<Self, Error> {
        let (_, model) = model_of(base)?;
        let parsed = Adapter::new(adapter)?;
        let mut tensors = Vec::new();
        let mut size = general::Size::of_adapter();
        for (name, stored) in &parsed.whole {
            let norms = model.map_one(name, Expr::load(stored))?;
            if let Some(other) = norms.iter().find(|norm| !norm.name.contains("_norm")) {
                return Err(Error::tensor(
                    name,
                    format!(
                        "was trained whole, and an adapter has no place for {}; merge it: --lora",
                        other.name
                    ),
                ));
            }
            for norm in norms {
                size.count(&norm.name, &norm.expr);
                tensors.push(norm);
            }
        }
        let (mut expert_a, mut expert_b) = (Vec::new(), Vec::new());
        for (name, pair) in &parsed.pairs {
            let fits = |error: ShapeError| Error::tensor(name, error.to_string());
            let [a, b] = pair.factors(parsed.stated_alpha()).map_err(fits)?;
            let rank = b.row_len();
            if architectures::is_single_expert(name) {
                expert_a.push((name.clone(), a));
                expert_b.push((name.clone(), b));
                continue;
            }
            let as_stored = match pair.base {
                BaseRows::Inputs => b.transpose().map_err(fits)?,
                BaseRows::Outputs | BaseRows::Tokens => b,
            };
            for mapped in model.map_one(name, as_stored)? {
                if mapped.expr.row_len() != rank || mapped.expr.shape().len() != 2 {
                    return Err(Error::tensor(
                        name,
                        "changes its layout in GGUF, and an adapter cannot follow; merge it",
                    ));
                }
                let mut push = |suffix: &str, expr: Expr| {
                    let name = format!("{}.{suffix}", mapped.name);
                    size.count(&name, &expr);
                    tensors.push(Mapped { name, expr });
                };
                // Of an embedding's factor one row is taken for each token.
                let a = match mapped.name == "token_embd.weight" {
                    true => a.transpose().map_err(fits)?,
                    false => a.clone(),
                };
                push("lora_a", a);
                push("lora_b", mapped.expr);
            }
        }
        let stacks = model.map_experts(expert_a)?.into_iter();
        for (a, b) in stacks.zip(model.map_experts(expert_b)?) {
            for (suffix, factor) in [("lora_a", a), ("lora_b", b)] {
                let name = format!("{}.{suffix}", factor.name);
                size.count(&name, &factor.expr);
                tensors.push(Mapped {
                    name,
                    expr: factor.expr,
                });
            }
        }
        let mut warnings = adapter.warnings().to_vec();
        let mut metadata = Metadata::new();
        metadata.set("general.architecture", model.architecture.name);
        metadata.set("general.type", "adapter");
        metadata.set("adapter.type", "lora");
        general::write(
            adapter.files(),
            &Config::new(adapter.config()),
            &size,
            &mut metadata,
            &mut warnings,
        )?;
        metadata.set("adapter.lora.alpha", parsed.stated_alpha() as f32);
        if let Some(tokens) = adapter.config().get("alora_invocation_tokens")
            && let Some(tokens) = tokens.as_array()
        {
            let tokens: Vec<u32> = tokens.iter().filter_map(config::as_u32).collect();
            metadata.set("adapter.alora.invocation_tokens", tokens);
        }
        metadata.set("general.quantization_version", QUANTIZATION_VERSION);
        let wanted = match options.output {
            Output::Auto => TensorType::F32,
            output => output.tensor_type([]),
        };
        Ok(Self::assemble(
            metadata,
            tensors,
            wanted,
            Vec::new(),
            warnings,
        ))
    }

    fn assemble(
        metadata: Metadata,
        tensors: Vec<Mapped>,
        wanted: TensorType,
        dropped: Vec<String>,
        warnings: Vec<String>,
    ) -> Self {
        let mut conversion = Self {
            metadata,
            infos: Vec::with_capacity(tensors.len()),
            exprs: Vec::with_capacity(tensors.len()),
            types: Vec::with_capacity(tensors.len()),
            dropped,
            warnings,
        };
        let mut narrow = Vec::new();
        for tensor in tensors {
            let ty = output::type_of(&tensor.name, &tensor.expr, wanted);
            if ty == TensorType::F16 && wanted == TensorType::Q8_0 {
                narrow.push(tensor.name.clone());
            }
            conversion.infos.push(TensorInfo {
                name: tensor.name.into(),
                shape: tensor.expr.shape().to_vec(),
                ty: tensor.expr.ty(),
            });
            conversion.exprs.push(tensor.expr);
            conversion.types.push(ty);
        }
        if let Some(first) = narrow.first() {
            conversion.warnings.push(format!(
                "{} tensors have rows that are no whole number of {wanted} blocks and become F16, \
                 the first is {first}",
                narrow.len()
            ));
        }
        conversion
    }

    /// The type that each tensor is to be written in, in the order of [`Source::tensors`].
    pub fn types(&self) -> &[TensorType] {
        &self.types
    }

    /// Tensors of which values become infinite in F16, with the number of such values. All weights
    /// that are to be narrowed are read for it.
    pub fn overflows(&self) -> Vec<(String, u64)> {
        let tensors = self.infos.iter().zip(&self.exprs).zip(&self.types);
        tensors
            .filter_map(|((info, expr), ty)| {
                let count = preflight::overflows(expr, *ty);
                (count > 0).then(|| (info.name.to_string(), count))
            })
            .collect()
    }

    /// Stored tensors that the file does not need.
    pub fn dropped(&self) -> &[String] {
        &self.dropped
    }

    /// What the user should know.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl Source for Conversion {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    fn rows(&self, tensor: usize, rows: Range<u64>) -> Result<Cow<'_, [u8]>, ReadError> {
        self.exprs[tensor].rows(rows)
    }

    fn release(&self, tensor: usize, rows: Range<u64>) {
        self.exprs[tensor].release(rows);
    }
}

/// A configuration without a class: says what the folder looks like.
fn no_class(checkpoint: &Checkpoint) -> Error {
    let names = |name: &str| checkpoint.tensors().iter().any(|t: &Stored| t.name == name);
    let llama = names("model.layers.0.self_attn.q_proj.weight")
        && names("model.layers.0.mlp.gate_proj.weight");
    let help = if checkpoint.files().contains("modules.json") {
        "the folder is a sentence-transformers model: give the folder of its transformer"
    } else if llama {
        "its tensors are named like Llama's: if it is one, add \"architectures\": \
         [\"LlamaForCausalLM\"] to config.json"
    } else {
        "add \"architectures\": [\"…\"] with the model's class to config.json"
    };
    Error::NotACheckpoint {
        path: checkpoint.files().root().join("config.json"),
        reason: "names no model class (`architectures`)".into(),
        help: help.into(),
    }
}
