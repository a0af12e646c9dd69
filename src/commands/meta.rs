//! `grist meta`.

use std::path::PathBuf;

use clap::Args;
use gristmill_gguf::schema::keys;
use gristmill_gguf::value::ValueType;
use gristmill_gguf::{File, Layout, Metadata, Source as _, Value};

use crate::context::Context;
use crate::output::{self, How};
use crate::report::{Outcome, Report};
use crate::values;

/// Arguments of `grist meta`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The GGUF file, or any part of a split set
    file: PathBuf,
    /// Set a key. Its type is that of the key in the file, or of the standard key; for another,
    /// write KEY:TYPE=VALUE with a type such as u32, f32, bool, str or arr. Arrays are JSON, and
    /// @FILE stands for the text of a file
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Remove a key
    #[arg(long, value_name = "KEY")]
    remove: Vec<String>,
    /// Give a key another name, in its place
    #[arg(long, value_name = "OLD=NEW")]
    rename: Vec<String>,
    /// The file to write [default: FILE, which needs --force]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    how: How,
}

/// Writes the file anew with the metadata changed.
pub fn run(arguments: &Arguments, context: &Context) -> Outcome {
    if arguments.set.is_empty() && arguments.remove.is_empty() && arguments.rename.is_empty() {
        return Err(Report::usage("nothing to change")
            .help("give --set, --remove or --rename; `grist inspect` prints the metadata"));
    }
    let file = File::open(&arguments.file)?;
    let mut metadata = file.metadata().clone();
    for key in &arguments.remove {
        metadata
            .remove(key)
            .ok_or_else(|| no_such_key(&metadata, key))?;
    }
    for names in &arguments.rename {
        metadata = rename(&metadata, names)?;
    }
    for assignment in &arguments.set {
        let (key, value) = parse_assignment(&metadata, assignment)?;
        metadata.set(key, value);
    }
    let output = match &arguments.output {
        Some(output) => output,
        // A set is written anew as one file, which cannot take a part's place.
        None if file.parts().len() > 1 => {
            return Err(Report::usage("a split set is written as one file")
                .help("name it with -o, and split it again if need be"));
        }
        None => &arguments.file,
    };
    output::rewrite(
        &file,
        &metadata,
        &Layout::default(),
        output,
        &arguments.how,
        context,
    )
}

fn no_such_key(metadata: &Metadata, key: &str) -> Report {
    let near = metadata
        .iter()
        .map(|(other, _)| other.to_string())
        .filter(|other| other.contains(key) || key.contains(other.as_str()))
        .min_by_key(String::len);
    let report = Report::usage(format!("no key `{key}` in the file"));
    match near {
        Some(near) => report.help(format!("did you mean `{near}`?")),
        None => report.help("`grist inspect` prints the keys"),
    }
}

fn rename(metadata: &Metadata, names: &str) -> Result<Metadata, Report> {
    let (old, new) = names
        .split_once('=')
        .ok_or_else(|| Report::usage(format!("--rename {names}: expected OLD=NEW")))?;
    if !metadata.contains(old) {
        return Err(no_such_key(metadata, old));
    }
    if metadata.contains(new) {
        return Err(Report::usage(format!(
            "a key `{new}` is in the file already"
        )));
    }
    let renamed = metadata.iter().map(|(key, value)| {
        let name = if key == old {
            new.into()
        } else {
            key.to_owned()
        };
        (name, value.clone())
    });
    Ok(renamed.collect())
}

fn parse_assignment(metadata: &Metadata, text: &str) -> Result<(String, Value), Report> {
    let fail = |message: String| Report::usage(format!("--set {text}: {message}"));
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| fail("expected KEY=VALUE".to_owned()))?;
    let (key, named) = match key.rsplit_once(':') {
        Some((key, name)) => {
            let ty = (0..13)
                .filter_map(ValueType::from_id)
                .find(|ty| ty.name() == name);
            let ty = ty.ok_or_else(|| fail(format!("no type `{name}`")))?;
            (key, Some((ty, None)))
        }
        None => (key, None),
    };
    if key.is_empty() {
        return Err(fail("expected a key".to_owned()));
    }
    let in_file = || match metadata.get(key)? {
        Value::Array(array) => Some((ValueType::Array, Some(array.element_type()))),
        value => Some((value.value_type(), None)),
    };
    let standard = || {
        let ty = keys::type_of(key.into(), keys::architecture(metadata))?;
        Some(match ty.scalar {
            Some(scalar) if !value.starts_with('[') => (scalar, None),
            _ => (ValueType::Array, ty.element),
        })
    };
    let (ty, element) = named.or_else(in_file).or_else(standard).ok_or_else(|| {
        fail(format!("the type of `{key}` is not known")).help(format!(
            "write it as {key}:TYPE={value}, with u32, f32, bool, str, …"
        ))
    })?;
    let value = match value.strip_prefix('@') {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| Report::io(path.as_ref(), &error))?
        }
        None => value.to_owned(),
    };
    let value = values::parse(&value, ty, element).map_err(fail)?;
    Ok((key.to_owned(), value))
}
