//! Options of `grist quantize` that change what is chosen and what it is weighed by.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use gristmill_gguf::TensorType;
use gristmill_quantize::importance::Importance;
use gristmill_quantize::plan::{KeyOverride, OptionError, Options, TypePattern, parse_type};

use crate::report::Report;

/// What importance is used.
#[derive(Debug, Args)]
pub(super) struct ImportanceArguments {
    /// Importance matrix, GGUF or .dat
    #[arg(long, value_name = "FILE")]
    pub(super) imatrix: Option<PathBuf>,
    /// Use only entries whose name contains this (repeatable)
    #[arg(
        long,
        value_name = "WORD",
        requires = "imatrix",
        conflicts_with = "exclude_weights"
    )]
    include_weights: Vec<String>,
    /// Leave out entries whose name contains this (repeatable)
    #[arg(long, value_name = "WORD", requires = "imatrix")]
    exclude_weights: Vec<String>,
}

/// Changes to the presets' choices.
#[derive(Debug, Args)]
pub(super) struct ChoiceArguments {
    /// Give every tensor the preset's own type
    #[arg(long)]
    pure: bool,
    /// Keep the output tensor's type
    #[arg(long)]
    leave_output_tensor: bool,
    /// Type of the output tensor
    #[arg(long, value_name = "TYPE", value_parser = parse_type)]
    output_tensor_type: Option<TensorType>,
    /// Type of the token embedding
    #[arg(long, value_name = "TYPE", value_parser = parse_type)]
    token_embedding_type: Option<TensorType>,
    /// Type of tensors whose name the regular expression matches (repeatable; the first that matches)
    #[arg(long, value_name = "PATTERN=TYPE", value_parser = TypePattern::from_str)]
    tensor_type: Vec<TypePattern>,
    /// File of such patterns, separated by white space
    #[arg(long, value_name = "FILE")]
    tensor_type_file: Option<PathBuf>,
    /// Leave these layers out and number the others anew
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    prune_layers: Vec<u64>,
    /// Set a metadata key; TYPE is int, float, bool or str (repeatable)
    #[arg(long, value_name = "KEY=TYPE:VALUE", value_parser = KeyOverride::from_str)]
    override_kv: Vec<KeyOverride>,
    /// Quantize tensors again that are quantized already
    #[arg(long)]
    allow_requantize: bool,
    /// Keep the tensors in the input's order and, if it is split, in its parts
    #[arg(long, conflicts_with_all = ["split_max_size", "split_max_tensors"])]
    keep_split: bool,
    /// Fail where rows do not fit a type, instead of using another
    #[arg(long)]
    no_fallback: bool,
}

impl ImportanceArguments {
    /// Reads the matrix, without the entries that are left out.
    pub(super) fn read(&self) -> Result<Option<Importance>, Report> {
        let Some(path) = &self.imatrix else {
            return Ok(None);
        };
        let mut matrix = Importance::read(path)?;
        if !self.include_weights.is_empty() {
            matrix.include(&self.include_weights);
        }
        matrix.exclude(&self.exclude_weights);
        Ok(Some(matrix))
    }
}

impl ChoiceArguments {
    /// Adds what was asked for to what the options say already.
    pub(super) fn apply(&self, options: &mut Options) -> Result<(), Report> {
        let mut patterns = self.tensor_type.clone();
        if let Some(path) = &self.tensor_type_file {
            let text = fs::read_to_string(path).map_err(|error| Report::io(path, &error))?;
            let parsed: Result<Vec<TypePattern>, OptionError> =
                text.split_whitespace().map(str::parse).collect();
            patterns.extend(
                parsed.map_err(|error| Report::input(format!("{}: {error}", path.display())))?,
            );
        }
        options.tensor_types.splice(0..0, patterns);
        options.pure |= self.pure;
        options.leave_output_tensor |= self.leave_output_tensor;
        options.allow_requantize |= self.allow_requantize;
        options.no_fallback |= self.no_fallback;
        options.keep_split |= self.keep_split;
        options.output_tensor_type = self.output_tensor_type.or(options.output_tensor_type);
        options.token_embedding_type = self.token_embedding_type.or(options.token_embedding_type);
        options.prune_layers.extend(&self.prune_layers);
        options.overrides.extend(self.override_kv.iter().cloned());
        Ok(())
    }
}
