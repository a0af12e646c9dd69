//! Which texts a release uses: those of the command line, else those that a `fixture.json` in the
//! model's folder names.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::report::Report;

/// The context used where nobody says another.
pub const CONTEXT: usize = 512;

/// The texts of a release and how they are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    /// The text that is measured on.
    pub text: PathBuf,
    /// The text that the importance matrix comes from.
    pub calibration: Option<PathBuf>,
    /// Tokens a chunk.
    pub context: usize,
    /// The first so many chunks of `text`; all without a limit.
    pub chunks: Option<usize>,
}

/// What the command line says of them.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    pub text: Option<PathBuf>,
    pub calibration: Option<PathBuf>,
    pub context: Option<usize>,
    pub chunks: Option<usize>,
}

/// `fixture.json`: the texts that belong to a model, as paths relative to its folder.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fixture {
    calibration_text: Option<PathBuf>,
    heldout_text: Option<PathBuf>,
    measurement_context: Option<usize>,
    measurement_chunks: Option<usize>,
}

impl Texts {
    /// Resolves the texts for the model at `source`.
    pub fn resolve(asked: Asked, source: &Path) -> Result<Self, Report> {
        let fixture = Fixture::read(source)?;
        let within = |path: Option<PathBuf>| path.map(|path| source.join(path));
        // The fixture's context and chunks belong to its text, not to another one.
        let (text, context, chunks) = match asked.text {
            Some(text) => (Some(text), None, None),
            None => (
                within(fixture.heldout_text),
                fixture.measurement_context,
                fixture.measurement_chunks,
            ),
        };
        let text = text.ok_or_else(|| {
            Report::usage("no text to measure on")
                .help("give one with --text FILE (and --calibration FILE)")
        })?;
        Ok(Self {
            text,
            calibration: asked
                .calibration
                .or_else(|| within(fixture.calibration_text)),
            context: asked.context.or(context).unwrap_or(CONTEXT),
            chunks: asked.chunks.or(chunks),
        })
    }
}

impl Fixture {
    fn read(source: &Path) -> Result<Self, Report> {
        let path = source.join("fixture.json");
        if !source.is_dir() || !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read(&path).map_err(|error| Report::io(&path, &error))?;
        serde_json::from_slice(&text)
            .map_err(|error| Report::input(format!("{}: {error}", path.display())))
    }
}
