//! What is particular to each architecture: tables of names, hyper-parameters and transforms.

mod experts;
mod families;
mod names;
mod params;
mod rope;
mod rules;

use std::collections::{HashMap, HashSet};

use gristmill_gguf::Metadata;

pub(crate) use experts::is_single as is_single_expert;
use names::{NAMES, Names, Part};
use params::{Keys, Param};
use rules::{Action, Named, Rule, matches};

use crate::Error;
use crate::checkpoint::{CheckpointFiles, Stored};
use crate::config::Config;
use crate::expr::Expr;

/// How one or several model classes become GGUF.
pub(crate) struct Architecture {
    /// `general.architecture`.
    pub(crate) name: &'static str,
    /// The classes that configurations name.
    classes: &'static [&'static str],
    /// Only configurations of which this holds, where classes alone do not tell.
    only: Option<fn(&Config) -> bool>,
    /// Kinds of tensors that a file of this architecture may hold.
    parts: &'static [&'static [Part]],
    /// Values that the model's class fills in where the configuration has none.
    defaults: fn(&mut Config),
    params: &'static [Param],
    rules: &'static [Rule],
    /// Projections of experts in the order of their stacks; without it, by name.
    expert_order: &'static [&'static str],
    /// Tensors that are computed rather than stored; they come first.
    generated: fn(&Model) -> Result<Vec<Named>, Error>,
    /// Keys that come before `general.type`, since the tensors give rise to them.
    early: fn(&Model, &mut Keys) -> Result<(), Error>,
    /// Layers beyond the configuration's number that the file has too (multi-token prediction).
    extra_layers: fn(&Model) -> Result<u32, Error>,
}

/// A decoder without peculiarities: the base keys, names by the common table.
const PLAIN: Architecture = Architecture {
    name: "",
    classes: &[],
    only: None,
    parts: &[],
    defaults: |_| {},
    params: &[Param::Base],
    rules: &[],
    expert_order: &[],
    generated: rope::factors,
    early: |_, _| Ok(()),
    extra_layers: |_| Ok(0),
};

/// A model on its way: what rules and parameters may look at.
pub(crate) struct Model<'a> {
    pub(crate) architecture: &'static Architecture,
    pub(crate) config: Config,
    pub(crate) files: &'a CheckpointFiles,
    pub(crate) tensors: &'a [Stored],
}

/// A stored tensor's name and where its rows go.
#[derive(Debug)]
pub(crate) struct Mapped {
    /// GGUF name.
    pub(crate) name: String,
    pub(crate) expr: Expr,
}

/// All tensors of a model, accounted for.
#[derive(Debug, Default)]
pub(crate) struct Mapping {
    pub(crate) tensors: Vec<Mapped>,
    /// Stored tensors that a rule leaves out.
    pub(crate) dropped: Vec<String>,
}

/// The architecture of a class, or of the kind of it that the configuration describes.
pub(crate) fn find(class: &str, config: &Config) -> Result<&'static Architecture, Error> {
    families::ALL
        .iter()
        .flat_map(|family| family.iter())
        .filter(|architecture| architecture.classes.contains(&class))
        .filter(|architecture| architecture.only.is_none_or(|only| only(config)))
        .max_by_key(|architecture| architecture.only.is_some())
        .ok_or_else(|| Error::UnknownArchitecture {
            class: class.to_owned(),
            help: unknown_help(class),
        })
}

/// Every class that converts, with its architecture's name.
pub fn classes() -> impl Iterator<Item = (&'static str, &'static str)> {
    families::ALL
        .iter()
        .flat_map(|family| family.iter())
        .flat_map(|architecture| architecture.classes.iter().map(|c| (*c, architecture.name)))
}

fn unknown_help(class: &str) -> String {
    let mut known: Vec<&str> = classes().map(|(class, _)| class).collect();
    let nearest = gristmill_quantize::nearest::nearest(class, known.iter().copied());
    known.sort_unstable();
    let nearest = nearest.map_or(String::new(), |near| {
        format!("the nearest known is {near}; ")
    });
    format!("{nearest}known are {}", known.join(", "))
}

impl<'a> Model<'a> {
    /// A model of a class, with the class's defaults filled in.
    pub(crate) fn new(
        architecture: &'static Architecture,
        mut config: Config,
        files: &'a CheckpointFiles,
        tensors: &'a [Stored],
    ) -> Self {
        (architecture.defaults)(&mut config);
        Self {
            architecture,
            config,
            files,
            tensors,
        }
    }

    /// Layers in the file.
    pub(crate) fn block_count(&self) -> Result<u32, Error> {
        let extra = self.extra_layers()?;
        self.config
            .layers()?
            .checked_add(extra)
            .ok_or_else(|| Error::config("num_hidden_layers", "is too large"))
    }

    /// Layers beyond the number that the configuration states.
    fn extra_layers(&self) -> Result<u32, Error> {
        (self.architecture.extra_layers)(self)
    }

    /// The stored tensor of a name.
    pub(crate) fn stored(&self, name: &str) -> Option<&Stored> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Writes the keys that the tensors give rise to.
    pub(crate) fn write_early(&self, metadata: &mut Metadata, file_type: u32) -> Result<(), Error> {
        let mut keys = self.keys(metadata, file_type);
        (self.architecture.early)(self, &mut keys)
    }

    /// Writes the hyper-parameters.
    pub(crate) fn write_params(
        &self,
        metadata: &mut Metadata,
        file_type: u32,
    ) -> Result<(), Error> {
        let mut keys = self.keys(metadata, file_type);
        for param in self.architecture.params {
            param.write(self, &mut keys)?;
        }
        Ok(())
    }

    fn keys<'m>(&self, metadata: &'m mut Metadata, file_type: u32) -> Keys<'m> {
        Keys {
            architecture: self.architecture.name,
            file_type,
            metadata,
        }
    }

    /// The output's tensors, in order, from these inputs (stored tensors, or what a quantized
    /// checkpoint's scheme makes of them).
    pub(crate) fn map(&self, inputs: Vec<Named>) -> Result<Mapping, Error> {
        let mut mapping = Mapping::default();
        let mut pending = (self.architecture.generated)(self)?;
        for (name, expr) in inputs {
            let outputs = self.transform(clean(&name), expr)?;
            if outputs.is_empty() && !self.is_used_elsewhere(&name) {
                mapping.dropped.push(name);
            }
            pending.extend(outputs);
        }
        let names = self.name_table();
        let mut unknown = Vec::new();
        let mut seen = HashMap::new();
        for (name, expr) in experts::stack(self, pending)? {
            let Some(gguf) = gguf_name(&names, &name) else {
                unknown.push(name);
                continue;
            };
            if let Some(first) = seen.insert(gguf.clone(), name.clone()) {
                return Err(Error::tensor(
                    name,
                    format!("becomes `{gguf}`, and so does `{first}`"),
                ));
            }
            mapping.tensors.push(Mapped { name: gguf, expr });
        }
        if unknown.is_empty() {
            return Ok(mapping);
        }
        Err(Error::UnknownTensors {
            architecture: self.architecture.name,
            help: leftovers(&unknown),
            names: unknown,
        })
    }

    /// What becomes of a single tensor, by itself.
    pub(crate) fn map_one(&self, name: &str, expr: Expr) -> Result<Vec<Mapped>, Error> {
        let names = self.name_table();
        let outputs = self.transform(clean(name), expr)?.into_iter();
        outputs
            .map(|(name, expr)| self.named(&names, name, expr))
            .collect()
    }

    /// What becomes of tensors of single experts: stacks of them.
    pub(crate) fn map_experts(&self, inputs: Vec<Named>) -> Result<Vec<Mapped>, Error> {
        let mut single = Vec::new();
        for (name, expr) in inputs {
            single.extend(self.transform(clean(&name), expr)?);
        }
        let names = self.name_table();
        experts::stack(self, single)?
            .into_iter()
            .map(|(name, expr)| self.named(&names, name, expr))
            .collect()
    }

    fn named(
        &self,
        names: &HashMap<&str, &str>,
        name: String,
        expr: Expr,
    ) -> Result<Mapped, Error> {
        match gguf_name(names, &name) {
            Some(name) => Ok(Mapped { name, expr }),
            None => Err(Error::UnknownTensors {
                architecture: self.architecture.name,
                names: vec![name],
                help: None,
            }),
        }
    }

    /// Applies the rules, in order, to a tensor and to whatever it becomes.
    fn transform(&self, name: String, expr: Expr) -> Result<Vec<Named>, Error> {
        if is_never_needed(&name) {
            return Ok(Vec::new());
        }
        let mut current = vec![(name, expr)];
        for Rule(pattern, action) in self.architecture.rules {
            let mut next = Vec::with_capacity(current.len());
            for (name, expr) in current {
                if matches(pattern, &name) {
                    next.extend(action.apply(self, &name, expr)?);
                } else {
                    next.push((name, expr));
                }
            }
            current = next;
        }
        Ok(current)
    }

    /// Whether generated tensors are made of this one.
    fn is_used_elsewhere(&self, name: &str) -> bool {
        let mut rules = self.architecture.rules.iter();
        rules.any(|Rule(pattern, action)| {
            matches!(action, Action::Elsewhere) && matches(pattern, name)
        })
    }

    /// Names of checkpoints to names of GGUF, for this architecture.
    fn name_table(&self) -> HashMap<&'static str, &'static str> {
        let parts: HashSet<Part> = self
            .architecture
            .parts
            .iter()
            .copied()
            .flatten()
            .copied()
            .collect();
        let mut table = HashMap::new();
        // In the table's order: where two kinds share a name, the later one has it.
        for Names(part, stem, aliases) in NAMES {
            if parts.contains(part) {
                table.insert(*stem, *stem);
                table.extend(aliases.iter().map(|alias| (*alias, *stem)));
            }
        }
        table
    }
}

/// The layer that a name speaks of: its first part that is a number.
pub(super) fn layer(name: &str) -> Option<u32> {
    name.split('.').find_map(|part| part.parse().ok())
}

/// What follows a name in both worlds: the last two are factors of quantized weights.
const SUFFIXES: [&str; 4] = [".weight", ".bias", ".scale", ".input_scale"];

/// Looks a name up, first as it is, then without its `.weight` or `.bias`.
fn gguf_name(table: &HashMap<&str, &str>, name: &str) -> Option<String> {
    let number = layer(name).map(|layer| layer.to_string());
    let mut parts: Vec<&str> = name.split('.').collect();
    if let Some(number) = &number
        && let Some(part) = parts.iter_mut().find(|part| **part == number)
    {
        *part = "{bid}";
    }
    let general = parts.join(".");
    let with_number = |stem: &str| match &number {
        Some(number) => stem.replace("{bid}", number),
        None => stem.to_owned(),
    };
    // A bare model is stored without the `model.` that its head would put in front.
    [general.clone(), format!("model.{general}")]
        .iter()
        .find_map(|general| {
            if let Some(stem) = table.get(general.as_str()) {
                return Some(with_number(stem));
            }
            SUFFIXES.into_iter().find_map(|suffix| {
                let stem = table.get(general.strip_suffix(suffix)?)?;
                Some(with_number(stem) + suffix)
            })
        })
}

/// A name as the tables know it.
fn clean(name: &str) -> String {
    name.replace("language_model.", "")
        .replace("e_score_correction_bias", "e_score_correction.bias")
}

/// Buffers that no model needs, and the parts of a model that sees or hears.
fn is_never_needed(name: &str) -> bool {
    const SUFFIXES: [&str; 3] = [
        ".attention.masked_bias",
        ".attention.bias",
        ".rotary_emb.inv_freq",
    ];
    const PREFIXES: [&str; 10] = [
        "mlp",
        "vit.",
        "vpm.",
        "siglip2.",
        "conformer.",
        "resampler.",
        "sound_encoder.",
        "sound_projection.",
        "speech_embeddings.",
        "vision_model.",
    ];
    const PARTS: [&str; 17] = [
        "visual.",
        "vision.",
        "audio.",
        "talker.",
        "vision_",
        "audio_",
        "token2wav.",
        "code2wav.",
        "projector.",
        "pre_mm_projector_norm",
        "image_newline",
        "view_seperator",
        "patch_embed",
        "merger.",
        "patch_merge_mlp.",
        "model.connector.",
        "multi_modal_projector.",
    ];
    SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || PARTS.iter().any(|part| name.contains(part))
}

/// What unknown tensors may be left over from.
fn leftovers(names: &[String]) -> Option<String> {
    let has = |parts: &[&str]| {
        names
            .iter()
            .any(|name| parts.iter().any(|part| name.contains(part)))
    };
    let what = if has(&[".absmax", ".SCB", ".quant_map", "bitsandbytes"]) {
        "they look like bitsandbytes quantization without a `quantization_config`"
    } else if has(&[".qweight", ".qzeros", ".g_idx"]) {
        "they look like GPTQ or AWQ quantization without a `quantization_config`"
    } else if has(&["lora_A", "lora_B"]) {
        "they look like a LoRA adapter: merge it, or convert it as an adapter"
    } else if has(&["exp_avg", "optimizer"]) {
        "they look like an optimizer's state: give the model's weights alone"
    } else {
        return None;
    };
    Some(what.to_owned())
}
