//! What a command ends with: an exit code, and for a failure one line of error and one of help.

use std::process::ExitCode;

/// The exit codes of `grist`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The work is done.
    Done,
    /// A check or a threshold failed.
    CheckFailed,
    /// The command was used wrongly.
    Usage,
    /// An input is bad.
    Input,
    /// Disk, permission or network failed.
    Environment,
    /// A bug of ours.
    Bug,
    /// Stopped by Ctrl-C.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::CheckFailed => 1,
            Exit::Usage => 2,
            Exit::Input => 3,
            Exit::Environment => 4,
            Exit::Bug => 5,
            Exit::Interrupted => 130,
        })
    }
}

/// A failure as the user sees it.
#[derive(Debug)]
pub struct Report {
    exit: Exit,
    message: String,
    help: Option<String>,
}

/// What a command returns.
pub type Outcome = Result<Exit, Report>;

impl Report {
    /// A failure of class `exit`; `message` says what and where, without a trailing stop.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            help: None,
        }
    }

    /// The command line asks for something that makes no sense.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A file or text given is bad.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Exit::Input, message)
    }

    /// The system failed: disk, permission, network.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(Exit::Environment, message)
    }

    /// The work was stopped by the user.
    pub fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted")
            .help("finished files were kept; the same command goes on from there")
    }

    /// An I/O error on `path`, classed by its kind: what is missing is a bad input.
    pub fn io(path: &std::path::Path, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{
            InvalidData, IsADirectory, NotADirectory, NotFound, UnexpectedEof,
        };
        let exit = match error.kind() {
            NotFound | IsADirectory | NotADirectory | InvalidData | UnexpectedEof => Exit::Input,
            _ => Exit::Environment,
        };
        Self::new(exit, format!("{}: {error}", path.display()))
    }

    /// What clap has to say, in our two lines; help and version texts are no errors.
    pub fn from_arguments(error: &clap::Error) -> Outcome {
        if !error.use_stderr() {
            let _ = error.print();
            return Ok(Exit::Done);
        }
        if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            let _ = error.print();
            return Ok(Exit::Usage);
        }
        let text = error.to_string();
        let mut paragraphs = text.split("\n\n");
        let message = one_line(paragraphs.next().unwrap_or_default());
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        let help = match text
            .lines()
            .find_map(|line| line.trim().strip_prefix("tip: "))
        {
            Some(tip) => tip.to_owned(),
            None => "see `grist --help`, or `--help` after a command".to_owned(),
        };
        Err(Self::usage(message).help(help))
    }

    /// Adds the remedy.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The class of the failure.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints both lines on stderr.
    pub fn print(&self) {
        eprintln!("error: {}", self.message);
        if let Some(help) = &self.help {
            eprintln!("help: {help}");
        }
    }
}
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
