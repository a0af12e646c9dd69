//! Findings about a file: what breaks the format's rules, what other programs refuse, what a
//! model lacks, and what is wrong with its numbers.

mod data;
mod model;
mod structure;
mod vocabulary;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Subject};
use crate::file;
use crate::source::Source;

/// How far a check goes; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// The rules of the format: header, keys, layout.
    #[default]
    Structure,
    /// The keys and tensors that the architecture needs, with their shapes.
    Model,
    /// Every block of every tensor.
    Data,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Breaks a rule that this reader can live with, or is refused by another program.
    Warning,
    /// The file is not to be used.
    Error,
}

impl Severity {
    /// `note`, `warning` or `error`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// A short, stable name of the rule.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The file, where there are several.
    pub file: PathBuf,
    /// The key or tensor in question.
    pub subject: Subject,
    /// Where it stands, in bytes from the start of the file, where that is known.
    pub offset: Option<u64>,
    /// What was expected and what was found.
    pub message: String,
    /// What to do about it.
    pub help: Option<&'static str>,
    /// Whether llama.cpp refuses the file because of it.
    pub llama_cpp_refuses: bool,
}

impl fmt::Display for Finding {
    /// Without file and help: `error[key-duplicate]: key `a`: … (byte 24)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            subject,
            message,
            ..
        } = self;
        write!(f, "{}[{code}]: {subject}{message}", self.severity.name())?;
        if self.llama_cpp_refuses {
            f.write_str("; llama.cpp refuses the file")?;
        }
        if let Some(offset) = self.offset {
            write!(f, " (byte {offset})")?;
        }
        Ok(())
    }
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The files that were looked at.
    pub files: Vec<PathBuf>,
    /// All findings, in order of file and place.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst severity.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Number of findings of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }
}

/// Collects the findings about one file.
struct Findings<'a> {
    file: &'a Path,
    list: Vec<Finding>,
}

impl<'a> Findings<'a> {
    fn new(file: &'a Path) -> Self {
        Self {
            file,
            list: Vec::new(),
        }
    }

    /// Adds a finding; the returned one can be given help and llama.cpp's view.
    fn add(
        &mut self,
        severity: Severity,
        code: &'static str,
        subject: Subject,
        offset: impl Into<Option<u64>>,
        message: impl Into<String>,
    ) -> &mut Finding {
        let at = self.list.len();
        self.list.push(Finding {
            code,
            severity,
            file: self.file.to_owned(),
            subject,
            offset: offset.into(),
            message: message.into(),
            help: None,
            llama_cpp_refuses: false,
        });
        &mut self.list[at]
    }
}

impl Finding {
    fn help(&mut self, help: &'static str) -> &mut Self {
        self.help = Some(help);
        self
    }

    fn refused(&mut self) -> &mut Self {
        self.llama_cpp_refuses = true;
        self
    }
}

/// The finding that an error of reading amounts to; an error of the system stays one.
fn finding_of(error: Error) -> Result<Finding, Error> {
    let (code, help) = (error.code(), error.help());
    let (file, subject, offset, message) = match error {
        Error::Malformed {
            path,
            offset,
            subject,
            fault,
        } => (path, subject, Some(offset), fault.to_string()),
        Error::Split { path, fault } => (path, Subject::File, None, fault.to_string()),
        other => return Err(other),
    };
    Ok(Finding {
        code,
        severity: Severity::Error,
        file,
        subject,
        offset,
        message,
        help,
        llama_cpp_refuses: true,
    })
}

/// Checks a model that is no file yet, at [`Level::Model`]: whether its metadata and the shapes of
/// its tensors fit the architecture and each other. The findings name no file.
pub fn check_source(source: &dyn Source) -> Vec<Finding> {
    let mut findings = Findings::new(Path::new(""));
    model::check_model(source, &mut findings);
    findings.list
}

/// Checks a file, or the whole set if it is part of one.
///
/// # Errors
/// Only if the system fails, for example because there is no such file; a file that is no GGUF
/// file at all is a finding.
pub fn check(path: &Path, level: Level) -> Result<Report, Error> {
    let parts = match file::open_parts(path) {
        Ok(parts) => parts,
        Err(error) => {
            return Ok(Report {
                files: vec![path.to_owned()],
                findings: vec![finding_of(error)?],
            });
        }
    };
    let mut report = Report {
        files: parts.iter().map(|part| part.path.clone()).collect(),
        findings: Vec::new(),
    };
    for (number, part) in parts.iter().enumerate() {
        let mut findings = Findings::new(&part.path);
        structure::check_part(part, number, parts.len(), &mut findings);
        report.findings.append(&mut findings.list);
    }
    let model = match file::File::from_parts(parts) {
        Ok(model) => model,
        Err(error) => {
            report.findings.push(finding_of(error)?);
            return Ok(report);
        }
    };
    let mut findings = Findings::new(&model.parts()[0].path);
    if level >= Level::Model {
        model::check_model(&model, &mut findings);
    }
    if level >= Level::Data {
        data::check_data(&model, &mut findings);
    }
    report.findings.append(&mut findings.list);
    Ok(report)
}
