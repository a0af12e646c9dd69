//! What a writer leaves behind: whole files or nothing, and what the next one needs to go on.

use std::path::{Path, PathBuf};

use gristmill_gguf::{
    Error, File, Layout, Metadata, Plan, Source, SplitLimit, TensorInfo, TensorType, WriteOptions,
    Writer,
};

const ROW: usize = 64 * 4;

/// Three tensors of four rows each.
fn plan(split: Option<SplitLimit>) -> Plan {
    let metadata: Metadata = [("general.architecture", "llama")].into_iter().collect();
    let tensors: Vec<TensorInfo> = (0..3)
        .map(|index| TensorInfo {
            name: format!("t{index}").into(),
            shape: vec![64, 4],
            ty: TensorType::F32,
        })
        .collect();
    let layout = Layout {
        split,
        ..Layout::default()
    };
    Plan::new(&metadata, &tensors, &layout).unwrap()
}

fn fill(writer: &Writer, tensor: usize) {
    writer
        .write_rows(tensor, 0, &vec![tensor as u8 + 1; 4 * ROW])
        .unwrap();
    writer.complete(tensor, 7).unwrap();
}

fn resumable(identity: &str) -> WriteOptions {
    WriteOptions {
        replace: false,
        resume: Some(identity.into()),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

struct Folder {
    dir: tempfile::TempDir,
    output: PathBuf,
}

fn folder() -> Folder {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("m.gguf");
    Folder { dir, output }
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let Folder { dir, output } = folder();
    let writer = Writer::create(&output, plan(None), &WriteOptions::default()).unwrap();
    fill(&writer, 0);
    assert_eq!(names(dir.path()), [".m.gguf.partial"]);
    drop(writer);
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn missing_rows_are_no_file() {
    let Folder { dir, output } = folder();
    let writer = Writer::create(&output, plan(None), &WriteOptions::default()).unwrap();
    fill(&writer, 0);
    fill(&writer, 2);
    writer.write_rows(1, 2, &[0; ROW]).unwrap();
    match writer.finish().unwrap_err() {
        Error::Incomplete {
            name,
            expected,
            found,
            ..
        } => assert_eq!(
            (name.to_string().as_str(), expected, found),
            ("t1", 1024, 256)
        ),
        other => panic!("{other}"),
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn rows_outside_a_tensor_are_refused() {
    let Folder { dir: _dir, output } = folder();
    let writer = Writer::create(&output, plan(None), &WriteOptions::default()).unwrap();
    for (row, count) in [
        (0, 5 * ROW),
        (4, ROW),
        (u64::MAX, ROW),
        (0, ROW - 1),
        (3, 2 * ROW),
    ] {
        let error = writer.write_rows(0, row, &vec![0; count]).unwrap_err();
        assert_eq!(error.code(), "rows", "{row} {count}");
    }
}

#[test]
fn an_output_that_exists_is_kept() {
    let Folder { dir, output } = folder();
    std::fs::write(&output, "precious").unwrap();
    let error = Writer::create(&output, plan(None), &WriteOptions::default()).unwrap_err();
    assert_eq!(error.code(), "exists");
    // One that appears meanwhile too.
    std::fs::remove_file(&output).unwrap();
    let writer = Writer::create(&output, plan(None), &WriteOptions::default()).unwrap();
    (0..3).for_each(|tensor| fill(&writer, tensor));
    std::fs::write(&output, "precious").unwrap();
    assert_eq!(writer.finish().unwrap_err().code(), "exists");
    assert_eq!(std::fs::read(&output).unwrap(), b"precious");
    assert_eq!(names(dir.path()), ["m.gguf"]);
    // And it is replaced on request.
    let options = WriteOptions {
        replace: true,
        resume: None,
    };
    let writer = Writer::create(&output, plan(None), &options).unwrap();
    (0..3).for_each(|tensor| fill(&writer, tensor));
    assert_eq!(std::fs::read(&output).unwrap(), b"precious");
    writer.finish().unwrap();
    assert_eq!(File::open(&output).unwrap().tensor_bytes(2), [3; 4 * ROW]);
    assert_eq!(names(dir.path()), ["m.gguf"]);
}

#[test]
fn two_writers_of_one_output_do_not_meet() {
    let Folder { dir: _dir, output } = folder();
    let writer = Writer::create(&output, plan(None), &WriteOptions::default()).unwrap();
    let error = Writer::create(&output, plan(None), &WriteOptions::default()).unwrap_err();
    assert_eq!(error.code(), "busy");
    assert!(error.is_environment());
    (0..3).for_each(|tensor| fill(&writer, tensor));
    writer.finish().unwrap();
    File::open(&output).unwrap();
}

#[test]
fn a_resumed_output_has_the_same_bytes() {
    for split in [None, Some(SplitLimit::Tensors(2))] {
        let Folder { dir, output } = folder();
        let whole = Writer::create(&output, plan(split.clone()), &WriteOptions::default()).unwrap();
        (0..3).for_each(|tensor| fill(&whole, tensor));
        let paths = whole.finish().unwrap();
        let expected: Vec<_> = paths
            .iter()
            .map(|path| std::fs::read(path).unwrap())
            .collect();
        paths
            .iter()
            .for_each(|path| std::fs::remove_file(path).unwrap());

        let writer = Writer::create(&output, plan(split.clone()), &resumable("a")).unwrap();
        fill(&writer, 0);
        // Begun, not completed: to be written anew.
        writer.write_rows(1, 0, &[99; ROW]).unwrap();
        drop(writer);
        assert!(!output.exists());

        let writer = Writer::create(&output, plan(split.clone()), &resumable("a")).unwrap();
        let done: Vec<_> = (0..3).map(|tensor| writer.is_done(tensor)).collect();
        assert_eq!(done, [true, false, false]);
        assert_eq!(writer.note(0), Some(7));
        fill(&writer, 1);
        fill(&writer, 2);
        let resumed = writer.finish().unwrap();
        let found: Vec<_> = resumed
            .iter()
            .map(|path| std::fs::read(path).unwrap())
            .collect();
        assert_eq!(found, expected);
        assert_eq!(names(dir.path()).len(), paths.len());
    }
}

#[test]
fn what_another_job_left_is_not_continued() {
    let Folder { dir, output } = folder();
    let begin = || {
        let writer = Writer::create(&output, plan(None), &resumable("a")).unwrap();
        fill(&writer, 0);
    };
    // Another identity, another plan, no wish to go on, a file that was cut.
    begin();
    let writer = Writer::create(&output, plan(None), &resumable("b")).unwrap();
    assert!(!writer.is_done(0));
    writer.discard();
    assert_eq!(names(dir.path()), [""; 0]);
    begin();
    let metadata: Metadata = [("general.architecture", "gpt2")].into_iter().collect();
    let other = Plan::new(&metadata, plan(None).tensors(), &Layout::default()).unwrap();
    let writer = Writer::create(&output, other, &resumable("a")).unwrap();
    assert!(!writer.is_done(0));
    writer.discard();
    begin();
    let writer = Writer::create(&output, plan(None), &WriteOptions::default()).unwrap();
    assert!(!writer.is_done(0));
    drop(writer);
    assert_eq!(names(dir.path()), [""; 0]);
    begin();
    let partial = dir.path().join(".m.gguf.partial");
    std::fs::File::options()
        .write(true)
        .open(partial)
        .unwrap()
        .set_len(100)
        .unwrap();
    let writer = Writer::create(&output, plan(None), &resumable("a")).unwrap();
    assert!(!writer.is_done(0));
}

#[test]
fn plans_are_refused_before_anything_is_written() {
    let tensor = |name: &str, shape: &[u64], ty| TensorInfo {
        name: name.into(),
        shape: shape.to_vec(),
        ty,
    };
    let good = tensor("a", &[32], TensorType::Q4_0);
    let metadata = Metadata::new();
    let code = |metadata: &Metadata, tensors: &[TensorInfo], layout: &Layout| {
        Plan::new(metadata, tensors, layout).unwrap_err().code()
    };
    let plain = Layout::default();
    let long = tensor(&"a".repeat(65), &[32], TensorType::F32);
    assert_eq!(code(&metadata, &[long], &plain), "tensor-name-length");
    assert_eq!(
        code(&metadata, &[good.clone(), good], &plain),
        "tensor-name-duplicate"
    );
    for (shape, ty, expected) in [
        (&[33][..], TensorType::Q4_0, "row-block"),
        (&[1, 1, 1, 1, 1], TensorType::F32, "dims-count"),
        (&[1 << 40, 1 << 40], TensorType::F32, "dims-overflow"),
        (&[1 << 61], TensorType::F32, "size-overflow"),
    ] {
        assert_eq!(code(&metadata, &[tensor("a", shape, ty)], &plain), expected);
    }
    let big = Layout {
        endian: gristmill_gguf::Endian::Big,
        ..Layout::default()
    };
    let odd = tensor("a", &[256], TensorType::IQ2_XXS);
    assert_eq!(code(&metadata, &[odd], &big), "byte-order");
    for (value, expected) in [(0u32, "alignment-value"), (12, "alignment-value")] {
        let metadata: Metadata = [("general.alignment", value)].into_iter().collect();
        assert_eq!(code(&metadata, &[], &plain), expected);
    }
    let metadata: Metadata = [("general.alignment", "32")].into_iter().collect();
    assert_eq!(code(&metadata, &[], &plain), "alignment-type");
}

#[test]
fn an_output_larger_than_the_disk_is_refused() {
    let Folder { dir: _dir, output } = folder();
    let huge = TensorInfo {
        name: "a".into(),
        shape: vec![1 << 58],
        ty: TensorType::F32,
    };
    let plan = Plan::new(&Metadata::new(), &[huge], &Layout::default()).unwrap();
    let error = plan.check_space(&output).unwrap_err();
    assert_eq!(error.code(), "space");
    assert!(error.is_environment());
}

/// The limits of split sets: a part is never empty, and a larger tensor has one of its own.
#[test]
fn parts_keep_to_their_limits() {
    let counts = |limit| -> Vec<usize> {
        let plan = plan(Some(limit));
        plan.parts().iter().map(|part| part.tensors.len()).collect()
    };
    assert_eq!(counts(SplitLimit::Tensors(1)), [1, 1, 1]);
    assert_eq!(counts(SplitLimit::Tensors(2)), [2, 1]);
    assert_eq!(counts(SplitLimit::Tensors(3)), [3]);
    assert_eq!(counts(SplitLimit::Bytes(1)), [1, 1, 1]);
    assert_eq!(counts(SplitLimit::Bytes(2047)), [1, 1, 1]);
    assert_eq!(counts(SplitLimit::Bytes(2048)), [2, 1]);
    assert_eq!(counts(SplitLimit::Bytes(3072)), [3]);
    // A set of one is a plain file.
    let Folder { dir: _dir, output } = folder();
    assert_eq!(plan(Some(SplitLimit::Tensors(9))).paths(&output), [output]);
}

#[test]
fn a_set_has_the_keys_that_other_programs_read() {
    let Folder { dir: _dir, output } = folder();
    let plan = plan(Some(SplitLimit::Tensors(1)));
    let writer = Writer::create(&output, plan, &WriteOptions::default()).unwrap();
    (0..3).for_each(|tensor| fill(&writer, tensor));
    for (no, path) in writer.finish().unwrap().iter().enumerate() {
        let part = gristmill_gguf::Part::open(path).unwrap();
        let keys: Vec<_> = part
            .header
            .metadata
            .iter()
            .map(|(key, _)| key.to_string())
            .collect();
        let own = ["split.no", "split.count", "split.tensors.count"];
        let expected = if no == 0 {
            [&["general.architecture"][..], &own].concat()
        } else {
            own.to_vec()
        };
        assert_eq!(keys, expected);
        let value = |key: &str| part.header.metadata.get(key).unwrap().clone();
        assert_eq!(value("split.no"), gristmill_gguf::Value::U16(no as u16));
        assert_eq!(value("split.count"), gristmill_gguf::Value::U16(3));
        assert_eq!(value("split.tensors.count"), gristmill_gguf::Value::I32(3));
        let file = File::open(path).unwrap();
        assert_eq!((file.tensors().len(), file.parts().len()), (3, 3));
        assert_eq!(file.metadata().len(), 1);
    }
}
