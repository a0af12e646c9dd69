//! PyTorch's `.bin` files: a zip archive of storages and a pickle that says which tensors they
//! hold. The pickle's opcodes are read by candle into plain data; nothing in it is ever called, and
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
    let mut stack = Stack::empty();
    let root = stack
        .read_loop(&mut BufReader::new(&map[range.clone()]))
        .and_then(|()| stack.finalize())
        .map_err(|error| bad(format!("data.pkl: {error}")))?;
    let state = match root {
        Object::Dict(entries) => entries,
        other => return Err(bad(format!("data.pkl holds {}", described(&other)))),
    };
    // Storages are numbered in the order in which the dictionary was written.
    let mut tensors: Vec<(Option<u64>, Stored)> = Vec::with_capacity(state.len());
    for (name, value) in state {
        let Object::Unicode(name) = name else {
            return Err(bad("data.pkl has a key that is no text".into()));
        };
        let wrong = |reason: String| Error::tensor(format!("{}: {name}", path.display()), reason);
        let view = View::read(&value).map_err(wrong)?;
        let range = view.range(folder, &entries).map_err(wrong)?;
        let number = view.storage.parse().ok();
        let tensor = Stored::new(name.clone(), view.dtype, view.shape, &map, range)
            .ok_or_else(|| wrong("its size does not fit".into()))?;
        tensors.push((number, tensor));
    }
    tensors.sort_by_key(|(number, _)| *number);
    Ok(tensors.into_iter().map(|(_, tensor)| tensor).collect())
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
                    "is stored with strides {stride:?} for shape {shape:?}"
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

    /// Where its bytes are in the file.
    fn range(
        &self,
        folder: &str,
        entries: &HashMap<String, Range<usize>>,
    ) -> Result<Range<usize>, String> {
        let storage = format!("{folder}/{}", self.storage);
        let storage = entries
            .get(&storage)
            .ok_or_else(|| format!("lies in `{storage}`, which the archive lacks"))?;
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
