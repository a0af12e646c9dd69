//! `grist convert`.

use std::path::{Path, PathBuf};

use clap::Args;
use gristmill_convert::{Checkpoint, Conversion, Options, Output as OutputType};
use gristmill_gguf::Source as _;
use gristmill_quantize::importance::Importance;
use gristmill_quantize::job::{Job, NamedImportance, Output, PlannedJob, PlannedOutput, Target};
use gristmill_quantize::plan::Options as PlanOptions;
use gristmill_quantize::preset::Preset;
use gristmill_quantize::recipe::Recipe;
use gristmill_quantize::types::Effort;
use serde_json::json;

use crate::context::Context;
use crate::measure::{self, EffortChoice};
use crate::model_source::{checkpoint_folder, file_type, variant_name};
use crate::output::{How, Limits};
use crate::release::{file_name, run_job};
use crate::report::{Exit, Outcome, Report};
use crate::table;

/// Arguments of `grist convert`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Checkpoint folder, or the id of a repository on the hub (organisation/name)
    source: PathBuf,
    /// File to write, or folder for {name}-{TYPE}.gguf [default: this folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// auto, f32, f16, bf16, q8_0: the reference's bytes; or any preset
    #[arg(long = "type", value_name = "TYPE", default_value = "auto")]
    ty: String,
    /// Name of the pre-tokenizer, if it is not found out
    #[arg(long, value_name = "NAME")]
    pre: Option<String>,
    /// Revision of a repository on the hub
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// LoRA adapter to merge into the model (repeatable)
    #[arg(long, value_name = "DIR")]
    lora: Vec<PathBuf>,
    /// The model that an adapter was trained on: SOURCE becomes a GGUF adapter
    #[arg(long, value_name = "DIR", conflicts_with = "lora")]
    base: Option<PathBuf>,
    /// Importance matrix, for presets
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// How hard the encoders search, for presets
    #[arg(long, value_enum, default_value_t)]
    effort: EffortChoice,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    how: How,
}

/// What `--type` asks for.
enum Wanted {
    Converted(OutputType),
    Preset(Preset),
}

impl Wanted {
    fn parse(word: &str) -> Result<Self, Report> {
        if let Ok(output) = word.parse() {
            return Ok(Self::Converted(output));
        }
        match word.parse() {
            Ok(preset) => Ok(Self::Preset(preset)),
            Err(error) => Err(Report::usage(format!("{error}"))
                .help("known are auto, f32, f16, bf16, q8_0 and the presets of `grist quantize`")),
        }
    }
}

/// Converts, or prints the plan.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let wanted = Wanted::parse(&arguments.ty)?;
    let folder = checkpoint_folder(&arguments.source, arguments.revision.as_deref(), context)?;
    let output = match &wanted {
        Wanted::Converted(output) => *output,
        // Rules for presets look at the types of the automatic conversion.
        Wanted::Preset(_) => OutputType::Auto,
    };
    let conversion = arguments.conversion(&folder, output, context)?;
    for warning in conversion.warnings() {
        context.warn(warning);
    }
    for name in conversion.dropped() {
        context.detail(&format!("not needed: {name}"));
    }
    let matrix = match &arguments.imatrix {
        Some(path) => Some((Importance::read(path)?, file_name(path))),
        None => None,
    };
    let target = match &wanted {
        Wanted::Converted(_) => Target::Converted(conversion.types().to_vec()),
        Wanted::Preset(preset) => Target::Quantized(Recipe {
            preset: *preset,
            options: PlanOptions::default(),
            effort: Effort::from(arguments.effort),
        }),
    };
    let ty = match &wanted {
        Wanted::Preset(preset) => preset.to_string(),
        Wanted::Converted(_) => file_type(&conversion),
    };
    let path = output_path(arguments.output.as_deref(), &arguments.source, &ty);
    let job = Job {
        source: &conversion,
        base: Some(conversion.types()),
        importance: matrix
            .as_ref()
            .map(|(matrix, file)| NamedImportance { matrix, file }),
        outputs: vec![Output {
            path,
            target,
            split: arguments.limits.limit(),
            part: None,
            replace: arguments.how.force,
        }],
    };
    let job = job.plan()?;
    if matches!(wanted, Wanted::Converted(_)) {
        warn_of_overflow(&conversion, context);
    }
    if arguments.how.dry_run {
        for refusal in job.outputs().iter().filter_map(PlannedOutput::refusal) {
            context.warn(&format!("would be refused: {refusal}"));
        }
        if let Err(error) = job.room() {
            context.warn(&error.to_string());
        }
        return print_plan(&job, &conversion, arguments.how.json, context);
    }
    for output in job.outputs() {
        output
            .paths()
            .iter()
            .try_for_each(|path| measure::refuse_existing(path, arguments.how.force))?;
    }
    let done = run_job(&job, "converting", context)?;
    let output = &job.outputs()[0];
    if arguments.how.json {
        context.print_json(&json!({
            "files": done.files.concat(),
            "type": ty,
            "size_bytes": output.size_bytes(),
            "bits_per_weight": output.plan().bits_per_weight(),
            "source_bytes": done.source_bytes,
            "dropped": conversion.dropped(),
            "warnings": conversion.warnings(),
        }))?;
    } else {
        for path in done.files.concat() {
            context.print(&format!("{}\n", path.display()))?;
        }
    }
    Ok(Exit::Done)
}

impl Arguments {
    fn conversion(
        &self,
        folder: &Path,
        output: OutputType,
        context: &Context,
    ) -> Result<Conversion, Report> {
        let checkpoint = Checkpoint::open(folder)?;
        let options = Options {
            output,
            pre: self.pre.clone(),
        };
        if let Some(base) = &self.base {
            let base = Checkpoint::open(&checkpoint_folder(base, None, context)?)?;
            return Ok(Conversion::adapter(&checkpoint, &base, &options)?);
        }
        let adapters = self.lora.iter().map(|folder| Checkpoint::open(folder));
        let adapters = adapters.collect::<Result<Vec<_>, _>>()?;
        Ok(Conversion::merged(&checkpoint, &adapters, &options)?)
    }
}

/// Names the tensors that do not fit the range of F16.
fn warn_of_overflow(conversion: &Conversion, context: &Context) {
    const SHOWN: usize = 8;
    let found = conversion.overflows();
    if found.is_empty() {
        return;
    }
    let values: u64 = found.iter().map(|(_, count)| count).sum();
    let named: Vec<String> = found
        .iter()
        .take(SHOWN)
        .map(|(name, count)| format!("{name} ({count})"))
        .collect();
    let more = match found.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    context.warn(&format!(
        "{values} values become infinite in F16, in {}{more}: --type bf16 holds them",
        named.join(", ")
    ));
}

/// The file for `-o`: itself, or named after model and type in the folder it is.
fn output_path(asked: Option<&Path>, source: &Path, ty: &str) -> PathBuf {
    let name = format!("{}-{ty}.gguf", variant_name(source));
    match asked {
        None => PathBuf::from(name),
        Some(path) if path.is_dir() => path.join(name),
        Some(path) => path.to_owned(),
    }
}

fn print_plan(
    job: &PlannedJob<'_>,
    conversion: &Conversion,
    json: bool,
    context: &Context,
) -> Outcome {
    let sources = conversion.tensors();
    for output in job.outputs() {
        let plan = output.plan();
        if json {
            let tensors = plan.tensors.iter().map(|tensor| {
                json!({
                    "name": tensor.info.name.to_string(),
                    "shape": tensor.info.shape,
                    "from": sources[tensor.source].ty.to_string(),
                    "to": tensor.info.ty.to_string(),
                })
            });
            context.print_json(&json!({
                "files": output.paths(),
                "size_bytes": output.size_bytes(),
                "bits_per_weight": plan.bits_per_weight(),
                "tensors": tensors.collect::<Vec<_>>(),
                "dropped": conversion.dropped(),
                "warnings": conversion.warnings(),
            }))?;
            continue;
        }
        let mut table = table::plain(&["tensor", "shape", "from", "to"], 4);
        for tensor in &plan.tensors {
            let shape: Vec<String> = tensor.info.shape.iter().map(u64::to_string).collect();
            table.add_row([
                tensor.info.name.to_string(),
                shape.join(" × "),
                sources[tensor.source].ty.to_string(),
                tensor.info.ty.to_string(),
            ]);
        }
        let files: Vec<String> = output
            .paths()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        context.print(&format!(
            "{}\n{}: {} bytes ({}), {:.3} bits per weight\n",
            table::trimmed(&table),
            files.join(", "),
            output.size_bytes(),
            table::gib(output.size_bytes()),
            plan.bits_per_weight(),
        ))?;
    }
    Ok(Exit::Done)
}
