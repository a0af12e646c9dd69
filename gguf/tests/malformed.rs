//! Files that strangers wrote: damaged at random, or made to hurt. Nothing may panic, and nothing
//! may be allocated by a number that was not checked.

use std::path::{Path, PathBuf};

use gristmill_gguf::check::{self, Level, Severity};
use gristmill_gguf::{Error, File, Source, TensorInfo};
use proptest::prelude::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/gguf/files")
}

/// Opens, checks and reads everything there is to read.
fn exercise(path: &Path) -> Result<File, Error> {
    let opened = File::open(path);
    let report = check::check(path, Level::Data).unwrap();
    for finding in &report.findings {
        assert!(!finding.code.is_empty() && !finding.to_string().contains('\n'));
    }
    match &opened {
        Ok(file) => {
            for (tensor, info) in file.tensors().iter().enumerate() {
                assert_eq!(Some(file.tensor_bytes(tensor).len() as u64), info.bytes());
                let rows = info.rows();
                // The byte order of one type is not defined: that is an error, no panic.
                if let Ok(bytes) = file.rows(tensor, 0..rows) {
                    assert_eq!(Some(bytes.len() as u64), info.bytes());
                }
                file.release(tensor, rows / 2..rows);
            }
        }
        Err(error) => {
            assert_eq!(report.worst(), Some(Severity::Error), "{error}");
        }
    }
    opened
}

#[derive(Debug, Clone)]
enum Damage {
    /// One byte.
    Byte(u8),
    /// Eight bytes, as counts and lengths have them.
    Word(u64),
    /// The rest of the file.
    Cut,
}

fn damage() -> impl Strategy<Value = (proptest::sample::Index, Damage)> {
    let words = vec![
        0,
        1,
        u64::from(u32::MAX),
        1 << 31,
        1 << 32,
        1 << 40,
        (1 << 61) + 1,
        1 << 62,
        i64::MAX as u64,
        1 << 63,
        u64::MAX - 31,
        u64::MAX,
    ];
    let what = prop_oneof![
        6 => any::<u8>().prop_map(Damage::Byte),
        3 => proptest::sample::select(words).prop_map(Damage::Word),
        1 => Just(Damage::Cut),
    ];
    (any::<proptest::sample::Index>(), what)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn damaged_files_are_refused_or_read(
        seed in proptest::sample::select(vec![
            "v3_model", "all_value_types", "all_tensor_types", "nested_array", "dims_0_to_4",
            "zero_length_arrays", "alignment_24", "zero_elements", "v3_big_endian_model",
            "ne_zero_times_huge", "offset_reversed",
        ]),
        damages in proptest::collection::vec(damage(), 1..6),
    ) {
        let mut bytes = std::fs::read(fixtures().join(seed).with_extension("gguf")).unwrap();
        for (at, what) in damages {
            if bytes.is_empty() {
                break;
            }
            // Damage to the header is what matters; most of these files is header anyway.
            let at = at.index(bytes.len());
            match what {
                Damage::Byte(byte) => bytes[at] = byte,
                Damage::Word(word) => {
                    let end = bytes.len().min(at + 8);
                    bytes[at..end].copy_from_slice(&word.to_le_bytes()[..end - at]);
                }
                Damage::Cut => bytes.truncate(at),
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("damaged.gguf");
        std::fs::write(&path, bytes).unwrap();
        let _ = exercise(&path);
    }

    #[test]
    fn random_bytes_after_a_header_are_refused_or_read(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        tensors in 0u64..4,
        keys in 0u64..4,
    ) {
        let mut bytes = preamble(tensors, keys);
        bytes.extend(body);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("random.gguf");
        std::fs::write(&path, bytes).unwrap();
        let _ = exercise(&path);
    }
}

fn preamble(tensors: u64, keys: u64) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(keys.to_le_bytes());
    bytes
}

fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text);
    bytes
}

/// Key, type and value of an entry.
fn entry(key: &[u8], ty: u32, value: &[u8]) -> Vec<u8> {
    [&string(key), &ty.to_le_bytes()[..], value].concat()
}

fn architecture() -> Vec<u8> {
    entry(b"general.architecture", 8, &string(b"llama"))
}

fn info(name: &[u8], shape: &[u64], ty: u32, offset: u64) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.extend((shape.len() as u32).to_le_bytes());
    bytes.extend(shape.iter().flat_map(|dim| dim.to_le_bytes()));
    bytes.extend(ty.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

/// A file of these entries and tensors with `data` zeros after the padded header.
fn build(entries: &[Vec<u8>], infos: &[Vec<u8>], alignment: usize, data: usize) -> Vec<u8> {
    let mut bytes = preamble(infos.len() as u64, entries.len() as u64);
    bytes.extend(entries.concat());
    bytes.extend(infos.concat());
    bytes.resize(bytes.len().next_multiple_of(alignment) + data, 0);
    bytes
}

/// What becomes of a file: the code of its error, or that of its worst findings.
fn verdict(bytes: &[u8]) -> Result<Vec<&'static str>, &'static str> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made.gguf");
    std::fs::write(&path, bytes).unwrap();
    match exercise(&path) {
        Err(error) => Err(error.code()),
        Ok(_) => {
            let report = check::check(&path, Level::Structure).unwrap();
            let bad = report
                .findings
                .iter()
                .filter(|f| f.severity > Severity::Note);
            Ok(bad.map(|finding| finding.code).collect())
        }
    }
}

#[test]
fn alignments() {
    for (alignment, expected) in [
        (1, Ok(vec!["alignment-value"])),
        (2, Ok(vec!["alignment-value"])),
        (4, Ok(vec!["alignment-value"])),
        (8, Ok(vec![])),
        (24, Ok(vec!["alignment-power"])),
        (48, Ok(vec!["alignment-power"])),
        (1 << 16, Ok(vec![])),
        (0, Err("alignment-value")),
        (3, Err("alignment-value")),
        (12, Err("alignment-value")),
        (u32::MAX, Err("alignment-value")),
        (1 << 31, Err("truncated-padding")),
    ] {
        let entries = [
            architecture(),
            entry(b"general.alignment", 4, &alignment.to_le_bytes()),
        ];
        let infos = [
            info(b"a", &[4], 0, 0),
            info(
                b"b",
                &[4],
                0,
                16u64.next_multiple_of(u64::from(alignment.max(1))),
            ),
        ];
        let layout = if alignment > 1 << 20 {
            8
        } else {
            alignment.max(1) as usize
        };
        let data = 2 * 16usize.next_multiple_of(layout);
        let bytes = build(&entries, &infos, layout, data);
        assert_eq!(verdict(&bytes), expected, "{alignment}");
    }
}

#[test]
fn arrays_of_arrays() {
    let nested = |depth: usize| {
        let mut value: Vec<u8> = Vec::new();
        for _ in 1..depth {
            value.extend(9u32.to_le_bytes());
            value.extend(1u64.to_le_bytes());
        }
        value.extend(0u32.to_le_bytes());
        value.extend(1u64.to_le_bytes());
        value.push(7);
        build(&[architecture(), entry(b"a.b", 9, &value)], &[], 1, 0)
    };
    assert_eq!(verdict(&nested(1)), Ok(vec![]));
    for depth in [2, 3, 64] {
        assert_eq!(verdict(&nested(depth)), Ok(vec!["array-nested"]), "{depth}");
    }
    for depth in [65, 1000, 100_000] {
        assert_eq!(verdict(&nested(depth)), Err("array-depth"), "{depth}");
    }
    // A count of arrays that the rest of the file cannot hold.
    for count in [10, 1 << 32, u64::MAX] {
        let value = [&9u32.to_le_bytes()[..], &count.to_le_bytes()].concat();
        let bytes = build(&[architecture(), entry(b"a.b", 9, &value)], &[], 1, 0);
        assert_eq!(verdict(&bytes), Err("array-length"), "{count}");
    }
}

#[test]
fn counts_and_lengths_that_no_file_can_hold() {
    for count in [25, 1 << 31, 1 << 32, 1 << 62, 1 << 63, u64::MAX] {
        assert_eq!(verdict(&preamble(count, 0)), Err("count-range"), "{count}");
        assert_eq!(verdict(&preamble(0, count)), Err("count-range"), "{count}");
    }
    for length in [20, 1 << 31, 1 << 40, 1 << 63, u64::MAX] {
        let text = [&length.to_le_bytes()[..], b"abc"].concat();
        let key = [preamble(0, 1), text.clone()].concat();
        assert_eq!(verdict(&key), Err("string-length"), "{length}");
        let value = [preamble(0, 1), entry(b"a", 8, &text)].concat();
        assert_eq!(verdict(&value), Err("string-length"), "{length}");
        let name = [preamble(1, 0), text].concat();
        assert_eq!(verdict(&name), Err("string-length"), "{length}");
        for element in 0..13u32 {
            let array = [&element.to_le_bytes()[..], &length.to_le_bytes(), b"abc"].concat();
            let bytes = [preamble(0, 1), entry(b"a", 9, &array)].concat();
            assert_eq!(verdict(&bytes), Err("array-length"), "{element} × {length}");
        }
    }
}

#[test]
fn names_and_keys() {
    let tensor = |name: &[u8]| build(&[architecture()], &[info(name, &[4], 0, 0)], 32, 32);
    assert_eq!(verdict(&tensor(&[b'a'; 63])), Ok(vec![]));
    assert_eq!(
        verdict(&tensor(&[b'a'; 64])),
        Ok(vec!["tensor-name-length"])
    );
    assert_eq!(verdict(&tensor(&[b'a'; 65])), Err("tensor-name-length"));
    assert_eq!(verdict(&tensor(b"")), Ok(vec!["tensor-name-empty"]));
    assert_eq!(verdict(&tensor(b"a\0b")), Ok(vec!["tensor-name-nul"]));
    assert_eq!(verdict(&tensor(b"a\xFF")), Ok(vec!["tensor-name-utf8"]));
    let key = |key: &[u8]| build(&[architecture(), entry(key, 7, &[1])], &[], 1, 0);
    assert_eq!(verdict(&key(&[b'a'; 65535])), Ok(vec![]));
    assert_eq!(verdict(&key(&[b'a'; 65536])), Ok(vec!["key-length"]));
    assert_eq!(verdict(&key(b"")), Err("key-empty"));
    for odd in [&b"a..b"[..], b".a", b"a.", b"A.b", b"a b", b"a/b"] {
        assert_eq!(verdict(&key(odd)), Ok(vec!["key-syntax"]), "{odd:?}");
    }
    assert_eq!(verdict(&key("a.ż".as_bytes())), Ok(vec!["key-not-ascii"]));
    let twice = [architecture(), entry(b"a", 7, &[1]), entry(b"a", 7, &[1])];
    assert_eq!(verdict(&build(&twice, &[], 1, 0)), Err("key-duplicate"));
    let alias = [
        architecture(),
        entry(b"a\0b", 7, &[1]),
        entry(b"a", 7, &[1]),
    ];
    let alias = verdict(&build(&alias, &[], 1, 0)).unwrap();
    assert!(alias.contains(&"key-alias"), "{alias:?}");
}

#[test]
fn places_of_tensors() {
    let two = |a: u64, b: u64, data: usize| {
        let infos = [info(b"a", &[8], 0, a), info(b"b", &[8], 0, b)];
        build(&[architecture()], &infos, 32, data)
    };
    assert_eq!(verdict(&two(0, 32, 64)), Ok(vec![]));
    assert_eq!(verdict(&two(32, 0, 64)), Ok(vec!["offset-layout"; 2]));
    assert_eq!(verdict(&two(0, 64, 96)), Ok(vec!["offset-layout"]));
    assert_eq!(verdict(&two(0, 0, 64)), Err("offset-overlap"));
    assert_eq!(verdict(&two(0, 16, 64)), Err("offset-misaligned"));
    assert_eq!(verdict(&two(0, 64, 64)), Err("truncated-data"));
    assert_eq!(verdict(&two(0, u64::MAX - 31, 64)), Err("truncated-data"));
    assert_eq!(verdict(&two(0, 32, 70)), Ok(vec!["trailing-bytes"]));
}

#[test]
fn shapes() {
    let one =
        |shape: &[u64], ty: u32| build(&[architecture()], &[info(b"a", shape, ty, 0)], 32, 64);
    let big = 1 << 33;
    for (shape, ty, expected) in [
        (&[0][..], 0, Ok(vec![])),
        (&[4, 0, 4], 0, Ok(vec![])),
        (&[0, 1 << 62, 1 << 62], 0, Ok(vec!["dims-zero-overflow"])),
        (&[1 << 62, 0, 4], 0, Ok(vec!["dims-zero-overflow"])),
        (&[big, big], 0, Err("dims-overflow")),
        (&[big, 1 << 30], 0, Err("dims-overflow")),
        (&[1 << 61], 0, Err("size-overflow")),
        (&[1 << 60], 0, Err("truncated-data")),
        (&[1 << 63], 0, Err("dims-value")),
        (&[4, u64::MAX], 0, Err("dims-value")),
        (&[1, 1, 1, 1, 1], 0, Err("dims-count")),
        (&[48], 2, Err("row-block")),
        (&[8], 4, Err("tensor-type-removed")),
        (&[8], 37, Err("tensor-type-removed")),
        (&[8], 43, Err("tensor-type")),
        (&[8], u32::MAX, Err("tensor-type")),
        (&[], 0, Ok(vec![])),
    ] {
        let found = verdict(&one(shape, ty));
        // Bytes that nothing needs are trailing ones: not what this is about.
        let found = found.map(|mut codes| {
            codes.retain(|&code| code != "trailing-bytes");
            codes
        });
        assert_eq!(found, expected, "{shape:?} {ty}");
    }
    let scalar = TensorInfo {
        name: "a".into(),
        shape: vec![0, 1 << 62, 1 << 62],
        ty: gristmill_gguf::TensorType::F32,
    };
    assert_eq!(
        (scalar.rows(), scalar.elements(), scalar.bytes()),
        (0, 0, Some(0))
    );
}
