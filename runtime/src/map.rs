//! Read-only mapping of a file that may not change while it is mapped.
//!
//! Mapped pages of a file that is cut short raise SIGBUS when they are touched. Every [`MappedFile::bytes`] asks the
//! file system for the length first and fails if the file shrank, which leaves one race: a cut between that question
//! and the last read of the returned slice still ends the process. No portable call closes it; copying the slice
//! would only move it. A replaced file (`mv new old`) is harmless: the mapping keeps the old one alive.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

/// A file's bytes, mapped read-only.
#[derive(Debug)]
pub struct MappedFile {
    file: File,
    map: Mmap,
}

impl MappedFile {
    /// Maps the whole file at `path`. A folder is an error.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
        }
        // SAFETY: the mapping is private to this value and read-only. Another process may still write to or cut the
        // file; `bytes` checks for the cut, and any byte value is a valid `u8`, so a write can only change data.
        let map = unsafe { Mmap::map(&file)? };
        Ok(MappedFile { file, map })
    }

    /// Length in bytes when the file was opened.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// True if the file was empty when it was opened.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Bytes `range` of the file.
    ///
    /// Fails with `UnexpectedEof` if the file is shorter than when it was opened and with `InvalidInput` if `range`
    /// lies outside it.
    pub fn bytes(&self, range: Range<usize>) -> Result<&[u8]> {
        let now = self.file.metadata()?.len();
        if usize::try_from(now).is_ok_and(|now| now < self.map.len()) {
            let what = format!("the file was cut from {} to {now} bytes while it was read", self.map.len());
            return Err(Error::new(ErrorKind::UnexpectedEof, what));
        }
        let outside = || Error::new(ErrorKind::InvalidInput, format!("bytes {range:?} are outside the file"));
        self.map.get(range.clone()).ok_or_else(outside)
    }
}
