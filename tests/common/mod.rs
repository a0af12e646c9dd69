//! What the tests of the command share.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary compiles this for itself and uses a part"
)]

#[path = "../../fixtures/golden.rs"]
mod golden;

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
pub use golden::golden;
use serde_json::Value;

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
