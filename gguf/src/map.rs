//! A read-only memory map of a whole file: the only unsafe code of the crate.

use std::fs;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a file, mapped.
///
/// Checked offsets stay valid for as long as nobody shortens the file: as with every mapped
/// reader, a file that is truncated by another process while it is open ends this one (`SIGBUS`).
#[derive(Debug)]
pub struct Map {
    /// `None` for an empty file, which cannot be mapped everywhere.
    map: Option<Mmap>,
}

impl Map {
    /// Maps the file.
    ///
    /// # Errors
    /// If it cannot be opened or mapped, or is not a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !meta.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        if meta.len() == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the map is read-only and nothing in this process writes to the file through
        // another path. That no other process shortens or rewrites it is the documented demand.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self { map: Some(map) })
    }

    /// Gives the pages of a range back to the system; reading them again reads the file again.
    /// A page on the range's lower border goes too, one on its upper border stays.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            let page = rustix::param::page_size();
            let start = range.start.min(map.len()) / page * page;
            let end = match range.end.min(map.len()) {
                end if end == map.len() => end,
                end => end / page * page,
            };
            if start < end {
                // SAFETY: `MADV_DONTNEED` on a shared read-only file mapping only drops cached
                // pages; later reads see the same file contents.
                #[allow(unsafe_code)]
                let advised = unsafe {
                    map.unchecked_advise_range(
                        memmap2::UncheckedAdvice::DontNeed,
                        start,
                        end - start,
                    )
                };
                // Advice that the system does not take costs memory, not correctness.
                drop(advised);
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}
