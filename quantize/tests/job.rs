//! The job itself: one pass, same bytes however it is run, nothing half-done under a final name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gristmill_gguf::{Metadata, ReadError, Source, SplitLimit, TensorInfo, TensorType, Value};
use gristmill_quantize::job::{Control, Job, JobError, Output, Report, Target, digest_source};
use gristmill_quantize::preset::Preset;
use gristmill_quantize::recipe::Recipe;

const ROW: u64 = 512;

/// A model in memory that counts what is read of it.
struct Model {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    data: Vec<Vec<u8>>,
    read: AtomicU64,
}

impl Model {
    fn new() -> Self {
        let metadata: [(&str, Value); 4] = [
            ("general.architecture", "llama".into()),
            ("llama.block_count", 3u32.into()),
            ("llama.attention.head_count", 4u32.into()),
            ("general.alignment", 64u32.into()),
        ];
        let mut model = Self {
            metadata: metadata.into_iter().collect(),
            tensors: Vec::new(),
            data: Vec::new(),
            read: AtomicU64::new(0),
        };
        // Two chunks and a bit.
        model.add("token_embd.weight", &[ROW, 1100]);
        for layer in 0..3 {
            model.add(&format!("blk.{layer}.attn_v.weight"), &[ROW, 64]);
            model.add(&format!("blk.{layer}.ffn_down.weight"), &[ROW, 96]);
            model.add(&format!("blk.{layer}.ffn_norm.weight"), &[ROW]);
        }
        model.add("output.weight", &[ROW, 128]);
        model
    }

    fn add(&mut self, name: &str, shape: &[u64]) {
        let mut state = self.tensors.len() as u32 + 1;
        let count: u64 = shape.iter().product();
        let value = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0).powi(3)
        };
        self.data
            .push((0..count).map(value).flat_map(f32::to_le_bytes).collect());
        self.tensors.push(TensorInfo {
            name: name.into(),
            shape: shape.to_vec(),
            ty: TensorType::F32,
        });
    }

    fn find(&self, name: &str) -> usize {
        self.tensors.iter().position(|t| t.name == name).unwrap()
    }

    fn set(&mut self, name: &str, index: usize, value: f32) {
        let tensor = self.find(name);
        self.data[tensor][index * 4..][..4].copy_from_slice(&value.to_le_bytes());
    }

    fn bytes(&self) -> u64 {
        self.data.iter().map(|data| data.len() as u64).sum()
    }
}

impl Source for Model {
    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn rows(&self, tensor: usize, rows: Range<u64>) -> Result<Cow<'_, [u8]>, ReadError> {
        let row = self.tensors[tensor].row_len() as usize * 4;
        let range = rows.start as usize * row..rows.end as usize * row;
        self.read.fetch_add(range.len() as u64, Ordering::Relaxed);
        Ok(self.data[tensor][range].into())
    }
}

fn outputs(folder: &Path, presets: &[Preset]) -> Vec<Output> {
    presets
        .iter()
        .map(|&preset| Output {
            path: folder.join(format!("{preset}.gguf")),
            target: Target::Quantized(preset.into()),
            split: None,
            part: None,
            replace: false,
        })
        .collect()
}

fn run(model: &Model, outputs: Vec<Output>, cancel_after: u64) -> Result<Report, JobError> {
    let job = Job {
        source: model,
        base: None,
        importance: None,
        outputs,
    };
    let cancel = AtomicBool::new(cancel_after == 0);
    let done = AtomicU64::new(0);
    job.plan()?.run(&Control {
        progress: &|bytes| {
            if done.fetch_add(bytes, Ordering::Relaxed) + bytes >= cancel_after {
                cancel.store(true, Ordering::Relaxed);
            }
        },
        cancel: &cancel,
    })
}

const NEVER: u64 = u64::MAX;
const PRESETS: &[Preset] = &[Preset::Q8_0, Preset::Q4_K_M, Preset::Q4_K_S, Preset::F16];

/// All files of a folder by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect()
}

#[test]
fn one_pass_and_the_same_bytes_however_it_is_run() {
    let model = Model::new();
    let together = tempfile::tempdir().unwrap();
    let report = run(&model, outputs(together.path(), PRESETS), NEVER).unwrap();
    // Four outputs, each row read and decoded once.
    assert_eq!(model.read.load(Ordering::Relaxed), model.bytes());
    assert_eq!(report.source_bytes, model.bytes());
    let matrices = model.tensors.iter().filter(|t| t.dims() > 1);
    assert_eq!(
        report.decoded_values,
        matrices.map(TensorInfo::elements).sum::<u64>()
    );
    // Q4_K_M and Q4_K_S share what they have in common; Q6_K and Q8_0 and F16 come once each.
    assert!(report.encoded_values < 4 * report.decoded_values);
    assert_eq!(report.source_digest, Some(digest_source(&model).unwrap()));

    let expected = files(together.path());
    assert_eq!(expected.len(), PRESETS.len());
    for threads in [1, 3] {
        let alone = tempfile::tempdir().unwrap();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        for &preset in PRESETS {
            pool.install(|| run(&model, outputs(alone.path(), &[preset]), NEVER))
                .unwrap();
        }
        assert!(files(alone.path()) == expected, "{threads} threads");
    }
}

#[test]
fn an_interrupted_job_goes_on() {
    let mut model = Model::new();
    let whole = tempfile::tempdir().unwrap();
    run(&model, outputs(whole.path(), PRESETS), NEVER).unwrap();
    let expected = files(whole.path());

    let folder = tempfile::tempdir().unwrap();
    let stopped = run(
        &model,
        outputs(folder.path(), PRESETS),
        model.bytes() * 3 / 4,
    );
    assert!(matches!(stopped, Err(JobError::Cancelled)));
    assert!(
        files(folder.path())
            .keys()
            .all(|name| name.starts_with('.'))
    );
    let report = run(&model, outputs(folder.path(), PRESETS), NEVER).unwrap();
    assert!(report.resumed_tensors >= PRESETS.len(), "{report:?}");
    assert!(report.decoded_values < model.bytes() / 4 / 2, "{report:?}");
    assert!(files(folder.path()) == expected);

    // The same source has the same digest, whoever opened it.
    assert_eq!(
        report.source_digest,
        digest_source(&Model::new()).ok(),
        "{report:?}"
    );

    // A source that has changed meanwhile is noticed, tensor by tensor.
    let folder = tempfile::tempdir().unwrap();
    run(
        &model,
        outputs(folder.path(), PRESETS),
        model.bytes() * 3 / 4,
    )
    .unwrap_err();
    model.set("token_embd.weight", 100_000, 0.25);
    let report = run(&model, outputs(folder.path(), PRESETS), NEVER).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    run(&model, outputs(fresh.path(), PRESETS), NEVER).unwrap();
    assert!(files(folder.path()) == files(fresh.path()));
    assert!(files(folder.path()) != expected);
    assert!(report.resumed_tensors > 0);

    // Another recipe does not take up what this one left.
    let folder = tempfile::tempdir().unwrap();
    run(
        &model,
        outputs(folder.path(), &[Preset::Q4_K_M]),
        model.bytes() / 16,
    )
    .unwrap_err();
    let mut other = outputs(folder.path(), &[Preset::Q4_K_M]);
    other[0].target = Target::Quantized(Recipe {
        effort: gristmill_quantize::Effort::Reference,
        ..Preset::Q4_K_M.into()
    });
    assert_eq!(run(&model, other, NEVER).unwrap().resumed_tensors, 0);
}

#[test]
fn parts_made_apart_are_those_of_one_run() {
    let model = Model::new();
    for split in [None, Some(SplitLimit::Tensors(4))] {
        let together = tempfile::tempdir().unwrap();
        let mut all = outputs(together.path(), &[Preset::Q4_K_M]);
        all[0].split = split.clone().or(Some(SplitLimit::Parts(3)));
        run(&model, all, NEVER).unwrap();
        let expected = files(together.path());
        assert_eq!(expected.len(), 3, "{:?}", expected.keys());
        let apart = tempfile::tempdir().unwrap();
        for no in [2, 0, 1] {
            let mut part = outputs(apart.path(), &[Preset::Q4_K_M]);
            part[0].split = split.clone();
            part[0].part = Some((no, 3));
            let report = run(&model, part, NEVER).unwrap();
            assert!(report.source_bytes < model.bytes());
            assert_eq!(report.source_digest, None);
        }
        assert!(files(apart.path()) == expected);
        let mut absent = outputs(apart.path(), &[Preset::Q4_K_M]);
        absent[0].split = Some(SplitLimit::Tensors(4));
        absent[0].part = Some((0, 2));
        let error = run(&model, absent, NEVER);
        assert!(matches!(error, Err(JobError::NoSuchPart { found: 3, .. })));
    }
    let set = tempfile::tempdir().unwrap();
    let mut all = outputs(set.path(), &[Preset::Q8_0]);
    all[0].split = Some(SplitLimit::Parts(3));
    let report = run(&model, all, NEVER).unwrap();
    let opened = gristmill_gguf::File::open(&report.files[0][1]).unwrap();
    assert_eq!(opened.tensors().len(), model.tensors.len());
}

#[test]
fn damaged_weights_are_named_and_nothing_is_left() {
    for (name, index, row) in [
        ("token_embd.weight", 1001 * ROW as usize + 7, 1001),
        ("blk.1.ffn_norm.weight", 7, 0),
    ] {
        let mut model = Model::new();
        model.set(name, index, f32::NEG_INFINITY);
        let folder = tempfile::tempdir().unwrap();
        match run(&model, outputs(folder.path(), PRESETS), NEVER) {
            Err(JobError::NotFinite {
                tensor,
                row: found,
                column: 7,
                value,
            }) => {
                assert_eq!((tensor.to_string(), found), (name.to_owned(), row));
                assert_eq!(value, f32::NEG_INFINITY);
            }
            other => panic!("{other:?}"),
        }
        assert!(files(folder.path()).is_empty());
    }
    let mut model = Model::new();
    model.set("blk.2.attn_v.weight", 40 * ROW as usize, 1e38);
    let folder = tempfile::tempdir().unwrap();
    let error = run(&model, outputs(folder.path(), &[Preset::Q8_0]), NEVER);
    assert!(
        matches!(error, Err(JobError::Overflow { row: 40, .. })),
        "{error:?}"
    );
    assert!(files(folder.path()).is_empty());
}

#[test]
fn outputs_that_exist_are_left_alone() {
    let model = Model::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("F16.gguf");
    std::fs::write(&path, "mine").unwrap();
    let error = run(&model, outputs(folder.path(), PRESETS), NEVER);
    assert!(matches!(
        error,
        Err(JobError::Output(gristmill_gguf::Error::Exists { .. }))
    ));
    assert_eq!(
        files(folder.path()),
        [("F16.gguf".into(), b"mine".to_vec())].into()
    );
    let twice = run(
        &model,
        outputs(folder.path(), &[Preset::Q8_0, Preset::Q8_0]),
        NEVER,
    );
    assert!(matches!(twice, Err(JobError::SamePath(_))));
    let mut replaced = outputs(folder.path(), &[Preset::F16]);
    replaced[0].replace = true;
    run(&model, replaced, NEVER).unwrap();
    assert!(files(folder.path())["F16.gguf"].starts_with(b"GGUF"));
}

#[test]
fn conversions_keep_order_and_metadata() {
    let model = Model::new();
    let folder = tempfile::tempdir().unwrap();
    let types = model.tensors.iter().map(|tensor| match tensor.dims() {
        1 => TensorType::F32,
        _ => TensorType::BF16,
    });
    let output = Output {
        path: folder.path().join("x.gguf"),
        target: Target::Converted(types.collect()),
        split: None,
        part: None,
        replace: false,
    };
    let report = run(&model, vec![output], NEVER).unwrap();
    let file = gristmill_gguf::File::open(&report.files[0][0]).unwrap();
    assert_eq!(file.metadata(), &model.metadata);
    let names =
        |tensors: &[TensorInfo]| -> Vec<_> { tensors.iter().map(|t| t.name.clone()).collect() };
    assert_eq!(names(file.tensors()), names(&model.tensors));
    let norm = model.find("blk.0.ffn_norm.weight");
    assert_eq!(file.tensor_bytes(norm), model.data[norm]);
}
