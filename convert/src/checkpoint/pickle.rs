//! PyTorch's `.bin` files: a zip archive of storages and a pickle that says which tensors they
//! hold, or, in older files, both one after the other. The pickle's opcodes are read by candle into plain data; nothing in it is ever called, and
//! whatever is not one of PyTorch's own tensor constructors is an error.

use std::collections::HashMap;
use std::io::BufReader;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::pickle::{Object, Stack};
use gristmill_gguf::Map;

use super::pickle_bounds;
use super::stored::{Dtype, Stored};
use crate::Error;

/// Largest pickle that is read: names and shapes, no data.
const PICKLE_LIMIT: usize = 1 << 25;

/// The tensors of a file, in the order of its dictionary.
pub(super) fn open(path: &Path) -> Result<Vec<Stored>, Error> {
    let bad = |reason: String| Error::file(path, reason);
    let map = Arc::new(Map::open(path).map_err(Error::io(path))?);
    if map.starts_with(LEGACY) {
        return legacy(path, &map);
    }
    let entries = super::zip::entries(&map).map_err(bad)?;
    let (pickle, range) = entries
        .iter()
        .find(|(name, _)| name.ends_with("data.pkl"))
        .ok_or_else(|| bad("holds no data.pkl".into()))?;
    if range.len() > PICKLE_LIMIT {
        return Err(bad(format!("data.pkl takes {} bytes", range.len())));
    }
    pickle_bounds::check(&map[range.clone()]).map_err(bad)?;
    let folder = pickle.strip_suffix(".pkl").unwrap_or(pickle);
    // Storages are numbered in the order in which the dictionary was written.
    let mut tensors: Vec<(Option<u64>, Stored)> = Vec::new();
    for (name, value) in dictionary(&map[range.clone()]).map_err(bad)? {
        let wrong = |reason: String| Error::tensor(format!("{}: {name}", path.display()), reason);
        let view = View::read(&value).map_err(wrong)?;
        let storage = entries.get(&format!("{folder}/{}", view.storage));
        let range = view.range(storage).map_err(wrong)?;
        let number = view.storage.parse().ok();
        let tensor = Stored::new(name.clone(), view.dtype, view.shape, &map, range)
            .ok_or_else(|| wrong("its size does not fit".into()))?;
        tensors.push((number, tensor));
    }
    tensors.sort_by_key(|(number, _)| *number);
    Ok(tensors.into_iter().map(|(_, tensor)| tensor).collect())
}

/// What files begin with that PyTorch wrote before version 1.6: a pickle that holds a magic number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// Items that Python puts into a dictionary at a time; their reader turns each batch around.
const BATCH: usize = 1000;

/// The tensors of an older file: pickles one after another (the magic number, the version, the
/// system, the dictionary, the names of the storages), then each storage with its length in front.
/// Source: `torch/serialization.py`, `_legacy_save`.
fn legacy(path: &Path, map: &Arc<Map>) -> Result<Vec<Stored>, Error> {
    let bad = |reason: String| Error::file(path, reason);
    let mut at = LEGACY.len();
    let mut next = || -> Result<Range<usize>, String> {
        let window = &map[at..map.len().min(at + PICKLE_LIMIT)];
        let length = pickle_bounds::check(window)?.ok_or("holds a pickle that does not end")?;
        pickle_bounds::check(&window[..length])?;
        at += length;
        Ok(at - length..at)
    };
    let (_version, _system) = (next().map_err(bad)?, next().map_err(bad)?);
    let (state, keys) = (next().map_err(bad)?, next().map_err(bad)?);
    let mut state = dictionary(&map[state]).map_err(bad)?;
    state.chunks_mut(BATCH).for_each(<[_]>::reverse);
    let wrong =
        |name: &str, reason: String| Error::tensor(format!("{}: {name}", path.display()), reason);
    let views: Vec<(String, View)> = state
        .into_iter()
        .map(|(name, value)| match View::read(&value) {
            Ok(view) => Ok((name, view)),
            Err(reason) => Err(wrong(&name, reason)),
        })
        .collect::<Result<_, _>>()?;
    let sizes: HashMap<&str, usize> = views
        .iter()
        .map(|(_, view)| (view.storage.as_str(), view.dtype.size()))
        .collect();
    let Object::List(keys) = object(&map[keys]).map_err(bad)? else {
        return Err(bad("names no storages".into()));
    };
    let mut storages = HashMap::new();
    for key in keys {
        let size = match &key {
            Object::Unicode(key) => sizes.get(key.as_str()).copied(),
            _ => None,
        };
        let storage = map[at..].split_first_chunk().and_then(|(count, rest)| {
            let length = usize::try_from(u64::from_le_bytes(*count)).ok()?;
            let length = length.checked_mul(size?)?;
            (length <= rest.len()).then_some(at + 8..at + 8 + length)
        });
        let (Object::Unicode(key), Some(storage)) = (key, storage) else {
            return Err(bad("ends inside a storage".into()));
        };
        at = storage.end;
        storages.insert(key, storage);
    }
    views
        .into_iter()
        .map(|(name, view)| {
            let range = view
                .range(storages.get(&view.storage))
                .map_err(|reason| wrong(&name, reason))?;
            Stored::new(name.clone(), view.dtype, view.shape, map, range)
                .ok_or_else(|| wrong(&name, "its size does not fit".into()))
        })
        .collect()
}

/// What a pickle holds, as plain data.
fn object(pickle: &[u8]) -> Result<Object, String> {
    let mut stack = Stack::empty();
    stack
        .read_loop(&mut BufReader::new(pickle))
        .and_then(|()| stack.finalize())
        // Some messages bring a backtrace with them.
        .map_err(|error| {
            format!(
                "data.pkl: {}",
                error.to_string().lines().next().unwrap_or("")
            )
        })
}

/// The names and values of a pickled dictionary.
fn dictionary(pickle: &[u8]) -> Result<Vec<(String, Object)>, String> {
    let entries = match object(pickle)? {
        Object::Dict(entries) => entries,
        other => return Err(format!("data.pkl holds {}", described(&other))),
    };
    let named = entries.into_iter().map(|(name, value)| match name {
        Object::Unicode(name) => Ok((name, value)),
        _ => Err("data.pkl has a key that is no text".to_owned()),
    });
    named.collect()
}

/// What a value is, for a message.
fn described(object: &Object) -> String {
    match object {
        Object::Reduce { callable, .. } | Object::Build { callable, .. } => match &**callable {
            Object::Class {
                module_name,
                class_name,
            } => format!("a call of {module_name}.{class_name}; code in checkpoints is never run"),
            _ => "a call; code in checkpoints is never run".into(),
        },
        Object::Dict(_) => "a dictionary, expected a tensor".into(),
        _ => "something that is no tensor".into(),
    }
}

/// A tensor as the pickle describes it: part of a storage.
struct View {
    dtype: Dtype,
    storage: String,
    offset: u64,
    shape: Vec<u64>,
}

impl View {
    fn read(object: &Object) -> Result<Self, String> {
        let unexpected = || format!("is {}", described(object));
        let Object::Reduce { callable, args } = object else {
            return Err(unexpected());
        };
        let (
            Object::Class {
                module_name,
                class_name,
            },
            Object::Tuple(args),
        ) = (&**callable, &**args)
        else {
            return Err(unexpected());
        };
        match (module_name.as_str(), class_name.as_str(), &args[..]) {
            // One level only, so that nothing recurses.
            ("torch._utils", "_rebuild_parameter", [Object::Reduce { callable, args }, ..]) => {
                Self::tensor(callable, args)
            }
            ("torch._utils", "_rebuild_tensor_v2", _) => {
                Self::tensor(callable, &Object::Tuple(args.clone()))
            }
            _ => Err(unexpected()),
        }
    }

    fn tensor(callable: &Object, args: &Object) -> Result<Self, String> {
        let malformed = || "is described in a way that is not understood".to_owned();
        let (Object::Class { class_name, .. }, Object::Tuple(args)) = (callable, args) else {
            return Err(malformed());
        };
        let [Object::PersistentLoad(storage), offset, size, stride, ..] = &args[..] else {
            return Err(malformed());
        };
        let Object::Tuple(storage) = &**storage else {
            return Err(malformed());
        };
        let [
            _,
            Object::Class {
                class_name: kind, ..
            },
            Object::Unicode(key),
            ..,
        ] = &storage[..]
        else {
            return Err(malformed());
        };
        if class_name != "_rebuild_tensor_v2" {
            return Err(malformed());
        }
        let dtype = match kind.as_str() {
            "DoubleStorage" => Dtype::F64,
            "FloatStorage" => Dtype::F32,
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::BF16,
            "LongStorage" => Dtype::I64,
            "IntStorage" => Dtype::I32,
            "ShortStorage" => Dtype::I16,
            "CharStorage" => Dtype::I8,
            "ByteStorage" => Dtype::U8,
            "BoolStorage" => Dtype::Bool,
            other => {
                return Err(format!(
                    "has values of type {other}, which is not supported"
                ));
            }
        };
        let shape = numbers(size).ok_or_else(malformed)?;
        let stride = numbers(stride).ok_or_else(malformed)?;
        let mut expected = 1u64;
        for (dim, step) in shape.iter().zip(&stride).rev() {
            if *dim != 1 && *step != expected {
                return Err(format!(
                    "is a view with gaps (strides {stride:?}, shape {shape:?}); save the model again \
                     with contiguous tensors"
                ));
            }
            expected = expected.saturating_mul(*dim);
        }
        Ok(Self {
            dtype,
            storage: key.clone(),
            offset: number(offset).ok_or_else(malformed)?,
            shape,
        })
    }

    /// Where its bytes are in the file whose storage lies there.
    fn range(&self, storage: Option<&Range<usize>>) -> Result<Range<usize>, String> {
        let storage =
            storage.ok_or_else(|| format!("lies in `{}`, which the file lacks", self.storage))?;
        let size = self.dtype.size() as u64;
        let bytes = |values: u64| values.checked_mul(size)?.try_into().ok();
        let elements = self
            .shape
            .iter()
            .try_fold(1u64, |product, &dim| product.checked_mul(dim));
        let range = || -> Option<Range<usize>> {
            let start = storage.start.checked_add(bytes(self.offset)?)?;
            let end = start.checked_add(bytes(elements?)?)?;
            (end <= storage.end).then_some(start..end)
        };
        range().ok_or_else(|| "reaches beyond its storage".to_owned())
    }
}

fn number(object: &Object) -> Option<u64> {
    match object {
        Object::Int(value) => (*value).try_into().ok(),
        Object::Long(value) => (*value).try_into().ok(),
        _ => None,
    }
}

fn numbers(object: &Object) -> Option<Vec<u64>> {
    match object {
        Object::Tuple(items) => items.iter().map(number).collect(),
        _ => None,
    }
}
