//! Hashes of inputs and outputs.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::report::Report;

/// SHA-256 of a file's bytes, in hexadecimal.
pub fn sha256(path: &Path, context: &Context) -> Result<String, Report> {
    let mut hasher = Sha256::new();
    update(&mut hasher, path, context)?;
    Ok(hex(hasher))
}

/// SHA-256 over names and bytes of a model's files: of one file, or of all files that stand directly
/// in a folder.
pub fn sha256_of_model(path: &Path, context: &Context) -> Result<String, Report> {
    if !path.is_dir() {
        return sha256(path, context);
    }
    let io = |error: &std::io::Error| Report::io(path, error);
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| io(&error))? {
        let entry = entry.map_err(|error| io(&error))?;
        if entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        let size = fs::metadata(&file)
            .map_err(|error| Report::io(&file, &error))?
            .len();
        hasher.update(size.to_le_bytes());
        update(&mut hasher, &file, context)?;
    }
    Ok(hex(hasher))
}

fn update(hasher: &mut Sha256, path: &Path, context: &Context) -> Result<(), Report> {
    let io = |error: &std::io::Error| Report::io(path, error);
    let mut file = File::open(path).map_err(|error| io(&error))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        context.check_interrupt()?;
        match file.read(&mut buffer).map_err(|error| io(&error))? {
            0 => return Ok(()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn hex(hasher: Sha256) -> String {
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Writes a small file whole or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Report> {
    let mut replacement = Replacement::create(path)?;
    replacement.write(bytes)?;
    replacement.finish()
}

/// [`replace`] with a note of it, or, if only the plan is asked for, the note alone.
pub fn replace_or_say(
    path: &Path,
    bytes: &[u8],
    dry_run: bool,
    context: &Context,
) -> Result<(), Report> {
    let done = match dry_run {
        true => "would write",
        false => {
            replace(path, bytes)?;
            "wrote"
        }
    };
    context.note(&format!("{done} {}: {} bytes", path.display(), bytes.len()));
    Ok(())
}

/// A file under a temporary name beside its final one, which it takes when it is whole and synced.
/// Dropped before that, it leaves nothing.
pub struct Replacement {
    path: PathBuf,
    partial: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Replacement {
    /// Starts a file that will be `path`.
    pub fn create(path: &Path) -> Result<Self, Report> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = path.with_file_name(format!(".{name}.partial"));
        let file = File::create(&partial).map_err(|error| failed(path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            partial,
            file: Some(BufWriter::new(file)),
        })
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Report> {
        match &mut self.file {
            Some(file) => file
                .write_all(bytes)
                .map_err(|error| failed(&self.path, &error)),
            None => Ok(()),
        }
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<(), Report> {
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        let result = file
            .flush()
            .and_then(|()| file.get_ref().sync_all())
            .and_then(|()| fs::rename(&self.partial, &self.path));
        result.map_err(|error| {
            let _ = fs::remove_file(&self.partial);
            failed(&self.path, &error)
        })
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Nothing can be done about a temporary file that cannot be removed.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Report {
    Report::environment(format!("{}: {error}", path.display()))
}
