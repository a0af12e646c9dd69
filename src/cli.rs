//! The arguments of `grist`.

use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::context::Context;
use crate::report::Outcome;

/// Checkpoint → GGUF → variants → numbers people can defend.
#[derive(Debug, Parser)]
#[command(name = "grist", version, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Threads to use [default: all cores]
    #[arg(
        short = 'j',
        long,
        global = true,
        env = "GRIST_THREADS",
        value_name = "N"
    )]
    pub threads: Option<usize>,
    /// Print results only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print more (repeatable)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// One variant a command, in the order of the road.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "one a run")]
pub enum Command {
    /// Convert, quantize, check and measure: everything a release needs
    Release(commands::release::Arguments),
    /// Checkpoint → GGUF
    Convert(commands::convert::Arguments),
    /// Measure which weights matter (an importance matrix)
    Imatrix(commands::imatrix::Arguments),
    /// Measure perplexity, and KL divergence from a base
    Perplexity(commands::perplexity::Arguments),
    /// Measure speed and memory
    Bench(commands::bench::Arguments),
    /// Go on from a text
    Generate(commands::generate::Arguments),
    /// Write a model's logits or embeddings
    Logits(commands::logits::Arguments),
    /// Show the token ids of a text
    Tokenize(commands::tokenize::Arguments),
    /// Hold variants against their base: the table
    Compare(commands::compare::Arguments),
    /// Write the model card of a report
    Card(commands::card::Arguments),
    /// Quantize a model to any number of variants in one pass
    Quantize(commands::quantize::Arguments),
    /// Look into a GGUF file: metadata, tensors, sizes
    Inspect(commands::inspect::Arguments),
    /// Validate a GGUF file
    Check(commands::check::Arguments),
    /// Compare two GGUF files: keys, tensors, data
    Diff(commands::diff::Arguments),
    /// Digest the tensors of a GGUF file
    Hash(commands::hash::Arguments),
    /// Take a tensor or a metadata value out of a GGUF file
    Extract(commands::extract::Arguments),
    /// Edit the metadata of a GGUF file
    Meta(commands::meta::Arguments),
    /// Divide a GGUF file into parts
    Split(commands::split::Arguments),
    /// Join the parts of a split set
    Merge(commands::merge::Arguments),
    /// Convert a GGUF file to the other byte order
    Endian(commands::endian::Arguments),
    /// Write a completion script for a shell
    Completions(commands::completions::Arguments),
    /// Write the manual page
    Man(commands::man::Arguments),
}

impl Command {
    /// Runs the command.
    pub fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Release(arguments) => commands::release::run(&arguments, context),
            Self::Convert(arguments) => commands::convert::run(&arguments, context),
            Self::Generate(arguments) => commands::generate::run(&arguments, context),
            Self::Logits(arguments) => commands::logits::run(&arguments, context),
            Self::Tokenize(arguments) => commands::tokenize::run(&arguments, context),
            Self::Imatrix(arguments) => commands::imatrix::run(&arguments, context),
            Self::Perplexity(arguments) => commands::perplexity::run(&arguments, context),
            Self::Bench(arguments) => commands::bench::run(&arguments, context),
            Self::Compare(arguments) => commands::compare::run(&arguments, context),
            Self::Card(arguments) => commands::card::run(&arguments, context),
            Self::Quantize(arguments) => commands::quantize::run(&arguments, context),
            Self::Inspect(arguments) => commands::inspect::run(&arguments, context),
            Self::Check(arguments) => commands::check::run(&arguments, context),
            Self::Diff(arguments) => commands::diff::run(&arguments, context),
            Self::Hash(arguments) => commands::hash::run(&arguments, context),
            Self::Extract(arguments) => commands::extract::run(&arguments, context),
            Self::Meta(arguments) => commands::meta::run(&arguments, context),
            Self::Split(arguments) => commands::split::run(&arguments, context),
            Self::Merge(arguments) => commands::merge::run(&arguments, context),
            Self::Endian(arguments) => commands::endian::run(&arguments, context),
            Self::Completions(arguments) => commands::completions::run(&arguments, context),
            Self::Man(arguments) => commands::man::run(&arguments, context),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn all_arguments_agree_with_each_other() {
        super::Cli::command().debug_assert();
    }
}
