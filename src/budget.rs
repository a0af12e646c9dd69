//! A recipe for a size: errors of types, sensitivities of tensors, the choice.

use std::path::{Path, PathBuf};

use clap::Args;
use gristmill_gguf::Source as _;
use gristmill_perplexity::evaluate::Observer;
use gristmill_perplexity::sensitivity;
use gristmill_quantize::Effort;
use gristmill_quantize::budget::{
    self, BudgetError, ErrorTable, Sensitivities, Target as Size, groups, quantizable, solve,
};
use gristmill_quantize::importance::Importance;
use gristmill_quantize::job::{Control, Job, Output, Target, digest_source};
use gristmill_quantize::plan::Options;
use gristmill_quantize::recipe::Recipe;

use crate::context::Context;
use crate::measure;
use crate::model_source::ModelSource;
use crate::output::parse_size;
use crate::report::Report;

/// Chunks of the calibration text that sensitivities are measured on, unless said otherwise. Few are
/// enough: the measurement compares a model with itself, and so has no sampling error to speak of.
const CHUNKS: usize = 8;

/// A size that a recipe is made for.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Arguments {
    /// Choose each tensor's type for this many bits a weight
    #[arg(long, value_name = "BITS", group = "target", requires = "calibration")]
    target_bpw: Option<f64>,
    /// Choose each tensor's type for a file of this size, for example 4G (powers of 1000)
    #[arg(long, value_name = "SIZE", group = "target", value_parser = parse_size,
          requires = "calibration")]
    target_size: Option<u64>,
    /// Text that sensitivities are measured on
    #[arg(long, value_name = "TEXT", requires = "target")]
    calibration: Option<PathBuf>,
    /// Tokens a chunk of that text
    #[arg(short, long, default_value_t = 512, requires = "target")]
    context: usize,
    /// Chunks of that text [default: 8]
    #[arg(long, value_name = "N", requires = "target")]
    chunks: Option<usize>,
}

impl Arguments {
    /// The size asked for and the text to measure on, if any.
    pub fn target(&self) -> Option<(Size, &Path)> {
        let size = match (self.target_bpw, self.target_size) {
            (Some(bits), _) => Size::BitsPerWeight(bits),
            (None, Some(bytes)) => Size::Bytes(bytes),
            (None, None) => return None,
        };
        Some((size, self.calibration.as_deref()?))
    }

    /// What a variant of this size is called.
    pub fn label(&self) -> String {
        match (self.target_bpw, self.target_size) {
            (Some(bits), _) => format!("{bits}bpw"),
            (None, Some(bytes)) => format!("{bytes}B"),
            (None, None) => String::new(),
        }
    }
}

/// What a recipe is made from.
pub struct Inputs<'a> {
    /// The model as it was given.
    pub path: &'a Path,
    /// The same, opened.
    pub opened: &'a ModelSource,
    /// Importance for errors and probes.
    pub importance: Option<&'a Importance>,
    /// How hard the encoders search.
    pub effort: Effort,
    /// What else was asked for.
    pub options: &'a Options,
    /// Where sensitivities are kept.
    pub folder: &'a Path,
}

/// Makes the recipe.
pub fn recipe(
    arguments: &Arguments,
    size: Size,
    text: &Path,
    inputs: &Inputs<'_>,
    context: &Context,
) -> Result<Recipe, Report> {
    std::fs::create_dir_all(inputs.folder).map_err(|error| Report::io(inputs.folder, &error))?;
    let scratch =
        tempfile::tempdir_in(inputs.folder).map_err(|error| Report::io(inputs.folder, &error))?;
    let base = base_file(inputs, scratch.path(), context)?;
    let model = measure::open(&base, context)?;
    let chunks = arguments.chunks.unwrap_or(CHUNKS);
    let chunks = measure::chunks(&model, &base, text, arguments.context, Some(chunks))?;
    let file = model.file();
    let tensors = file.tensors();
    let choosable = quantizable(file.metadata(), tensors).map_err(BudgetError::from)?;
    let data = tensors.iter().map(|tensor| tensor.bytes().unwrap_or(0));
    let overhead = file.bytes().saturating_sub(data.sum());
    let room = budget::room(tensors, &choosable, inputs.importance, overhead, size)?;

    let bar = context.count_bar("errors", choosable.len() as u64);
    let cancel = context.interrupt_flag();
    let errors = ErrorTable::measure(
        file,
        &choosable,
        inputs.importance,
        inputs.effort,
        &|| bar.inc(1),
        &cancel,
    )?;
    bar.finish_and_clear();

    let groups = groups(tensors, &errors);
    let source = digest_source(file).map_err(|error| Report::input(error.to_string()))?;
    let identity = format!(
        "{} {source} {:032x} {} {} {} {}",
        env!("CARGO_PKG_VERSION"),
        inputs.importance.map_or(0, Importance::digest),
        inputs.effort.name(),
        crate::files::sha256(text, context)?,
        chunks.context(),
        chunks.count(),
    );
    let name = crate::model_source::variant_name(inputs.path);
    let kept = inputs.folder.join(format!(".{name}.sensitivities.json"));
    let mut sensitivities = Sensitivities::open(Some(&kept), &identity);
    let bar = context.count_bar("sensitivities", groups.len() as u64);
    sensitivity::measure(
        &model,
        inputs.importance,
        inputs.effort,
        &groups,
        &mut sensitivities,
        &chunks,
        scratch.path(),
        &Observer {
            progress: &|_| {},
            interrupted: &cancel,
        },
        &|| bar.inc(1),
    )?;
    bar.finish_and_clear();

    let solution = solve(
        tensors,
        &errors,
        &sensitivities.per_error(&groups, &errors),
        room,
    );
    context.note(&format!("predicted KL divergence {:.6}", solution.damage));
    Ok(budget::recipe(
        tensors,
        &solution,
        inputs.effort,
        inputs.options,
    ))
}

/// A GGUF file of the model that the engine can run: the model itself, or a checkpoint's conversion.
fn base_file(inputs: &Inputs<'_>, scratch: &Path, context: &Context) -> Result<PathBuf, Report> {
    let Some(types) = inputs.opened.base_types() else {
        return Ok(inputs.path.to_owned());
    };
    let path = scratch.join("base.gguf");
    let job = Job {
        source: inputs.opened.source(),
        base: None,
        importance: None,
        outputs: vec![Output {
            path: path.clone(),
            target: Target::Converted(types.to_vec()),
            split: None,
            part: None,
            replace: true,
        }],
    };
    job.plan()?.run(&Control {
        progress: &|_| {},
        cancel: &context.interrupt_flag(),
    })?;
    Ok(path)
}

impl From<BudgetError> for Report {
    fn from(error: BudgetError) -> Self {
        match error {
            BudgetError::Unreachable { .. } => Self::usage(error.to_string())
                .help("ask for a size in that range; a smaller one needs an importance matrix"),
            _ => Self::input(error.to_string()),
        }
    }
}

impl From<sensitivity::Error> for Report {
    fn from(error: sensitivity::Error) -> Self {
        use gristmill_perplexity::evaluate;
        match error {
            sensitivity::Error::Job(error) => error.into(),
            sensitivity::Error::Evaluate(evaluate::Error::Interrupted) => Self::interrupted(),
            sensitivity::Error::Cache(error) => Self::io(&error.path, &error.error),
            error => Self::input(error.to_string()),
        }
    }
}
