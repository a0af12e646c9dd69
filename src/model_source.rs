//! Opening what can be quantized: a GGUF file, or a checkpoint that counts as the file it converts to.

use std::path::{Path, PathBuf};

use gristmill_convert::checkpoint::Repository;
use gristmill_convert::{Checkpoint, Conversion, Options};
use gristmill_gguf::{File, Source, TensorType};
use gristmill_quantize::preset::Preset;

use crate::context::Context;
use crate::report::Report;

/// An opened model.
pub enum ModelSource {
    /// A checkpoint under conversion.
    Checkpoint(Box<Conversion>),
    /// A GGUF file or split set.
    Gguf(Box<File>),
}

impl ModelSource {
    /// Opens the model at `path`; `pre` names the pre-tokenizer of a checkpoint where it is not to
    /// be found out.
    pub fn open(path: &Path, pre: Option<&str>, context: &Context) -> Result<Self, Report> {
        if path.is_file() {
            return Ok(Self::Gguf(Box::new(File::open(path)?)));
        }
        let checkpoint = Checkpoint::open(&checkpoint_folder(path, None, context)?)?;
        let options = Options {
            pre: pre.map(str::to_owned),
            ..Options::default()
        };
        let conversion = Conversion::new(&checkpoint, &options)?;
        for warning in conversion.warnings() {
            context.warn(warning);
        }
        Ok(Self::Checkpoint(Box::new(conversion)))
    }

    /// The rows.
    pub fn source(&self) -> &dyn Source {
        match self {
            Self::Checkpoint(conversion) => conversion.as_ref(),
            Self::Gguf(file) => file.as_ref(),
        }
    }

    /// The types that rules see: those that the checkpoint converts to.
    pub fn base_types(&self) -> Option<&[TensorType]> {
        match self {
            Self::Checkpoint(conversion) => Some(conversion.types()),
            Self::Gguf(_) => None,
        }
    }

    /// The files that are read, so far as they might be overwritten by accident.
    pub fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Checkpoint(_) => Vec::new(),
            Self::Gguf(file) => file.parts().iter().map(|part| part.path.clone()).collect(),
        }
    }
}

/// The preset that a source's metadata name as what it is.
pub fn file_type(source: &dyn Source) -> String {
    let id = source
        .metadata()
        .u64("general.file_type")
        .and_then(|id| u32::try_from(id).ok());
    id.and_then(Preset::from_id)
        .map_or_else(|| "F32".to_owned(), |preset| preset.to_string())
}

/// The folder of a checkpoint: itself, or the snapshot of a repository of the hub, whose files are
/// fetched if they are not in the cache.
pub fn checkpoint_folder(
    source: &Path,
    revision: Option<&str>,
    context: &Context,
) -> Result<PathBuf, Report> {
    if source.exists() {
        return Ok(source.to_owned());
    }
    let id = source.to_str();
    match id.and_then(|id| Repository::parse(id, revision)) {
        Some(repository) => {
            let note = |file: &str| context.note(&format!("fetching {file}"));
            Ok(repository.download(&note)?)
        }
        None => Err(
            Report::input(format!("{}: no such file or folder", source.display()))
                .help("give a checkpoint's folder, or a hub id such as organisation/name"),
        ),
    }
}

/// The name that variants of the model at `path` begin with: its folder's or file's, without the
/// type and part number that such names end in.
pub fn variant_name(path: &Path) -> String {
    let known = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let stem = if known.is_dir() {
        known.file_name()
    } else {
        known.file_stem()
    };
    let name = stem.map_or_else(
        || "model".into(),
        |stem| stem.to_string_lossy().into_owned(),
    );
    if known.is_dir() {
        return name;
    }
    let whole = match gristmill_gguf::split::parse_path(&known) {
        Some((prefix, ..)) => prefix
            .file_name()
            .map_or(name, |prefix| prefix.to_string_lossy().into_owned()),
        None => name,
    };
    match whole.rsplit_once(['-', '.']) {
        Some((name, ty)) if !name.is_empty() && ty.parse::<Preset>().is_ok() && !is_number(ty) => {
            name.to_owned()
        }
        _ => whole,
    }
}

/// Presets parse from their numbers too, but a number at the end of a name means something else.
fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::variant_name;

    #[test]
    fn types_and_part_numbers_are_no_part_of_the_name() {
        for (path, name) in [
            ("x/tiny-F32.gguf", "tiny"),
            ("tiny.Q4_K_M.gguf", "tiny"),
            ("tiny-bf16-00002-of-00003.gguf", "tiny"),
            ("tiny-7.gguf", "tiny-7"),
            ("F16.gguf", "F16"),
            ("my-model.gguf", "my-model"),
        ] {
            assert_eq!(variant_name(path.as_ref()), name, "{path}");
        }
    }
}
