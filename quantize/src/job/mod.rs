//! The streaming job: any source, any number of outputs, one pass.
//!
//! Every row is read and decoded once, encoded once for each type that some output wants, and
//! written to every output that wants it. Memory holds a few chunks a thread, whatever the model's
//! size. The bytes do not depend on the number of threads, on the other outputs of the job, or on
//! whether it was interrupted and taken up again.

mod chunks;
mod error;
mod metadata;
mod run;
mod work;

use std::path::PathBuf;

use gristmill_gguf::{self as gguf, Layout, Source, SplitLimit, TensorInfo, TensorType};

pub use chunks::digest_source;
pub use error::JobError;
pub use run::{Control, Report};

use crate::importance::{Check, Importance};
use crate::plan::{Plan, PlannedTensor, plan, plan_types};
use crate::recipe::Recipe;
use crate::types::Effort;

/// An importance matrix and the name it is recorded under.
#[derive(Debug, Clone, Copy)]
pub struct NamedImportance<'a> {
    /// The matrix.
    pub matrix: &'a Importance,
    /// The file it came from, as given.
    pub file: &'a str,
}

/// What an output is to be.
#[derive(Debug, Clone)]
pub enum Target {
    /// Quantized: types, order and metadata as `llama-quantize` has them.
    Quantized(Recipe),
    /// Converted: each tensor of the source in the given type, in the source's order and with its
    /// metadata, with the reference's bytes.
    Converted(Vec<TensorType>),
}

/// One output of a job.
#[derive(Debug, Clone)]
pub struct Output {
    /// Where it goes; the parts of a split output are numbered.
    pub path: PathBuf,
    /// What it is.
    pub target: Target,
    /// Whether and when a new part starts.
    pub split: Option<SplitLimit>,
    /// Only this part (from 0) of this many.
    pub part: Option<(u64, u64)>,
    /// Whether a file of that name is replaced.
    pub replace: bool,
}

/// A job to be planned.
#[derive(Clone)]
pub struct Job<'a> {
    /// Where the rows come from.
    pub source: &'a dyn Source,
    /// The types that the source's tensors have as far as rules are concerned, if not those of its
    /// rows: a checkpoint counts as the GGUF file it converts to.
    pub base: Option<&'a [TensorType]>,
    /// Importance for the quantized outputs.
    pub importance: Option<NamedImportance<'a>>,
    /// What is to be written.
    pub outputs: Vec<Output>,
}

/// A job whose outputs are known to the last byte of their headers.
pub struct PlannedJob<'a> {
    source: &'a dyn Source,
    importance: Option<&'a Importance>,
    outputs: Vec<PlannedOutput>,
    check: Check,
}

/// One planned output.
#[derive(Debug)]
pub struct PlannedOutput {
    path: PathBuf,
    plan: Plan,
    layout: gguf::Plan,
    /// Tensors of the plan that precede those of the layout: not 0 for a later part alone.
    first: usize,
    effort: Effort,
    converted: bool,
    replace: bool,
    missing: Option<PlannedTensor>,
    importance_given: bool,
}

impl PlannedOutput {
    /// Where it goes.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// The files that will be written.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.layout.paths(&self.path)
    }

    /// The tensors.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes of all files that will be written.
    pub fn size_bytes(&self) -> u64 {
        self.layout.bytes()
    }

    /// How hard the encoders search.
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// Why the output will not be written although it can be planned: a type is useless without
    /// importance, and there is none.
    pub fn refusal(&self) -> Option<JobError> {
        self.missing
            .as_ref()
            .map(|tensor| JobError::ImportanceMissing {
                tensor: tensor.info.name.clone(),
                ty: tensor.info.ty,
                given: self.importance_given,
            })
    }
}

impl<'a> Job<'a> {
    /// Plans all outputs; reads no weights and writes nothing.
    ///
    /// # Errors
    /// If the importance matrix does not fit the model, types cannot be chosen or laid out, or two
    /// outputs have the same name.
    pub fn plan(self) -> Result<PlannedJob<'a>, JobError> {
        let mut tensors = self.source.tensors().to_vec();
        for (info, &ty) in tensors.iter_mut().zip(self.base.unwrap_or_default()) {
            info.ty = ty;
        }
        // A matrix without entries is as good as none.
        let importance = self
            .importance
            .filter(|named| !named.matrix.entries.is_empty());
        let check = match &importance {
            Some(named) => named.matrix.check(&tensors)?,
            None => Check::default(),
        };
        let outputs = self
            .outputs
            .into_iter()
            .map(|output| output.plan(self.source, &tensors, importance.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut paths: Vec<PathBuf> = outputs.iter().flat_map(PlannedOutput::paths).collect();
        paths.sort();
        if let Some(pair) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(JobError::SamePath(pair[0].clone()));
        }
        Ok(PlannedJob {
            source: self.source,
            importance: importance.map(|named| named.matrix),
            outputs,
            check,
        })
    }
}

impl Output {
    fn plan(
        self,
        source: &dyn Source,
        tensors: &[TensorInfo],
        importance: Option<&NamedImportance<'_>>,
    ) -> Result<PlannedOutput, JobError> {
        let (plan, metadata, effort, missing) = match &self.target {
            Target::Converted(types) => {
                let plan = plan_types(source.tensors(), types)?;
                (plan, source.metadata().clone(), Effort::Reference, None)
            }
            Target::Quantized(recipe) => {
                let (preset, options) = (recipe.preset, &recipe.options);
                let plan = plan(
                    source.metadata(),
                    tensors,
                    preset,
                    options,
                    importance.is_some(),
                )?;
                let metadata =
                    metadata::of_recipe(source.metadata(), tensors, recipe, &plan, importance);
                let lacks = |tensor: &PlannedTensor| {
                    importance
                        .is_none_or(|named| named.matrix.fitting(&tensors[tensor.source]).is_none())
                };
                let missing = plan.first_needing_importance(preset, lacks).cloned();
                (plan, metadata, recipe.effort, missing)
            }
        };
        let infos: Vec<TensorInfo> = plan.tensors.iter().map(|t| t.info.clone()).collect();
        let layout = Layout {
            split: match &self.target {
                Target::Quantized(recipe) if recipe.options.keep_split => {
                    Some(parts_of_source(source, &plan))
                }
                _ => (self.split).or_else(|| Some(SplitLimit::Parts(self.part?.1))),
            },
            ..Layout::default()
        };
        let mut layout = gguf::Plan::new(&metadata, &infos, &layout)?;
        let mut first = 0;
        if let Some((no, count)) = self.part {
            let found = layout.parts().len() as u64;
            let part = usize::try_from(no).ok().filter(|_| count == found);
            let part = part.and_then(|no| Some((no, layout.only_part(no)?)));
            let Some((no, part)) = part else {
                return Err(JobError::NoSuchPart { no, count, found });
            };
            first = layout.parts()[no].tensors.start;
            layout = part;
        }
        Ok(PlannedOutput {
            path: self.path,
            plan,
            layout,
            first,
            effort,
            converted: matches!(self.target, Target::Converted(_)),
            replace: self.replace,
            missing,
            importance_given: importance.is_some(),
        })
    }
}

/// The parts of the source, with those of its tensors that are planned.
fn parts_of_source(source: &dyn Source, plan: &Plan) -> SplitLimit {
    let mut counts = Vec::new();
    for tensor in &plan.tensors {
        let part = source.part(tensor.source);
        counts.resize(counts.len().max(part + 1), 0);
        counts[part] += 1;
    }
    SplitLimit::Counts(counts)
}

impl PlannedJob<'_> {
    /// The outputs.
    pub fn outputs(&self) -> &[PlannedOutput] {
        &self.outputs
    }

    /// What is to be known about the importance matrix.
    pub fn importance_check(&self) -> &Check {
        &self.check
    }

    /// Tensors that will be encoded without importance although there is a matrix: names in the
    /// source, each once.
    pub fn without_importance(&self) -> Vec<&bstr::BStr> {
        let Some(matrix) = self.importance else {
            return Vec::new();
        };
        let tensors = self.source.tensors();
        let mut missing: Vec<&bstr::BStr> = self
            .outputs
            .iter()
            .filter(|output| !output.converted)
            .flat_map(|output| &output.plan.tensors)
            .filter(|tensor| tensor.info.ty.is_quantized() && tensor.from != tensor.info.ty)
            .map(|tensor| &tensors[tensor.source])
            .filter(|info| matrix.fitting(info).is_none())
            .map(|info| info.name.as_ref())
            .collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Stored bytes that one pass reads.
    pub fn source_bytes(&self) -> u64 {
        let bytes = |info: &TensorInfo| info.bytes().unwrap_or(0);
        let tensors = self.source.tensors();
        let used = self.used();
        used.iter().map(|&tensor| bytes(&tensors[tensor])).sum()
    }

    /// The source's tensors that some output wants, in the source's order.
    fn used(&self) -> Vec<usize> {
        let mut used: Vec<usize> = self
            .outputs
            .iter()
            .flat_map(|output| output.layout_tensors().map(|(_, tensor)| tensor.source))
            .collect();
        used.sort_unstable();
        used.dedup();
        used
    }
}

impl PlannedOutput {
    /// The tensors that are laid out, by their index in the layout.
    fn layout_tensors(&self) -> impl Iterator<Item = (usize, &PlannedTensor)> {
        let count = self.layout.tensors().len();
        self.plan.tensors[self.first..self.first + count]
            .iter()
            .enumerate()
    }
}
