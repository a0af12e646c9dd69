//! Where the golden data are.

use std::path::{Path, PathBuf};

/// A folder of the golden data; `None`, with a visible line, if they are not on this machine.
pub fn golden(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("GRIST_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden"),
        PathBuf::from,
    );
    if root.is_dir() {
        let folder = root.join(folder);
        assert!(folder.is_dir(), "{} is missing", folder.display());
        return Some(folder);
    }
    eprintln!("skipped: golden data not found ({})", root.display());
    None
}
