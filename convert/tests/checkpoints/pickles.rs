//! PyTorch's files: what the pickle describes is what is read.

use std::fs;
use std::path::Path;

use gristmill_convert::expr::Expr;
use gristmill_convert::{Checkpoint, Error};

use super::bad_input::PART;
use super::tiny::{Tiny, archive};

/// A vector of four numbers, as PyTorch describes it.
pub const VECTOR: &[u8] = b"\x80\x02}X\x06\x00\x00\x00w.bias\
    ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n\
    X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89}tRs.";

/// The same in a file of before PyTorch 1.6.
pub fn older_file() -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
    let version_and_system = b"\x80\x02M\xe9\x03.\x80\x02}.";
    let keys = b"\x80\x02]X\x01\x00\x00\x000a.";
    let values = [1.0f32, -2.0, 0.5, 4.0].map(f32::to_le_bytes).concat();
    let storage = [&4u64.to_le_bytes()[..], &values].concat();
    [&magic[..], version_and_system, VECTOR, keys, &storage].concat()
}

#[test]
fn older_pickles_are_read() {
    let folder = tempfile::tempdir().unwrap();
    Tiny::new().write(folder.path());
    fs::remove_file(folder.path().join(PART)).unwrap();
    fs::write(folder.path().join("pytorch_model.bin"), older_file()).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let [tensor] = checkpoint.tensors() else {
        panic!("{:?}", checkpoint.tensors())
    };
    assert_eq!(
        (tensor.name.as_str(), &tensor.shape[..]),
        ("w.bias", &[4][..])
    );
    let expected = [1.0f32, -2.0, 0.5, 4.0].map(f32::to_le_bytes).concat();
    assert_eq!(tensor.bytes(), expected);
}

/// A view of twelve numbers, `0..12`: its shape, its strides and where it begins.
struct View(&'static [u8], &'static [u8], u8);

/// A pickled dictionary with one tensor.
fn pickle(View(shape, strides, offset): &View) -> Vec<u8> {
    let tuple = |numbers: &[u8]| -> Vec<u8> {
        let numbers = numbers.iter().flat_map(|&number| [b'K', number]);
        [b'('].into_iter().chain(numbers).chain([b't']).collect()
    };
    let head = b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(\
        (X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x0ctQK";
    let tail = b"\x89}tRs.";
    [&head[..], &[*offset], &tuple(shape), &tuple(strides), tail].concat()
}

fn read(folder: &Path, view: &View) -> Result<Vec<f32>, Error> {
    let values: Vec<u8> = (0..12u8).flat_map(|v| f32::from(v).to_le_bytes()).collect();
    let pickle = pickle(view);
    let file = archive(&[("a/data.pkl", &pickle), ("a/data/0", &values)]);
    fs::write(folder.join("pytorch_model.bin"), file).unwrap();
    let checkpoint = Checkpoint::open(folder)?;
    let expr = Expr::load(&checkpoint.tensors()[0]);
    let shape: Vec<u64> = view.0.iter().rev().map(|&dim| dim.into()).collect();
    assert_eq!(expr.shape(), shape);
    Ok(expr.f32_rows(0..expr.row_count()).unwrap())
}

#[test]
fn views_are_read_by_their_strides() {
    let folder = tempfile::tempdir().unwrap();
    Tiny::new().write(folder.path());
    fs::remove_file(folder.path().join(PART)).unwrap();
    for (view, expected) in [
        (
            View(&[3, 4], &[4, 1], 0),
            &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11][..],
        ),
        (
            View(&[4, 3], &[1, 4], 0),
            &[0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11],
        ),
        (View(&[2, 2], &[4, 1], 5), &[5, 6, 9, 10]),
        (View(&[6], &[2], 1), &[1, 3, 5, 7, 9, 11]),
        (
            View(&[2, 3, 2], &[1, 4, 2], 0),
            &[0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11],
        ),
        (View(&[1, 4], &[9, 1], 8), &[8, 9, 10, 11]),
    ] {
        let values = read(folder.path(), &view).unwrap();
        let expected: Vec<f32> = expected.iter().map(|&value| value as f32).collect();
        assert_eq!(values, expected, "{:?} {:?}", view.0, view.1);
    }
    for view in [
        View(&[3, 4], &[4, 1], 1),
        View(&[200, 4], &[0, 1], 0),
        View(&[255, 255], &[255, 255], 0),
        View(&[3], &[4, 1], 0),
    ] {
        assert!(read(folder.path(), &view).is_err(), "{:?}", view.1);
    }
}
