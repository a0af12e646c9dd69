//! Which exit code and which remedy the libraries' errors come with.

use std::path::Path;

use gristmill_quantize::importance::ImportanceError;
use gristmill_quantize::isa::IsaError;
use gristmill_quantize::job::JobError;
use gristmill_quantize::plan::PlanError;

use crate::report::{Exit, Report};

impl From<gristmill_gguf::Error> for Report {
    fn from(error: gristmill_gguf::Error) -> Self {
        let exit = match &error {
            gristmill_gguf::Error::Exists { .. } => Exit::Usage,
            error if error.is_environment() => Exit::Environment,
            _ => Exit::Input,
        };
        let report = Self::new(exit, error.to_string());
        match error.help() {
            Some(help) => report.help(help),
            None => report,
        }
    }
}

impl From<JobError> for Report {
    fn from(error: JobError) -> Self {
        let help = error.help();
        let exit = match error {
            JobError::Output(error) => return error.into(),
            JobError::Cancelled => return Self::interrupted(),
            JobError::Space { .. } => Exit::Environment,
            JobError::SamePath(_) | JobError::NoSuchPart { .. } => Exit::Usage,
            JobError::Plan(PlanError::NoSuchLayer { .. }) => Exit::Usage,
            _ => Exit::Input,
        };
        with_help(Self::new(exit, error.to_string()), help)
    }
}

impl From<ImportanceError> for Report {
    fn from(error: ImportanceError) -> Self {
        match error {
            ImportanceError::Gguf(error) => error.into(),
            ImportanceError::Io { path, error, .. } => Self::io(&path, &error),
            _ => Self::input(error.to_string()).help("make one with `grist imatrix MODEL -f TEXT`"),
        }
    }
}

impl From<gristmill_convert::Error> for Report {
    fn from(error: gristmill_convert::Error) -> Self {
        use gristmill_convert::Error;
        let help = error.help();
        let exit = match &error {
            Error::Io { path, error } => return with_help(Self::io(path, error), help),
            Error::Hub { .. } => Exit::Environment,
            _ => Exit::Input,
        };
        with_help(Self::new(exit, error.to_string()), help)
    }
}

impl From<IsaError> for Report {
    fn from(error: IsaError) -> Self {
        Self::environment(error.to_string())
            .help("unset GRIST_CPU to use the best set that this CPU has")
    }
}

impl Report {
    /// An error of the engine on the model at `path`.
    pub fn from_engine(path: &Path, error: gristmill_engine::Error) -> Self {
        use gristmill_engine::Error;
        match error {
            Error::Gguf(error) => error.into(),
            Error::Isa(error) => error.into(),
            error => Self::input(format!("{}: {error}", path.display()))
                .help("`grist check --level model` says what is wrong with a file"),
        }
    }
}

fn with_help(report: Report, help: Option<String>) -> Report {
    match help {
        Some(help) => report.help(help),
        None => report,
    }
}
