//! Importance files of `llama-imatrix`: read, written again byte for byte, and hostile ones.

#[path = "../../fixtures/golden.rs"]
mod golden;

use gristmill_quantize::importance::{Importance, ImportanceError};

#[test]
fn both_formats_round_trip() {
    let Some(folder) = golden::golden("model") else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let file = |name: &str| scratch.path().join(name);
    let golden = |name: &str| std::fs::read(folder.join(name)).unwrap();

    let importance = Importance::read(&folder.join("imatrix.gguf")).unwrap();
    assert_eq!((importance.entries.len(), importance.chunks), (56, 140));
    importance.write(&file("again.gguf"), false).unwrap();
    assert_eq!(
        std::fs::read(file("again.gguf")).unwrap(),
        golden("imatrix.gguf")
    );
    importance
        .write_legacy(&file("converted.dat"), false)
        .unwrap();
    assert_eq!(
        std::fs::read(file("converted.dat")).unwrap(),
        golden("imatrix.dat")
    );

    let legacy = Importance::read(&folder.join("imatrix.dat")).unwrap();
    legacy.write_legacy(&file("again.dat"), false).unwrap();
    assert_eq!(
        std::fs::read(file("again.dat")).unwrap(),
        golden("imatrix.dat")
    );
    legacy.write(&file("converted.gguf"), false).unwrap();
    let converted = Importance::read(&file("converted.gguf")).unwrap();
    for (name, entry) in &converted.entries {
        let original = &importance.entries[name];
        assert_eq!(entry.counts, original.counts, "{name}");
        for (a, b) in entry.sums.iter().zip(&original.sums) {
            assert!((a - b).abs() <= b * 1e-6, "{name}: {a} {b}");
        }
    }

    let again = importance.write(&file("again.gguf"), false);
    assert!(matches!(again, Err(ImportanceError::Gguf(_))));
    importance.write(&file("again.gguf"), true).unwrap();
    assert!(importance.write_legacy(&file("again.dat"), false).is_err());
    importance.write_legacy(&file("again.dat"), true).unwrap();
}

#[test]
fn truncated_and_foreign_files_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("x.dat");
    let mut legacy = Vec::new();
    for field in [1i32, 1] {
        legacy.extend_from_slice(&field.to_le_bytes());
    }
    legacy.push(b'a');
    for field in [2i32, 1] {
        legacy.extend_from_slice(&field.to_le_bytes());
    }
    legacy.extend_from_slice(&4f32.to_le_bytes());
    for length in 0..legacy.len() {
        std::fs::write(&path, &legacy[..length]).unwrap();
        let error = Importance::read(&path).expect_err("a truncated file");
        assert!(
            error.to_string().contains("no importance matrix"),
            "{error}"
        );
    }
    std::fs::write(&path, &legacy).unwrap();
    let read = Importance::read(&path).unwrap();
    assert_eq!(read.get("a").unwrap().sums, [4.0]);
    for at in [0, 4, 9, 13] {
        let mut hostile = legacy.clone();
        hostile[at..at + 4].copy_from_slice(&i32::MAX.to_le_bytes());
        std::fs::write(&path, &hostile).unwrap();
        // The number of calls is no length: any is accepted.
        assert_eq!(Importance::read(&path).is_err(), at != 9, "field at {at}");
    }

    if let Some(folder) = golden::golden("types/e2e/dense") {
        let error = Importance::read(&folder.join("source.gguf")).unwrap_err();
        assert!(error.to_string().contains("is this a model?"), "{error}");
    }
}

#[test]
fn statistics_make_sense() {
    let Some(folder) = golden::golden("model") else {
        return;
    };
    let statistics = Importance::read(&folder.join("imatrix.gguf"))
        .unwrap()
        .statistics();
    assert_eq!((statistics.entries.len(), statistics.layers.len()), (56, 8));
    for entry in &statistics.entries {
        assert!(entry.min >= 0.0 && entry.max >= entry.min, "{entry:?}");
        assert!((0.0..=1.0).contains(&entry.normalized_entropy), "{entry:?}");
        assert!(entry.similarity <= 1.0 + 1e-9);
        assert!((entry.sum / entry.columns as f64 - entry.mean).abs() < 1e-6 * entry.mean);
        let first_layer = entry.tensor.starts_with(b"blk.0.");
        assert_eq!(entry.similarity == 0.0, first_layer, "{}", entry.tensor);
    }
}
