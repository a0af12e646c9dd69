//! `grist`: the command line over the Gristmill libraries.
//!
//! This package holds arguments, progress and printing only; what the commands do is in the
//! libraries.
#![forbid(unsafe_code)]

mod budget;
mod cli;
mod commands;
mod context;
mod failures;
mod files;
mod measure;
mod model_source;
mod output;
mod release;
mod report;
mod table;
mod values;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;
use crate::context::Context;
use crate::report::{Exit, Report};

fn main() -> ExitCode {
    // A panic is a bug here, never the user's fault: it has its own exit code.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("error: internal error: {panic}");
        eprintln!("help: this is a bug in grist; please report it with the command and its input");
    }));
    let outcome = std::panic::catch_unwind(|| {
        let cli = match Cli::try_parse() {
            Ok(cli) => cli,
            Err(error) => return Report::from_arguments(&error),
        };
        Context::new(&cli.global).and_then(|context| cli.command.run(&context))
    });
    match outcome {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(report)) => {
            report.print();
            report.exit().into()
        }
        Err(_) => Exit::Bug.into(),
    }
}
