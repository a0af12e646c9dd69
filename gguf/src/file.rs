//! Opened GGUF files: one part, or the whole model.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bstr::BString;

use crate::endian::{self, Endian};
use crate::error::Error;
use crate::header::Header;
use crate::map::Map;
use crate::metadata::Metadata;
use crate::source::{ReadError, Source, TensorInfo};
use crate::split::{self, SplitFault};
use crate::tensor_type::TensorType;

/// One GGUF file by itself, whether or not it is part of a set.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where it was opened.
    pub path: PathBuf,
    /// Its bytes.
    pub map: Arc<Map>,
    /// Its parsed header.
    pub header: Header,
}

impl Part {
    /// Maps a file, parses its header and checks it against the file's length.
    ///
    /// # Errors
    /// If the file cannot be opened, or breaks a rule that makes it unsafe to read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let map = Map::open(path).map_err(Error::io("open", path))?;
        let header =
            Header::parse(&map).map_err(|(subject, flaw)| Error::malformed(path, subject, flaw))?;
        Ok(Self {
            path: path.to_owned(),
            map: Arc::new(map),
            header,
        })
    }
}

/// A model in a GGUF file or in a split set, mapped into memory. Cheap to clone but for its
/// metadata.
#[derive(Debug, Clone)]
pub struct File {
    parts: Vec<FilePart>,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    places: Vec<Place>,
    index: HashMap<BString, usize>,
}

/// One of the files a [`File`] consists of.
#[derive(Debug, Clone)]
pub struct FilePart {
    /// Its path.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// GGUF version: 2 or 3.
    pub version: u32,
    /// Byte order.
    pub endian: Endian,
    /// Alignment of its tensors.
    pub alignment: u64,
    /// Number of its tensors.
    pub tensors: usize,
    map: Arc<Map>,
}

/// Where a tensor's data lies.
#[derive(Debug, Clone)]
struct Place {
    part: usize,
    range: Range<usize>,
}

impl File {
    /// Opens a model: a single file, or the whole set if the path is any part of one.
    ///
    /// The metadata of a set are those of its first part without the three `split.` keys.
    ///
    /// # Errors
    /// If a file cannot be opened or breaks a rule that makes it unsafe to read, or if the parts
    /// of a set do not belong together.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::from_parts(open_parts(path)?)
    }

    pub(crate) fn from_parts(parts: Vec<Part>) -> Result<Self, Error> {
        let mut file = Self {
            parts: Vec::with_capacity(parts.len()),
            metadata: Metadata::new(),
            tensors: Vec::new(),
            places: Vec::new(),
            index: HashMap::new(),
        };
        let set = parts.len() > 1;
        for (number, part) in parts.into_iter().enumerate() {
            let header = part.header;
            for (info, range) in header.tensors.iter().zip(&header.data) {
                let tensor = file.tensors.len();
                if let Some(first) = file.index.insert(info.name.clone(), tensor) {
                    return Err(Error::Split {
                        path: part.path,
                        fault: SplitFault::Duplicate {
                            name: info.name.clone(),
                            first: file.places[first].part as u64,
                            again: number as u64,
                        },
                    });
                }
                file.places.push(Place {
                    part: number,
                    // Inside the map, so inside the address space.
                    range: range.start as usize..range.end as usize,
                });
                file.tensors.push(info.clone());
            }
            file.parts.push(FilePart {
                path: part.path,
                bytes: part.map.len() as u64,
                version: header.version,
                endian: header.endian,
                alignment: header.alignment,
                tensors: header.tensors.len(),
                map: part.map,
            });
            if number == 0 {
                file.metadata = header.metadata;
            }
        }
        if set {
            let found = file.tensors.len() as u64;
            let path = || file.parts[0].path.clone();
            let expected = split::integer(&file.metadata, split::TENSORS)
                .and_then(|count| {
                    count.ok_or(SplitFault::KeyMissing {
                        key: split::TENSORS,
                        no: 0,
                    })
                })
                .map_err(|fault| Error::Split {
                    path: path(),
                    fault,
                })?;
            if expected != found {
                return Err(Error::Split {
                    path: path(),
                    fault: SplitFault::Tensors { expected, found },
                });
            }
            for key in split::KEYS {
                file.metadata.remove(key);
            }
        }
        Ok(file)
    }

    /// The files it consists of: one, or the parts of a set in order.
    pub fn parts(&self) -> &[FilePart] {
        &self.parts
    }

    /// Length of all its files together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Alignment of the (first) file's tensor data, in bytes.
    pub fn alignment(&self) -> u64 {
        self.parts[0].alignment
    }

    /// The index of a tensor by name.
    pub fn find(&self, name: impl AsRef<[u8]>) -> Option<usize> {
        self.index.get(bstr::BStr::new(name.as_ref())).copied()
    }

    /// A tensor's bytes as they lie in the file, in its byte order.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn tensor_bytes(&self, tensor: usize) -> &[u8] {
        let place = &self.places[tensor];
        &self.parts[place.part].map[place.range.clone()]
    }

    /// The part that holds a tensor, and the place of its data there in bytes.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn tensor_place(&self, tensor: usize) -> (&FilePart, Range<u64>) {
        let place = &self.places[tensor];
        let range = place.range.start as u64..place.range.end as u64;
        (&self.parts[place.part], range)
    }

    /// A handle on a tensor's bytes, little-endian, that keeps the map alive by itself. Mapped,
    /// but for a big-endian file, whose tensors are copied.
    ///
    /// # Errors
    /// If the file is big-endian and the type's blocks have no defined byte order.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn tensor_data(&self, tensor: usize) -> Result<TensorData, Error> {
        let place = &self.places[tensor];
        let part = &self.parts[place.part];
        let ty = self.tensors[tensor].ty;
        let storage = match part.endian {
            Endian::Big if endian::depends_on_order(ty) => {
                let bytes = self.swapped(tensor, place.range.clone())?;
                return Ok(bytes.into());
            }
            _ => Storage::Mapped(part.map.clone()),
        };
        Ok(TensorData {
            storage,
            range: place.range.clone(),
        })
    }

    /// Bytes of a big-endian part, made little-endian; `range` covers whole blocks.
    fn swapped(&self, tensor: usize, range: Range<usize>) -> Result<Vec<u8>, Error> {
        let part = &self.parts[self.places[tensor].part];
        let TensorInfo { name, ty, .. } = &self.tensors[tensor];
        let mut bytes = part.map[range].to_vec();
        if endian::swap_rows(*ty, &mut bytes) {
            return Ok(bytes);
        }
        Err(Error::ByteOrder {
            path: part.path.clone(),
            name: name.clone(),
            ty: *ty,
        })
    }

    /// The place in the map of some rows of a tensor.
    fn row_range(&self, tensor: usize, rows: Range<u64>) -> Range<usize> {
        let info = &self.tensors[tensor];
        assert!(
            rows.start <= rows.end && rows.end <= info.rows(),
            "rows {rows:?} of {}",
            info.rows()
        );
        let row = info.ty.row_bytes(info.row_len()).unwrap_or(0) as usize;
        let start = self.places[tensor].range.start;
        start + rows.start as usize * row..start + rows.end as usize * row
    }
}

impl Source for File {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn part(&self, tensor: usize) -> usize {
        self.places[tensor].part
    }

    fn rows(&self, tensor: usize, rows: Range<u64>) -> Result<Cow<'_, [u8]>, ReadError> {
        let range = self.row_range(tensor, rows);
        let part = &self.parts[self.places[tensor].part];
        if part.endian == Endian::Big && endian::depends_on_order(self.tensors[tensor].ty) {
            return match self.swapped(tensor, range) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(ReadError::Data(error.to_string())),
            };
        }
        Ok(part.map[range].into())
    }

    fn release(&self, tensor: usize, rows: Range<u64>) {
        let range = self.row_range(tensor, rows);
        self.parts[self.places[tensor].part].map.release(range);
    }
}

/// Opens a file, and the other parts of its set if it belongs to one.
pub(crate) fn open_parts(path: &Path) -> Result<Vec<Part>, Error> {
    let opened = Part::open(path)?;
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |fault| Error::Split { path, fault }
    };
    let metadata = &opened.header.metadata;
    let count = split::integer(metadata, split::COUNT).map_err(fail(path))?;
    let own_no = split::integer(metadata, split::NO).map_err(fail(path))?;
    // 0 and 1 are what tools leave in files that were merged or never split.
    if count.unwrap_or(0) <= 1 && own_no.unwrap_or(0) == 0 {
        return Ok(vec![opened]);
    }
    let Some((prefix, named_no, named_count)) = split::parse_path(path) else {
        return Err(fail(path)(SplitFault::Name {
            no: own_no.unwrap_or(0),
            count: count.unwrap_or(0),
        }));
    };
    // The first part decides how many there are; the key of the others is only compared by
    // the checker, as other readers do not look at it.
    let first_path = split::part_path(&prefix, 0, named_count);
    let open = |no: u64| -> Result<Part, Error> {
        let path = split::part_path(&prefix, no, named_count);
        if !path.exists() {
            return Err(fail(&first_path)(SplitFault::Missing {
                no,
                count: named_count,
                path,
            }));
        }
        Part::open(&path)
    };
    let first = match named_no {
        0 => opened,
        _ => open(0)?,
    };
    let found = split::integer(&first.header.metadata, split::COUNT)
        .and_then(|count| {
            count.ok_or(SplitFault::KeyMissing {
                key: split::COUNT,
                no: 0,
            })
        })
        .map_err(fail(&first.path))?;
    if found != named_count {
        return Err(fail(&first.path)(SplitFault::Count {
            expected: named_count,
            found,
        }));
    }
    let mut parts = vec![first];
    for no in 1..named_count {
        parts.push(open(no)?);
    }
    for (expected, part) in (0..).zip(&parts) {
        let found = split::integer(&part.header.metadata, split::NO)
            .and_then(|no| {
                no.ok_or(SplitFault::KeyMissing {
                    key: split::NO,
                    no: expected,
                })
            })
            .map_err(fail(&part.path))?;
        if found != expected {
            return Err(fail(&part.path)(SplitFault::Number { expected, found }));
        }
    }
    Ok(parts)
}

/// A tensor's bytes, little-endian: shared and cheap to clone.
#[derive(Debug, Clone)]
pub struct TensorData {
    storage: Storage,
    range: Range<usize>,
}

#[derive(Debug, Clone)]
enum Storage {
    Mapped(Arc<Map>),
    Owned(Arc<[u8]>),
}

impl TensorData {
    /// A part of the bytes, for example one expert of a stack.
    ///
    /// # Panics
    /// If the range is not inside these bytes.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.range.len());
        Self {
            storage: self.storage.clone(),
            range: self.range.start + range.start..self.range.start + range.end,
        }
    }

    /// Whether the bytes lie in a mapped file, not in anonymous memory.
    pub fn is_mapped(&self) -> bool {
        matches!(self.storage, Storage::Mapped(_))
    }

    /// Gives mapped pages back to the system; reading them again reads the file again.
    pub fn release(&self) {
        if let Storage::Mapped(map) = &self.storage {
            map.release(self.range.clone());
        }
    }
}

impl Deref for TensorData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.storage {
            Storage::Mapped(map) => &map[self.range.clone()],
            Storage::Owned(bytes) => &bytes[self.range.clone()],
        }
    }
}

impl From<Vec<u8>> for TensorData {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            range: 0..bytes.len(),
            storage: Storage::Owned(bytes.into()),
        }
    }
}

/// The type and bytes of a tensor by name, a convenience for small files such as importance
/// matrices.
impl File {
    /// Description and little-endian bytes of the tensor with this name.
    ///
    /// # Errors
    /// As [`File::tensor_data`].
    pub fn tensor(
        &self,
        name: impl AsRef<[u8]>,
    ) -> Option<Result<(&TensorInfo, TensorData), Error>> {
        let tensor = self.find(name)?;
        Some(
            self.tensor_data(tensor)
                .map(|data| (&self.tensors[tensor], data)),
        )
    }

    /// Counts tensors by type, in order of type id.
    pub fn type_counts(&self) -> Vec<(TensorType, usize)> {
        TensorType::all()
            .map(|ty| (ty, self.tensors.iter().filter(|t| t.ty == ty).count()))
            .filter(|&(_, count)| count > 0)
            .collect()
    }
}
