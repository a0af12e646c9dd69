//! What the standard library does not offer portably, each with a fallback.

use std::fs;
use std::io;
use std::path::Path;

/// Bytes that this user can still write to the file system of `path`, or of its nearest existing
/// parent; `None` where the system does not tell. For plans that want to fail before they start.
///
/// # Errors
/// If the system call fails.
pub fn available_space(path: &Path) -> io::Result<Option<u64>> {
    #[cfg(unix)]
    {
        let path = std::path::absolute(path)?;
        let existing = path.ancestors().find(|path| path.exists());
        let stat = rustix::fs::statvfs(existing.unwrap_or(Path::new("/")))?;
        Ok(Some(stat.f_bavail.saturating_mul(stat.f_frsize)))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(None)
    }
}

/// Writes all bytes at an offset, whatever other threads write elsewhere.
pub(crate) fn write_all_at(file: &fs::File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
    }
    #[cfg(windows)]
    {
        use std::os::windows::fs::FileExt;
        let (mut bytes, mut offset) = (bytes, offset);
        while !bytes.is_empty() {
            let count = file.seek_write(bytes, offset)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            (bytes, offset) = (&bytes[count..], offset + count as u64);
        }
        Ok(())
    }
}

/// Whether the path still names the opened file (and not one that replaced it, or nothing).
pub(crate) fn is_at(file: &fs::File, path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let opened = file.metadata()?;
        match fs::metadata(path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
    // Elsewhere a file that is open cannot be renamed away.
    #[cfg(not(unix))]
    {
        let _ = file;
        path.try_exists()
    }
}

/// Makes renames in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        fs::File::open(folder)?.sync_all()
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn space_is_that_of_the_nearest_parent_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let here = available_space(dir.path()).unwrap().unwrap();
        let there = available_space(&dir.path().join("not/yet/made"))
            .unwrap()
            .unwrap();
        assert!(here > 0 && there > 0);
    }
}
