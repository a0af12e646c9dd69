//! Files that are written read back the same, whatever their shape and however they are written.

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use bstr::BString;
use gristmill_gguf::copy::{copy_rows, row_chunks};
use gristmill_gguf::{
    Array, Endian, Error, File, Layout, Metadata, Plan, ReadError, Source, SplitLimit, TensorInfo,
    TensorType, Value, WriteOptions, Writer,
};
use proptest::prelude::*;

/// A model in memory.
#[derive(Debug, Clone)]
struct Memory {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    data: Vec<Vec<u8>>,
}

impl Source for Memory {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn rows(&self, tensor: usize, rows: Range<u64>) -> Result<Cow<'_, [u8]>, ReadError> {
        let info = &self.tensors[tensor];
        let row = info.ty.row_bytes(info.row_len()).unwrap();
        let range = (rows.start * row) as usize..(rows.end * row) as usize;
        Ok((&self.data[tensor][range]).into())
    }
}

fn write(model: &Memory, path: &Path, layout: Layout) -> Result<Vec<std::path::PathBuf>, Error> {
    let plan = Plan::new(&model.metadata, &model.tensors, &layout)?;
    let sizes: Vec<u64> = plan.parts().iter().map(|part| part.bytes).collect();
    let writer = Writer::create(path, plan, &WriteOptions::default())?;
    copy_rows(model, &writer, &mut |_| ControlFlow::Continue(()))?;
    let paths = writer.finish()?;
    for (path, size) in paths.iter().zip(sizes) {
        assert_eq!(path.metadata().unwrap().len(), size);
    }
    Ok(paths)
}

/// Values compared by their bits, since NaN differs from itself.
fn bits(value: &Value) -> String {
    match value {
        Value::F32(v) => format!("f32 {:x}", v.to_bits()),
        Value::F64(v) => format!("f64 {:x}", v.to_bits()),
        Value::Array(Array::F32(v)) => {
            format!(
                "f32s {:x?}",
                v.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            )
        }
        Value::Array(Array::F64(v)) => {
            format!(
                "f64s {:x?}",
                v.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            )
        }
        other => format!("{other:?}"),
    }
}

fn assert_same(model: &Memory, read: &File) {
    let entries = |metadata: &Metadata| -> Vec<(BString, String)> {
        metadata
            .iter()
            .map(|(key, value)| (key.to_owned(), bits(value)))
            .collect()
    };
    assert_eq!(entries(&model.metadata), entries(read.metadata()));
    assert_eq!(model.tensors, read.tensors());
    for (tensor, info) in model.tensors.iter().enumerate() {
        let rows = read.rows(tensor, 0..info.rows()).unwrap();
        assert_eq!(model.data[tensor], *rows, "{}", info.name);
        assert_eq!(model.data[tensor], *read.tensor_data(tensor).unwrap());
        read.release(tensor, 0..info.rows());
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<u32>().prop_map(|v| Value::F32(f32::from_bits(v))),
        any::<bool>().prop_map(Value::Bool),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|v| Value::String(v.into())),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<u64>().prop_map(|v| Value::F64(f64::from_bits(v))),
    ]
}

fn array() -> impl Strategy<Value = Array> {
    use proptest::collection::vec;
    let flat = prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Array::U8),
        vec(any::<i8>(), 0..9).prop_map(Array::I8),
        vec(any::<u16>(), 0..9).prop_map(Array::U16),
        vec(any::<i16>(), 0..9).prop_map(Array::I16),
        vec(any::<u32>(), 0..9).prop_map(Array::U32),
        vec(any::<i32>(), 0..9).prop_map(Array::I32),
        vec(any::<i32>().prop_map(|v| v as f32), 0..9).prop_map(Array::F32),
        vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        vec("\\PC{0,9}".prop_map(BString::from), 0..9).prop_map(Array::String),
        vec(any::<u64>(), 0..9).prop_map(Array::U64),
        vec(any::<i64>(), 0..9).prop_map(Array::I64),
        vec(any::<i64>().prop_map(|v| v as f64), 0..9).prop_map(Array::F64),
    ];
    flat.prop_recursive(3, 20, 4, |inner| vec(inner, 0..4).prop_map(Array::Array))
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let value = prop_oneof![3 => scalar(), 1 => array().prop_map(Value::Array)];
    let entry = ("[a-z][a-z0-9_.]{0,12}", value)
        .prop_filter("reserved", |(key, _)| key != "general.alignment");
    let alignment = prop_oneof![
        Just(None),
        proptest::sample::select(vec![1u32, 2, 4, 8, 16, 24, 32, 48, 64, 256]).prop_map(Some),
    ];
    (proptest::collection::vec(entry, 0..12), alignment).prop_map(|(entries, alignment)| {
        let mut metadata: Metadata = entries.into_iter().collect();
        if let Some(alignment) = alignment {
            metadata.set("general.alignment", alignment);
        }
        metadata
    })
}

fn model() -> impl Strategy<Value = Memory> {
    let types: Vec<TensorType> = TensorType::all().collect();
    let tensor = (
        proptest::sample::select(types),
        0u64..3,
        proptest::collection::vec(0u64..4, 0..4),
        any::<u8>(),
    );
    (metadata(), proptest::collection::vec(tensor, 0..9)).prop_map(|(metadata, tensors)| {
        let mut model = Memory {
            metadata,
            tensors: Vec::new(),
            data: Vec::new(),
        };
        for (index, (ty, blocks, rest, seed)) in tensors.into_iter().enumerate() {
            let mut shape = vec![blocks * ty.layout().values as u64];
            shape.extend(rest);
            let info = TensorInfo {
                name: format!("blk.{index}.weight").into(),
                shape,
                ty,
            };
            let bytes = info.bytes().unwrap();
            model.data.push(
                (0..bytes)
                    .map(|i| (i as u8).wrapping_mul(31) ^ seed)
                    .collect(),
            );
            model.tensors.push(info);
        }
        model
    })
}

fn layout() -> impl Strategy<Value = Layout> {
    let split = prop_oneof![
        2 => Just(None),
        1 => (1u64..4).prop_map(|n| Some(SplitLimit::Tensors(n))),
        1 => (1u64..3000).prop_map(|n| Some(SplitLimit::Bytes(n))),
    ];
    let endian = prop_oneof![Just(Endian::Little), Just(Endian::Big)];
    (split, endian).prop_map(|(split, endian)| Layout { split, endian })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_reads_back(mut model in model(), layout in layout()) {
        if layout.endian == Endian::Big {
            // The one type without a defined big-endian form.
            for tensor in &mut model.tensors {
                if tensor.ty == TensorType::IQ2_XXS {
                    tensor.ty = TensorType::TQ2_0;
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("model.gguf");
        for (info, data) in model.tensors.iter().zip(&mut model.data) {
            data.resize(info.bytes().unwrap() as usize, 7);
        }
        let paths = write(&model, &output, layout).unwrap();
        // Any part opens the whole.
        for path in &paths {
            assert_same(&model, &File::open(path).unwrap());
        }
        prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), paths.len());
    }

    #[test]
    fn order_and_threads_do_not_change_the_bytes(model in model(), seed in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        let (plain, mixed) = (dir.path().join("plain.gguf"), dir.path().join("mixed.gguf"));
        write(&model, &plain, Layout::default()).unwrap();
        let plan = Plan::new(&model.metadata, &model.tensors, &Layout::default()).unwrap();
        let writer = Writer::create(&mixed, plan, &WriteOptions::default()).unwrap();
        let mut work: Vec<(usize, Range<u64>)> = (0..model.tensors.len())
            .flat_map(|t| row_chunks(&model.tensors[t], 1).map(move |rows| (t, rows)))
            .collect();
        work.sort_by_key(|(t, rows)| (rows.start ^ seed).wrapping_mul(0x9E37_79B9) ^ *t as u64);
        std::thread::scope(|scope| {
            for half in work.chunks(work.len().div_ceil(2).max(1)) {
                let (writer, model) = (&writer, &model);
                scope.spawn(move || {
                    for (tensor, rows) in half {
                        let bytes = model.rows(*tensor, rows.clone()).unwrap();
                        writer.write_rows(*tensor, rows.start, &bytes).unwrap();
                    }
                });
            }
        });
        writer.finish().unwrap();
        prop_assert_eq!(std::fs::read(plain).unwrap(), std::fs::read(mixed).unwrap());
    }
}
