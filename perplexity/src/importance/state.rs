//! An unfinished collection on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gristmill_engine::imatrix::{Collector, Sums};
use gristmill_gguf::{
    Error, File, Layout, Metadata, Plan, Source, TensorInfo, TensorType, WriteOptions, Writer,
};

const IDENTITY: &str = "imatrix.state.identity";
const CHUNKS: &str = "imatrix.state.chunks";
const SQUARES: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Where a collection keeps what it has, so that it can go on after it was interrupted. The sums are
/// kept in full precision: the matrix is the same in the end.
#[derive(Debug)]
pub struct State {
    /// The file.
    pub path: PathBuf,
    /// Everything that the sums depend on: model, text, chunks, the program's version.
    pub identity: String,
}

impl State {
    /// Beside the file that the matrix will be, under a hidden name.
    pub fn beside(output: &Path, identity: String) -> Self {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        Self {
            path: output.with_file_name(format!(".{name}.state")),
            identity,
        }
    }

    /// The chunks that are done and what was collected from them; `None` if there is no file, or one
    /// of another collection, or a damaged one.
    pub(super) fn load(&self) -> Option<(usize, Collector)> {
        let file = File::open(&self.path).ok()?;
        let metadata = file.metadata();
        if metadata.str(IDENTITY) != Some(&self.identity) {
            return None;
        }
        let done = usize::try_from(metadata.u64(CHUNKS)?).ok()?;
        let words = |name: String, ty: TensorType| -> Option<Vec<[u8; 8]>> {
            let (info, data) = file.tensor(name)?.ok()?;
            (info.ty == ty).then(|| data.as_chunks().0.to_vec())
        };
        let mut sums = BTreeMap::new();
        for info in file.tensors() {
            let name = std::str::from_utf8(&info.name).ok()?;
            let Some(name) = name.strip_suffix(SQUARES) else {
                continue;
            };
            let squares = words(format!("{name}{SQUARES}"), TensorType::F64)?;
            let counts = words(format!("{name}{COUNTS}"), TensorType::I64)?;
            let entry = Sums {
                cols: usize::try_from(info.row_len()).ok()?,
                squares: squares.into_iter().map(f64::from_le_bytes).collect(),
                counts: counts.into_iter().map(u64::from_le_bytes).collect(),
            };
            sums.insert(Arc::from(name), entry);
        }
        Some((done, Collector::from(sums)))
    }

    /// Replaces what is kept.
    pub(super) fn save(&self, done: usize, collector: &Collector) -> Result<(), Error> {
        let mut metadata = Metadata::new();
        metadata.set(IDENTITY, self.identity.as_str());
        metadata.set(CHUNKS, done as u64);
        let mut tensors = Vec::new();
        let mut data: Vec<Vec<u8>> = Vec::new();
        for (name, sums) in collector.sums() {
            let matrices = sums.squares.len() / sums.cols.max(1);
            tensors.push(TensorInfo {
                name: format!("{name}{SQUARES}").into(),
                shape: vec![sums.cols as u64, matrices as u64],
                ty: TensorType::F64,
            });
            data.push(sums.squares.iter().flat_map(|s| s.to_le_bytes()).collect());
            tensors.push(TensorInfo {
                name: format!("{name}{COUNTS}").into(),
                shape: vec![sums.counts.len() as u64],
                ty: TensorType::I64,
            });
            data.push(sums.counts.iter().flat_map(|n| n.to_le_bytes()).collect());
        }
        let options = WriteOptions {
            replace: true,
            ..WriteOptions::default()
        };
        let plan = Plan::new(&metadata, &tensors, &Layout::default())?;
        let writer = Writer::create(&self.path, plan, &options)?;
        for (tensor, bytes) in data.iter().enumerate() {
            writer.write_rows(tensor, 0, bytes)?;
        }
        writer.finish()?;
        Ok(())
    }

    /// Forgets what is kept, once the matrix is written.
    pub fn remove(&self) {
        // A file that stays behind is of no harm: it is replaced by the next collection.
        let _ = std::fs::remove_file(&self.path);
    }
}
