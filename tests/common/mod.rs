//! What the tests of the command share.
#![allow(
    dead_code,
    reason = "each test binary compiles this for itself and uses a part"
)]

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;

/// A folder of the golden data; `None`, with a visible line, where it is not.
pub fn golden(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GRIST_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden"),
        PathBuf::from,
    );
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: golden data not found at {}", path.display());
    None
}

/// The trained model of the fixtures.
pub fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/novelist-6m")
}

/// Runs the built command.
pub fn grist<A: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_grist"))
        .args(arguments)
        .output()
        .expect("the command runs")
}

/// What the command wrote to stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The document that a successful command printed.
pub fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).expect("one JSON document on stdout")
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
