//! `grist man`.

use clap::{Args, CommandFactory as _};

use crate::cli::Cli;
use crate::context::Context;
use crate::report::{Exit, Outcome, Report};

/// Arguments of `grist man`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A command of grist [default: grist itself]
    command: Option<String>,
}

/// Prints the page in roff.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let mut command = Cli::command();
    if let Some(name) = &arguments.command {
        command = command.find_subcommand(name).cloned().ok_or_else(|| {
            Report::usage(format!("no command `{name}`")).help("see `grist --help`")
        })?;
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| Report::environment(format!("cannot write the page: {error}")))?;
    context.print(&String::from_utf8_lossy(&page))?;
    Ok(Exit::Done)
}
