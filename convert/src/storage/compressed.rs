//! compressed-tensors: 8-bit values with scales, or values packed into words, by groups of modules.

use std::cmp::Reverse;
use std::ops::Range;

use gristmill_gguf::{ReadError, TensorType};
use regex::Regex;
use serde_json::{Map, Value as Json};

use super::packed::{Table, field, words};
use super::{
    Named, Tensors, blocks, floats, groups_of, is_of_run_time, matrix, mxfp4, nvfp4, parameter,
};
use crate::Error;
use crate::checkpoint::{Dtype, Stored};
use crate::expr::{Expr, Rows};

/// A matrix packed along its rows: `w[o][i] = (q − offset) · scale[o][g]`.
#[derive(Debug)]
struct Packed {
    weight: Stored,
    /// Zero points, packed along the outputs; without them the middle of the range.
    zeros: Option<Stored>,
    scales: Table,
    /// Group of each input.
    groups: Vec<u32>,
    bits: usize,
    words_per_row: usize,
}

/// Every module goes by the parameters of its group; the modules of no group are as they are stored.
pub(super) fn read(
    tensors: &[Stored],
    by_name: &Tensors,
    scheme: &Json,
) -> Result<Vec<Named>, Error> {
    let stated = scheme.get("format").and_then(Json::as_str);
    let groups = scheme.get("config_groups").and_then(Json::as_object);
    let groups = groups
        .into_iter()
        .flat_map(Map::values)
        .map(|group| Group::new(group, stated))
        .collect::<Result<Vec<_>, _>>()?;
    match &groups[..] {
        [] => Group::new(&Json::Null, stated)?.read(tensors, by_name),
        [group] => group.read(tensors, by_name),
        groups => {
            let mut members = vec![Vec::new(); groups.len()];
            let mut out = Vec::new();
            for tensor in tensors {
                let module = tensor
                    .name
                    .rsplit_once('.')
                    .map_or("", |(module, _)| module);
                // The most specific target counts, of equal ones the first.
                let group = groups.iter().enumerate().filter_map(|(at, group)| {
                    let rank = group
                        .targets
                        .iter()
                        .filter_map(|t| t.matches(module))
                        .max()?;
                    Some((rank, Reverse(at)))
                });
                match group.max() {
                    Some((_, Reverse(at))) => members[at].push(tensor.clone()),
                    None => out.push((tensor.name.clone(), Expr::load(tensor))),
                }
            }
            for (group, members) in groups.iter().zip(members) {
                out.extend(group.read(&members, by_name)?);
            }
            Ok(out)
        }
    }
}

/// Parameters that some modules have in common.
struct Group {
    targets: Vec<Target>,
    format: Format,
}

/// How the weights of a module are stored.
#[derive(Debug, Clone, Copy)]
enum Format {
    Plain,
    /// Values of 8 bits with a scale for each block, channel or tensor.
    Scaled {
        block: [u64; 2],
    },
    Packed {
        bits: usize,
    },
    Nvfp4,
    Mxfp4,
}

impl Group {
    fn new(group: &Json, of_model: Option<&str>) -> Result<Self, Error> {
        let bad = |reason: String| Error::config("quantization_config", reason);
        let weights = group.get("weights").unwrap_or(&Json::Null);
        let own = group.get("format").and_then(Json::as_str);
        // `mixed-precision` says that the groups have formats of their own.
        let format = match of_model {
            Some("mixed-precision") | None => own,
            Some(format) => own.or(Some(format)),
        };
        let format = match format {
            Some("dense") => Format::Plain,
            Some("float-quantized" | "int-quantized" | "naive-quantized") => {
                let block = weights.get("block_structure").and_then(Json::as_array);
                let side = |at: usize| block.and_then(|b| b.get(at)?.as_u64()).filter(|&n| n > 0);
                Format::Scaled {
                    block: [
                        side(0).unwrap_or(blocks::BLOCK[0]),
                        side(1).unwrap_or(blocks::BLOCK[1]),
                    ],
                }
            }
            Some("pack-quantized") => {
                let bits = parameter(weights, "num_bits").unwrap_or(4);
                if !(1..=8).contains(&bits) {
                    return Err(bad(format!("packs {bits} bits; 1 to 8 are read")));
                }
                Format::Packed {
                    bits: bits as usize,
                }
            }
            Some("nvfp4-pack-quantized") => Format::Nvfp4,
            Some("mxfp4-pack-quantized") => Format::Mxfp4,
            Some(other) => {
                return Err(bad(format!(
                    "has the format `{other}` of compressed-tensors, which is not supported"
                )));
            }
            None => return Err(bad("states no `format` of compressed-tensors".into())),
        };
        let targets = group.get("targets").and_then(Json::as_array);
        let targets = targets.into_iter().flatten().filter_map(Json::as_str);
        Ok(Self {
            targets: targets.map(Target::new).collect::<Result<_, _>>()?,
            format,
        })
    }

    fn read(&self, tensors: &[Stored], by_name: &Tensors) -> Result<Vec<Named>, Error> {
        match self.format {
            Format::Plain => Ok(tensors
                .iter()
                .map(|tensor| (tensor.name.clone(), Expr::load(tensor)))
                .collect()),
            Format::Scaled { block } => blocks::read_with(tensors, by_name, block),
            Format::Packed { bits } => unpack(tensors, by_name, &|weight, base| {
                packed(weight, by_name, base, bits)
            }),
            Format::Nvfp4 => nvfp4::read(tensors, by_name),
            Format::Mxfp4 => unpack(tensors, by_name, &|weight, base| {
                mxfp4::pairs(weight, by_name.need(&format!("{base}_scale"))?)
            }),
        }
    }
}

/// What a group is for.
enum Target {
    Module(String),
    Pattern(Regex),
    /// A class of modules: there are no others than linear ones among quantized weights.
    Class,
}

/// How closely a target names a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Class,
    Pattern,
    Module,
}

impl Target {
    fn new(target: &str) -> Result<Self, Error> {
        let Some(pattern) = target.strip_prefix("re:") else {
            return Ok(match target.contains('.') {
                true => Self::Module(target.to_owned()),
                false => Self::Class,
            });
        };
        // As Python's `re.match`: from the start, to wherever it ends.
        match Regex::new(&format!("^(?:{pattern})")) {
            Ok(pattern) => Ok(Self::Pattern(pattern)),
            Err(_) => Err(Error::config(
                "quantization_config",
                format!("has a group for `{target}`, which is no regular expression"),
            )),
        }
    }

    fn matches(&self, module: &str) -> Option<Rank> {
        match self {
            Self::Module(name) => (name == module).then_some(Rank::Module),
            Self::Pattern(pattern) => pattern.is_match(module).then_some(Rank::Pattern),
            Self::Class => Some(Rank::Class),
        }
    }
}

/// Plain tensors in their places, unpacked ones after them. `weight` unpacks the codes of the
/// weight that is named.
fn unpack(
    tensors: &[Stored],
    by_name: &Tensors,
    weight: &dyn Fn(&Stored, &str) -> Result<Expr, Error>,
) -> Result<Vec<Named>, Error> {
    const PARTS: [&str; 4] = ["_scale", "_shape", "_zero_point", "_g_idx"];
    let mut plain = Vec::new();
    let mut unpacked = Vec::new();
    for tensor in tensors {
        let name = &tensor.name;
        if let Some(base) = name.strip_suffix("_packed") {
            unpacked.push((base.to_owned(), weight(tensor, base)?));
            continue;
        }
        if is_of_run_time(name) {
            continue;
        }
        let owner = PARTS.iter().find_map(|part| name.strip_suffix(part));
        if owner.is_none_or(|base| by_name.get(&format!("{base}_packed")).is_none()) {
            plain.push((name.clone(), Expr::load(tensor)));
        }
    }
    plain.extend(unpacked);
    Ok(plain)
}

fn packed(weight: &Stored, by_name: &Tensors, base: &str, bits: usize) -> Result<Expr, Error> {
    let scales = by_name.need(&format!("{base}_scale"))?;
    let [outputs, words_per_row] = matrix(weight)?;
    let per_word = 32 / bits as u64;
    let shape = by_name.get(&format!("{base}_shape"));
    let inputs = match shape.filter(|shape| shape.elements() == 2).map(floats) {
        Some(shape) => shape[1] as u64,
        None => words_per_row * per_word,
    };
    let zeros = by_name.get(&format!("{base}_zero_point"));
    let table = Table::new(scales, outputs);
    let count = table.as_ref().map_or(0, |table| table.columns() as u64);
    let fits = weight.dtype == Dtype::I32
        && inputs.div_ceil(per_word) == words_per_row
        && zeros.is_none_or(|zeros| {
            zeros.dtype == Dtype::I32 && zeros.shape == [outputs.div_ceil(per_word), count]
        });
    let (Some(scales), true) = (table, fits) else {
        return Err(Error::tensor(
            &weight.name,
            format!(
                "packed values {:?} and scales {:?} do not fit {bits} bits",
                weight.shape, scales.shape
            ),
        ));
    };
    let index = by_name.get(&format!("{base}_g_idx"));
    let packed = Packed {
        weight: weight.clone(),
        zeros: zeros.cloned(),
        scales,
        groups: groups_of(weight, index, inputs, inputs.div_ceil(count), count)?,
        bits,
        words_per_row: words_per_row as usize,
    };
    Ok(Expr::scheme(TensorType::F32, &[inputs, outputs], packed))
}

impl Rows for Packed {
    fn append(&self, rows: Range<u64>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let per_word = 32 / self.bits;
        let middle = 1 << (self.bits - 1);
        let packed = words(&self.weight);
        let mut zeros = vec![middle; self.scales.columns()];
        let mut scales = Vec::new();
        for output in rows.start as usize..rows.end as usize {
            let row = &packed[output * self.words_per_row..][..self.words_per_row];
            self.scales.read_row(output, &mut scales);
            if let Some(stored) = &self.zeros {
                let line = &words(stored)[output / per_word * zeros.len()..][..zeros.len()];
                for (zero, &word) in zeros.iter_mut().zip(line) {
                    *zero = field(word, output % per_word, self.bits).cast_signed();
                }
            }
            for (input, &group) in self.groups.iter().enumerate() {
                let group = group as usize;
                let value = field(row[input / per_word], input % per_word, self.bits);
                let value = (value.cast_signed() - zeros[group]) as f32 * scales[group];
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        Ok(())
    }

    fn release(&self, rows: Range<u64>) {
        let size = self.words_per_row * 4;
        self.weight
            .release(rows.start as usize * size..rows.end as usize * size);
    }
}
