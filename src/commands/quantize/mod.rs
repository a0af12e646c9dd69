//! `grist quantize`.

mod choice;
mod print;

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use gristmill_gguf::TensorType;
use gristmill_quantize::Effort;
use gristmill_quantize::importance::Importance;
use gristmill_quantize::job::{
    Control, Job, NamedImportance, Output, PlannedJob, PlannedOutput, Report as JobReport, Target,
};
use gristmill_quantize::plan::Options;
use gristmill_quantize::preset::Preset;
use gristmill_quantize::recipe::{Provenance, Recipe};

use self::choice::{ChoiceArguments, ImportanceArguments};
use self::print::print;
use crate::budget;
use crate::context::Context;
use crate::model_source::{ModelSource, variant_name};
use crate::output::Limits;
use crate::report::{Outcome, Report};

/// Arguments of `grist quantize`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// GGUF file (or any part of a set), or checkpoint folder
    source: PathBuf,
    /// Presets, separated by commas
    #[arg(long, value_name = "TYPES", value_delimiter = ',', required_unless_present_any = ["recipe", "target"],
          value_parser = Preset::from_str)]
    types: Vec<Preset>,
    /// A recipe to follow instead of presets
    #[arg(long, value_name = "FILE", conflicts_with_all = ["types", "pure", "effort", "target"])]
    recipe: Option<PathBuf>,
    /// Folder for the variants, or with one of them its file name
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// How hard the encoders search [default: best]
    #[arg(long, value_parser = parse_effort)]
    effort: Option<Effort>,
    #[command(flatten)]
    size: budget::Arguments,
    #[command(flatten)]
    importance: ImportanceArguments,
    #[command(flatten)]
    choice: ChoiceArguments,
    #[command(flatten)]
    limits: Limits,
    /// Write only part I of N, the same as in a run that writes all (without a limit: N even parts)
    #[arg(long, value_name = "I/N", value_parser = parse_part)]
    part: Option<(u64, u64)>,
    /// Write the recipe of each variant beside it, as .toml (always for a target size)
    #[arg(long)]
    save_recipe: bool,
    /// Name of a checkpoint's pre-tokenizer, if it is not found out
    #[arg(long, value_name = "NAME")]
    pre: Option<String>,
    /// Replace files that exist
    #[arg(long)]
    force: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// One variant to be made.
struct Variant {
    label: String,
    recipe: Recipe,
    path: PathBuf,
    /// What a recipe from a file was made with.
    made_with: Option<Provenance>,
}

/// Plans and writes the variants.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let opened = ModelSource::open(&arguments.source, arguments.pre.as_deref(), context)?;
    let matrix = arguments.importance.read()?;
    let variants = arguments.variants(&opened, matrix.as_ref(), context)?;
    let file = arguments
        .importance
        .imatrix
        .as_deref()
        .unwrap_or(Path::new(""));
    let file = file.to_string_lossy();
    let outputs = variants.iter().map(|variant| Output {
        path: variant.path.clone(),
        target: Target::Quantized(variant.recipe.clone()),
        split: arguments.limits.limit(),
        part: arguments.part,
        replace: arguments.force,
    });
    let job = Job {
        source: opened.source(),
        base: opened.base_types(),
        importance: matrix.as_ref().map(|matrix| NamedImportance {
            matrix,
            file: &file,
        }),
        outputs: outputs.collect(),
    };
    let planned = job.plan()?;
    warn(&planned, &variants, context);
    if arguments.dry_run {
        for refusal in planned.outputs().iter().filter_map(PlannedOutput::refusal) {
            context.warn(&format!("would be refused: {refusal}"));
        }
        if let Err(error) = planned.room() {
            context.warn(&error.to_string());
        }
        return print(arguments, &planned, &variants, None, context);
    }
    refuse_own_source(&opened, &planned)?;
    if let Some(refusal) = planned.outputs().iter().find_map(PlannedOutput::refusal) {
        return Err(refusal.into());
    }
    make_folders(&planned)?;
    let report = carry_out(&planned, context)?;
    for made_with in variants.iter().filter_map(|v| v.made_with.as_ref()) {
        if let (Some(then), Some(now)) = (&made_with.source, &report.source_digest)
            && then != now
        {
            context
                .warn("the recipe was made from another source: the file differs from the first");
        }
    }
    if arguments.save_recipe || arguments.size.target().is_some() {
        let made_with = Provenance {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            source: report.source_digest.clone(),
            importance: matrix.as_ref().map(digest_of),
            importance_file: arguments
                .importance
                .imatrix
                .as_ref()
                .map(|_| file.to_string()),
        };
        for (output, variant) in planned.outputs().iter().zip(&variants) {
            let recipe = variant.recipe.with_types(output.plan());
            let path = output.path().with_extension("toml");
            crate::files::replace(&path, recipe.to_toml(&made_with).as_bytes())?;
        }
    }
    print(arguments, &planned, &variants, Some(&report), context)
}

impl Arguments {
    fn variants(
        &self,
        opened: &ModelSource,
        matrix: Option<&Importance>,
        context: &Context,
    ) -> Result<Vec<Variant>, Report> {
        let single = self.output.extension().is_some_and(|end| end == "gguf");
        let mut made_with = None;
        let mut recipes: Vec<(String, Recipe)> = match &self.recipe {
            Some(path) => {
                let text = fs::read_to_string(path).map_err(|error| Report::io(path, &error))?;
                let (mut recipe, provenance) = Recipe::from_toml(&text)
                    .map_err(|error| Report::input(format!("{}: {error}", path.display())))?;
                self.choice.apply(&mut recipe.options)?;
                if let Some(provenance) = &provenance {
                    compare_importance(provenance, matrix, context);
                }
                made_with = provenance;
                let label = path.file_stem().unwrap_or_default().to_string_lossy();
                vec![(label.into_owned(), recipe)]
            }
            None => {
                let mut presets: Vec<Preset> = Vec::new();
                for &preset in &self.types {
                    if !presets.contains(&preset) {
                        presets.push(preset);
                    }
                }
                let recipes = presets.into_iter();
                let recipes = recipes.map(|p| Ok((p.to_string(), self.recipe_of(p)?)));
                recipes.collect::<Result<_, Report>>()?
            }
        };
        if let Some((size, text)) = self.size.target() {
            let mut options = Options::default();
            self.choice.apply(&mut options)?;
            let inputs = budget::Inputs {
                path: &self.source,
                opened,
                importance: matrix,
                effort: self.effort.unwrap_or_default(),
                options: &options,
                folder: match self.output.parent() {
                    Some(folder) if single => folder,
                    _ => &self.output,
                },
            };
            let recipe = budget::recipe(&self.size, size, text, &inputs, context)?;
            recipes.push((self.size.label(), recipe));
        }
        if single && recipes.len() > 1 {
            return Err(Report::usage(format!(
                "{} is one file, and {} types are asked for",
                self.output.display(),
                recipes.len()
            ))
            .help("give a folder with -o"));
        }
        let name = variant_name(&self.source);
        Ok(recipes
            .into_iter()
            .map(|(label, recipe)| Variant {
                path: match single {
                    true => self.output.clone(),
                    false => self.output.join(format!("{name}-{label}.gguf")),
                },
                label,
                recipe,
                made_with: made_with.clone(),
            })
            .collect())
    }

    fn recipe_of(&self, preset: Preset) -> Result<Recipe, Report> {
        let mut recipe = Recipe {
            effort: self.effort.unwrap_or_default(),
            ..preset.into()
        };
        self.choice.apply(&mut recipe.options)?;
        Ok(recipe)
    }
}

/// The digest of a matrix as recipes carry it.
fn digest_of(matrix: &Importance) -> String {
    format!("xxh3-128:{:032x}", matrix.digest())
}

/// Warns where a recipe will not give the same bytes, because the importance is not the same.
fn compare_importance(made_with: &Provenance, matrix: Option<&Importance>, context: &Context) {
    let now = matrix.map(digest_of);
    match (&made_with.importance, &now) {
        (Some(_), None) => {
            context.warn("the recipe was made with importance, and none is given here");
        }
        (None, Some(_)) => {
            context.warn("the recipe was made without importance, and here it is given");
        }
        (Some(then), Some(now)) if then != now => {
            context.warn("the recipe was made with another importance matrix");
        }
        _ => {}
    }
}

/// What the user should know before the work begins.
fn warn(planned: &PlannedJob<'_>, variants: &[Variant], context: &Context) {
    let check = planned.importance_check();
    if let Some(first) = check.foreign.first() {
        context.warn(&format!(
            "{} entries of the importance matrix are of no tensor here, the first is {first}",
            check.foreign.len()
        ));
    }
    for sparse in &check.sparse {
        context.warn(&format!(
            "{}: {} of {} experts saw fewer than 64 tokens ({} none); they lean on the others' mean",
            sparse.tensor, sparse.seldom, sparse.experts, sparse.unseen
        ));
    }
    let without = planned.without_importance();
    if let Some(first) = without.first() {
        context.detail(&format!(
            "{} tensors are encoded without importance, the first is {first}",
            without.len()
        ));
    }
    for (output, variant) in planned.outputs().iter().zip(variants) {
        let plan = output.plan();
        let count = plan.fallbacks().count();
        if let Some(first) = plan.fallbacks().next() {
            context.warn(&format!(
                "{}: rows of {count} tensors do not fit their type, the first is {} ({} instead of \
                 {}): {:.3} bits per weight instead of {:.3}",
                variant.label,
                first.info.name,
                first.info.ty,
                wanted(first.reason).unwrap_or(first.info.ty),
                plan.bits_per_weight(),
                plan.nominal_bits_per_weight(),
            ));
        }
    }
}

fn wanted(reason: gristmill_quantize::plan::Reason) -> Option<TensorType> {
    match reason {
        gristmill_quantize::plan::Reason::Fallback { wanted } => Some(wanted),
        _ => None,
    }
}

/// An output may replace any file with `--force`, but not the one that is being read.
fn refuse_own_source(opened: &ModelSource, planned: &PlannedJob<'_>) -> Result<(), Report> {
    let sources: Vec<PathBuf> = opened
        .files()
        .iter()
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect();
    let paths = planned.outputs().iter().flat_map(PlannedOutput::paths);
    for path in paths {
        if fs::canonicalize(&path).is_ok_and(|path| sources.contains(&path)) {
            let message = format!("{} is the input and would be the output", path.display());
            return Err(Report::usage(message).help("choose another name or folder with -o"));
        }
    }
    Ok(())
}

fn make_folders(planned: &PlannedJob<'_>) -> Result<(), Report> {
    for output in planned.outputs() {
        if let Some(folder) = output.path().parent() {
            fs::create_dir_all(folder).map_err(|error| Report::io(folder, &error))?;
        }
    }
    Ok(())
}

/// Runs a planned job under a progress bar.
fn carry_out(planned: &PlannedJob<'_>, context: &Context) -> Result<JobReport, Report> {
    let bar = context.byte_bar("quantize", planned.source_bytes());
    let result = planned.run(&Control {
        progress: &|bytes| bar.inc(bytes),
        cancel: &context.interrupt_flag(),
    });
    bar.finish_and_clear();
    let report = result?;
    if report.resumed_tensors > 0 {
        let count = report.resumed_tensors;
        context.note(&format!("{count} tensors were there from an earlier run"));
    }
    Ok(report)
}

fn parse_effort(word: &str) -> Result<Effort, String> {
    [Effort::Reference, Effort::Best]
        .into_iter()
        .find(|effort| effort.name().eq_ignore_ascii_case(word))
        .ok_or_else(|| "expected reference or best".to_owned())
}

/// `I/N`, counted from 1.
fn parse_part(text: &str) -> Result<(u64, u64), String> {
    let parse = || {
        let (no, count) = text.split_once('/')?;
        let (no, count): (u64, u64) = (no.parse().ok()?, count.parse().ok()?);
        (no >= 1 && no <= count).then(|| (no - 1, count))
    };
    parse().ok_or_else(|| "expected I/N with I from 1 to N, for example 2/8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::parse_part;

    #[test]
    fn parts_count_from_one() {
        assert_eq!(parse_part("1/3"), Ok((0, 3)));
        assert_eq!(parse_part("3/3"), Ok((2, 3)));
        for bad in ["0/3", "4/3", "1", "a/b", "/", ""] {
            assert!(parse_part(bad).is_err(), "{bad}");
        }
    }
}
