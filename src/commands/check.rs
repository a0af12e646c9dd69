//! `grist check`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use gristmill_gguf::File;
use gristmill_gguf::check::{self, Finding, Level, Severity};
use gristmill_gguf::error::{Shown, Subject};
use gristmill_quantize::verify::verify;
use serde_json::json;

use crate::context::Context;
use crate::report::{Exit, Outcome, Report};

/// Findings of one rule that are printed; `--json` has them all.
const SHOWN_PER_RULE: usize = 10;

/// Arguments of `grist check`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The GGUF file, or any part of a split set
    file: PathBuf,
    /// How far to go; each level includes those before it
    #[arg(long, value_enum, default_value_t)]
    level: LevelArgument,
    /// Compare with what the file was made from: the GGUF file that was quantized
    #[arg(long, value_name = "SRC")]
    against: Option<PathBuf>,
    /// Exit with 1 for warnings too
    #[arg(long)]
    strict: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// How far to go.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum LevelArgument {
    /// The rules of the format: header, keys, layout
    #[default]
    Structure,
    /// The keys and tensors that the architecture needs
    Model,
    /// Every block of every tensor
    Data,
}

impl From<LevelArgument> for Level {
    fn from(level: LevelArgument) -> Self {
        match level {
            LevelArgument::Structure => Self::Structure,
            LevelArgument::Model => Self::Model,
            LevelArgument::Data => Self::Data,
        }
    }
}

/// Checks the file and prints the findings.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    let mut report = check::check(&arguments.file, arguments.level.into())?;
    if let Some(source) = &arguments.against {
        let source = File::open(source)?;
        // A file that cannot be read has its finding already.
        if let Ok(model) = File::open(&arguments.file) {
            let mut findings = verify(&model, &source, &arguments.file)
                .map_err(|error| Report::input(error.to_string()))?;
            report.findings.append(&mut findings);
        }
    }
    let worst = report.worst();
    let failed =
        worst == Some(Severity::Error) || (arguments.strict && worst == Some(Severity::Warning));
    let count = |severity| report.count(severity);
    if arguments.json {
        context.print_json(&json!({
            "file": arguments.file,
            "files": report.files,
            "level": arguments.level.to_possible_value().map(|v| v.get_name().to_owned()),
            "passed": !failed,
            "errors": count(Severity::Error),
            "warnings": count(Severity::Warning),
            "notes": count(Severity::Note),
            "findings": report.findings.iter().map(json_of).collect::<Vec<_>>(),
        }))?;
    } else {
        context.print(&text_of(&report))?;
    }
    Ok(if failed {
        Exit::CheckFailed
    } else {
        Exit::Done
    })
}

fn json_of(finding: &Finding) -> serde_json::Value {
    let (key, tensor) = match &finding.subject {
        Subject::File => (None, None),
        Subject::Key(key) => (Some(Shown(key).to_string()), None),
        Subject::Tensor(name) => (None, Some(Shown(name).to_string())),
    };
    json!({
        "code": finding.code,
        "severity": finding.severity.name(),
        "file": finding.file,
        "key": key,
        "tensor": tensor,
        "offset": finding.offset,
        "message": finding.message,
        "help": finding.help,
        "llama_cpp_refuses": finding.llama_cpp_refuses,
    })
}

fn text_of(report: &check::Report) -> String {
    let mut text = String::new();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let several = report.files.len() > 1;
    for finding in &report.findings {
        let count = seen.entry(finding.code).or_default();
        *count += 1;
        if *count > SHOWN_PER_RULE {
            continue;
        }
        if several {
            let name = finding.file.file_name().unwrap_or_default();
            let _ = write!(text, "{}: ", name.display());
        }
        let _ = writeln!(text, "{finding}");
        if let (1, Some(help)) = (*count, finding.help) {
            let _ = writeln!(text, "  help: {help}");
        }
    }
    let mut hidden: Vec<_> = seen
        .into_iter()
        .filter(|&(_, count)| count > SHOWN_PER_RULE)
        .collect();
    hidden.sort_unstable();
    for (code, count) in hidden {
        let _ = writeln!(
            text,
            "… and {} more of [{code}] (all of them with --json)",
            count - SHOWN_PER_RULE
        );
    }
    let plural = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let _ = writeln!(
        text,
        "{}, {}, {}",
        plural(report.count(Severity::Error), "error"),
        plural(report.count(Severity::Warning), "warning"),
        plural(report.count(Severity::Note), "note"),
    );
    text
}
