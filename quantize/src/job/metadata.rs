//! The metadata of an output, as `llama-quantize` writes them.

use bstr::{BStr, BString, ByteSlice};
use gristmill_gguf::{Metadata, TensorInfo, split};

use super::NamedImportance;
use crate::plan::Plan;
use crate::preset::Preset;
use crate::recipe::Recipe;

/// Version of the block layouts.
const QUANTIZATION_VERSION: u32 = 2;
/// Added to a file type that was guessed from the tensors.
const GUESSED: u32 = 1024;
/// Longest string that the reference stores in an overridden key.
const LONGEST: usize = 127;

/// The source's metadata in order, with the keys of the quantization set at the end.
pub(super) fn of_recipe(
    source: &Metadata,
    tensors: &[TensorInfo],
    recipe: &Recipe,
    plan: &Plan,
    importance: Option<&NamedImportance<'_>>,
) -> Metadata {
    let mut metadata = source.clone();
    for key in split::KEYS {
        metadata.remove(key);
    }
    let file_type = match recipe.preset {
        Preset::Copy => source
            .u64("general.file_type")
            .and_then(|id| u32::try_from(id).ok())
            .unwrap_or_else(|| guess(tensors) | GUESSED),
        preset => preset.id(),
    };
    metadata.set_last("general.quantization_version", QUANTIZATION_VERSION);
    metadata.set_last("general.file_type", file_type);
    for set in &recipe.options.overrides {
        metadata.set_last(set.key.as_str(), set.value.clone());
    }
    if let Some(NamedImportance { matrix, file }) = importance {
        metadata.set_last("quantize.imatrix.file", cut(BStr::new(file)));
        if let Some(dataset) = matrix.datasets.first() {
            metadata.set_last("quantize.imatrix.dataset", cut(dataset.as_ref()));
        }
        let entries = u32::try_from(matrix.entries.len()).unwrap_or(u32::MAX);
        metadata.set_last("quantize.imatrix.entries_count", entries);
        if matrix.chunks > 0 {
            metadata.set_last("quantize.imatrix.chunks_count", matrix.chunks);
        }
    }
    if let Some(layers) = plan.layers_left {
        let architecture = source.str("general.architecture").unwrap_or_default();
        let layers = u32::try_from(layers).unwrap_or(u32::MAX);
        metadata.set_last(format!("{architecture}.block_count"), layers);
    }
    metadata
}

fn cut(text: &BStr) -> BString {
    // Never inside a character, so that what was UTF-8 stays so.
    let mut end = text.len().min(LONGEST);
    while end > 0 && end < text.len() && (text[end] & 0xC0) == 0x80 {
        end -= 1;
    }
    text[..end].as_bstr().to_owned()
}

/// The preset whose name is nearest to the most frequent type.
fn guess(tensors: &[TensorInfo]) -> u32 {
    let most = tensors
        .iter()
        .filter(|tensor| tensor.dims() > 1)
        .map(|tensor| {
            let same = tensors.iter().filter(|other| other.ty == tensor.ty);
            (same.count(), std::cmp::Reverse(tensor.ty), tensor.ty)
        })
        .max();
    most.and_then(|(.., ty)| ty.name().parse::<Preset>().ok())
        .unwrap_or(Preset::F32)
        .id()
}
