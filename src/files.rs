//! Hashes of inputs and outputs.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

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
        let size = fs::metadata(&file).map_err(|error| Report::io(&file, &error))?.len();
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
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a small file whole or not at all: a temporary one beside it takes its name when synced.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Report> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!(".{name}.partial"));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|error| {
        // What is left of the attempt is of no use; the first error is the one to tell.
        let _ = fs::remove_file(&partial);
        Report::environment(format!("{}: {error}", path.display()))
    })
}
