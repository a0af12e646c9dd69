//! PyTorch's `.bin` files: a zip archive of storages and a pickle that says which tensors they hold,
//! or, in files of before version 1.6, both one after the other. Whatever the pickle holds that is
//! not one of PyTorch's own descriptions of a tensor is an error.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use gristmill_gguf::Map;

use super::pickle::{Node, Pickle};
use super::stored::{Dtype, Stored};
use super::zip;
use crate::Error;

/// Largest pickle that is read: names and shapes, no data.
const PICKLE_LIMIT: usize = 1 << 25;

/// The tensors of a file, in the order of its dictionary.
pub(super) fn open(path: &Path) -> Result<Vec<Stored>, Error> {
    let map = Arc::new(Map::open(path).map_err(Error::io(path))?);
    let head = &map[..map.len().min(LEGACY_HEAD)];
    if head.starts_with(b"\x80") && head.windows(LEGACY.len()).any(|part| part == LEGACY) {
        legacy(path, &map)
    } else {
        archive(path, &map)
    }
}

fn archive(path: &Path, map: &Arc<Map>) -> Result<Vec<Stored>, Error> {
    let bad = |reason: String| Error::file(path, reason);
    let entries = zip::entries(map).map_err(|reason| match map.starts_with(GIT_LFS) {
        true => Error::File {
            file: path.to_owned(),
            reason: "is a git-lfs pointer, not the weights".into(),
            help: Some("run `git lfs pull` in the checkpoint's folder".into()),
        },
        false => bad(reason),
    })?;
    let (pickle, range) = entries
        .iter()
        .filter(|(name, _)| name.ends_with("data.pkl"))
        .min_by_key(|(name, _)| *name)
        .ok_or_else(|| bad("holds no data.pkl".into()))?;
    if range.len() > PICKLE_LIMIT {
        return Err(bad(format!("data.pkl takes {} bytes", range.len())));
    }
    let folder = pickle.strip_suffix("data.pkl").unwrap_or(pickle);
    let order = entries.get(&format!("{folder}byteorder"));
    if order.is_some_and(|order| &map[order.clone()] == b"big") {
        return Err(bad("was written on a big-endian machine".into()));
    }
    let pickle = Pickle::read(&map[range.clone()]).map_err(bad)?;
    let storage = |key: &str| entries.get(&format!("{folder}data/{key}")).cloned();
    views(path, &pickle)?
        .into_iter()
        .map(|(name, view)| view.stored(path, name, map, storage(view.storage)))
        .collect()
}

/// What stands in place of a file that git-lfs has not fetched.
pub(super) const GIT_LFS: &[u8] = b"version https://git-lfs";

/// The number in the first pickle of files that PyTorch wrote before version 1.6.
const LEGACY: &[u8] = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// Bytes that such a pickle takes at most, with protocol and frame.
const LEGACY_HEAD: usize = 32;

/// The tensors of an older file: pickles one after another (the magic number, the version, the
/// system, the dictionary, the names of the storages), then each storage with its length in front.
/// Source: `torch/serialization.py`, `_legacy_save`.
fn legacy(path: &Path, map: &Arc<Map>) -> Result<Vec<Stored>, Error> {
    let bad = |reason: String| Error::file(path, reason);
    let mut at = 0;
    let mut next = || {
        let pickle = Pickle::read(&map[at..map.len().min(at + PICKLE_LIMIT)]).map_err(bad)?;
        at += pickle.length;
        Ok::<_, Error>(pickle)
    };
    let (_number, _version, _system) = (next()?, next()?, next()?);
    let (state, keys) = (next()?, next()?);
    let views = views(path, &state)?;
    let units: HashMap<&str, usize> = views
        .iter()
        .map(|(_, view)| (view.storage, view.unit))
        .collect();
    let keys = keys.root().items();
    let mut storages = HashMap::new();
    for key in keys.ok_or_else(|| bad("names no storages".into()))? {
        let unit = key.text().and_then(|key| Some((key, *units.get(key)?)));
        let (key, unit) = unit.ok_or_else(|| bad("names a storage of no tensor".into()))?;
        let storage = map[at..].split_first_chunk().and_then(|(count, rest)| {
            let length = usize::try_from(u64::from_le_bytes(*count)).ok()?;
            let length = length.checked_mul(unit)?;
            (length <= rest.len()).then_some(at + 8..at + 8 + length)
        });
        let storage = storage.ok_or_else(|| bad("ends inside a storage".into()))?;
        at = storage.end;
        storages.insert(key.to_owned(), storage);
    }
    views
        .into_iter()
        .map(|(name, view)| view.stored(path, name, map, storages.get(view.storage).cloned()))
        .collect()
}

/// The tensors of a pickled dictionary, in its order.
fn views<'p>(path: &Path, pickle: &'p Pickle<'_>) -> Result<Vec<(&'p str, View<'p>)>, Error> {
    let root = pickle.root();
    let entries = root
        .entries()
        .ok_or_else(|| Error::file(path, format!("data.pkl holds {}", root.described())))?;
    entries
        .map(|(name, value)| {
            let name = name.text().ok_or_else(|| {
                Error::file(path, "data.pkl has a key that is no text".to_owned())
            })?;
            let view = View::read(value).map_err(|reason| wrong(path, name, reason))?;
            Ok((name, view))
        })
        .collect()
}

fn wrong(path: &Path, name: &str, reason: String) -> Error {
    Error::tensor(format!("{}: {name}", path.display()), reason)
}

/// A tensor as the pickle describes it: part of a storage.
struct View<'p> {
    dtype: Dtype,
    storage: &'p str,
    /// Bytes of what the storage counts in.
    unit: usize,
    /// In values, as the strides.
    offset: u64,
    shape: Vec<u64>,
    strides: Vec<u64>,
}

impl<'p> View<'p> {
    fn read(object: Node<'p>) -> Result<Self, String> {
        let unexpected = || format!("is {}", object.described());
        let (callable, arguments) = object.call().ok_or_else(unexpected)?;
        let ("torch._utils", constructor) = callable.global().ok_or_else(unexpected)? else {
            return Err(unexpected());
        };
        let arguments = arguments.items().ok_or_else(unexpected)?;
        match (constructor, &arguments[..]) {
            // One level only, so that nothing recurses.
            ("_rebuild_parameter" | "_rebuild_parameter_with_state", [tensor, ..]) => {
                match tensor
                    .call()
                    .map(|(callable, of)| (callable.global(), of.items()))
                {
                    Some((Some(("torch._utils", constructor)), Some(of))) => {
                        Self::tensor(constructor, &of)
                    }
                    _ => None,
                }
            }
            _ => Self::tensor(constructor, &arguments),
        }
        .ok_or_else(|| match constructor {
            "_rebuild_tensor_v2" | "_rebuild_tensor_v3" | "_rebuild_parameter" => {
                "is described in a way that is not understood".into()
            }
            _ => unexpected(),
        })?
    }

    /// The arguments of PyTorch's constructors: storage, offset, size, strides, and where the
    /// storage is one of bytes, the type.
    fn tensor(constructor: &str, arguments: &[Node<'p>]) -> Option<Result<Self, String>> {
        if !constructor.starts_with("_rebuild_tensor") {
            return None;
        }
        let &[storage, offset, size, strides, ref rest @ ..] = arguments else {
            return None;
        };
        let storage = storage.persistent()?.items()?;
        let &[_, kind, key, ..] = &storage[..] else {
            return None;
        };
        let (_, kind) = kind.global()?;
        let named = match kind {
            "UntypedStorage" => rest.get(2)?.global()?.1,
            kind => kind,
        };
        let Some(dtype) = dtype(named) else {
            return Some(Err(format!(
                "has values of type {named}, which is not supported"
            )));
        };
        let numbers = |node: Node<'p>| -> Option<Vec<u64>> {
            node.items()?.into_iter().map(Node::number).collect()
        };
        let (shape, strides) = (numbers(size)?, numbers(strides)?);
        (shape.len() == strides.len()).then_some(())?;
        Some(Ok(Self {
            dtype,
            storage: key.text()?,
            unit: if kind == named { dtype.size() } else { 1 },
            offset: offset.number()?,
            shape,
            strides,
        }))
    }

    /// The tensor in a file whose storage lies there.
    fn stored(
        &self,
        path: &Path,
        name: &str,
        map: &Arc<Map>,
        storage: Option<Range<usize>>,
    ) -> Result<Stored, Error> {
        let wrong = |reason: String| wrong(path, name, reason);
        let storage = storage
            .ok_or_else(|| wrong(format!("lies in `{}`, which the file lacks", self.storage)))?;
        let start = self
            .offset
            .checked_mul(self.dtype.size() as u64)
            .and_then(|skipped| storage.start.checked_add(skipped.try_into().ok()?))
            .filter(|&start| start <= storage.end);
        start
            .and_then(|start| {
                Stored::view(
                    name.to_owned(),
                    self.dtype,
                    self.shape.clone(),
                    &self.strides,
                    map,
                    start..storage.end,
                )
            })
            .ok_or_else(|| {
                wrong(format!(
                    "{} of shape {:?} and strides {:?} does not fit its storage of {} bytes",
                    self.dtype,
                    self.shape,
                    self.strides,
                    storage.len()
                ))
            })
    }
}

/// A type of values by the name of its storage or its own.
fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
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
        "float8_e4m3fn" => Dtype::F8E4M3,
        "float8_e5m2" => Dtype::F8E5M2,
        "float8_e8m0fnu" => Dtype::F8E8M0,
        "uint64" => Dtype::U64,
        "uint32" => Dtype::U32,
        "uint16" => Dtype::U16,
        _ => return None,
    })
}
