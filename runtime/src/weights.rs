//! A weights blob mapped from its file, placed so that huge pages can back it.
//!
//! The file's first byte lies on a multiple of [`HUGE_PAGE`], so a blob at offset 0 of a `.weights` file covers whole
//! huge pages and a blob inside an object keeps the alignment its section has in the file. Where the system gives
//! huge pages to files, decoding then misses the TLB less; elsewhere the hint changes nothing.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::path::Path;

/// Size of the huge pages of x86-64, and of aarch64 and riscv64 with 4 KiB pages.
pub const HUGE_PAGE: usize = 2 << 20;

/// A file's bytes, mapped read-only.
#[derive(Debug)]
pub struct MappedWeights {
    map: place::Map,
    blob: Range<usize>,
}

impl MappedWeights {
    /// Maps the file at `path`; the blob is its bytes `range`, or all of it.
    ///
    /// Fails with `InvalidInput` for a folder, an empty file or a range outside it. As for every mapped file, cutting
    /// the file short later ends the process that reads what is gone.
    pub fn open(path: &Path, range: Option<Range<usize>>) -> Result<Self> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        let bytes = usize::try_from(meta.len()).map_err(|_| Error::from(ErrorKind::FileTooLarge))?;
        if !meta.is_file() || bytes == 0 {
            return Err(Error::new(ErrorKind::InvalidInput, "not a file with weights in it"));
        }
        let blob = range.unwrap_or(0..bytes);
        if blob.start > blob.end || blob.end > bytes {
            let what = format!("bytes {blob:?} are outside the file of {bytes} bytes");
            return Err(Error::new(ErrorKind::InvalidInput, what));
        }
        Ok(MappedWeights { map: place::Map::new(&file, bytes)?, blob })
    }

    /// The blob.
    pub fn bytes(&self) -> &[u8] {
        &self.map.bytes()[self.blob.clone()]
    }
}

/// Placing of a mapping, where the system lets the caller choose the address.
#[cfg(unix)]
mod place {
    use std::fs::File;
    use std::io::{Error, Result};
    use std::os::fd::AsRawFd;

    use memmap2::{MmapMut, MmapOptions};

    use super::HUGE_PAGE;

    /// **Invariant:** bytes `start .. start + bytes` of the reservation are the file's pages, read-only.
    #[derive(Debug)]
    pub struct Map {
        /// Address space: never touched itself, unmapped whole when dropped.
        reservation: MmapMut,
        start: usize,
        bytes: usize,
    }

    impl Map {
        pub fn new(file: &File, bytes: usize) -> Result<Map> {
            let reserved = bytes.checked_add(HUGE_PAGE).ok_or_else(|| Error::from_raw_os_error(libc::ENOMEM))?;
            let mut reservation = MmapOptions::new().len(reserved).no_reserve_swap().map_anon()?;
            let address = reservation.as_mut_ptr();
            let start = address.align_offset(HUGE_PAGE);
            // The offset of the next multiple of HUGE_PAGE is below it, so the file fits behind.
            let place = address.wrapping_add(start);
            let (flags, fd) = (libc::MAP_PRIVATE | libc::MAP_FIXED, file.as_raw_fd());
            // SAFETY: the range lies in the reservation, which is ours alone and holds nothing; the new mapping
            // replaces those pages and goes away with the reservation.
            let mapped = unsafe { libc::mmap(place.cast(), bytes, libc::PROT_READ, flags, fd, 0) };
            if mapped == libc::MAP_FAILED {
                return Err(Error::last_os_error());
            }
            advise(mapped, bytes);
            Ok(Map { reservation, start, bytes })
        }

        pub fn bytes(&self) -> &[u8] {
            &self.reservation[self.start..self.start + self.bytes]
        }
    }

    /// Linux: huge pages; faults then also read a huge page at a time, and reading ahead earlier would fill the page
    /// cache with small ones. Elsewhere: reading ahead. A system that knows neither says so, and nothing is lost.
    fn advise(address: *mut libc::c_void, bytes: usize) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const ADVICE: libc::c_int = libc::MADV_HUGEPAGE;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const ADVICE: libc::c_int = libc::MADV_WILLNEED;
        // SAFETY: the range is a mapping of the caller; the advice leaves its content alone.
        unsafe { libc::madvise(address, bytes, ADVICE) };
    }
}

/// Elsewhere the system chooses the address.
#[cfg(not(unix))]
mod place {
    use std::fs::File;
    use std::io::Result;

    use memmap2::Mmap;

    #[derive(Debug)]
    pub struct Map(Mmap);

    impl Map {
        pub fn new(file: &File, _bytes: usize) -> Result<Map> {
            // SAFETY: the mapping is read-only and any byte value is a valid `u8`.
            Ok(Map(unsafe { Mmap::map(file)? }))
        }

        pub fn bytes(&self) -> &[u8] {
            &self.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `bytes` counted bytes that is removed at the end of the test.
    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str, bytes: usize) -> Scratch {
            let path = std::env::temp_dir().join(format!("tcc-weights-{}-{name}", std::process::id()));
            let counted: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
            std::fs::write(&path, counted).expect("the temporary folder is writable");
            Scratch(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            // A file that stays behind harms no test.
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn the_blob_is_the_range_and_the_file_begins_aligned() {
        let file = Scratch::new("range", 100_000);
        let all = MappedWeights::open(&file.0, None).expect("a file");
        assert_eq!(all.bytes().len(), 100_000);
        assert!(all.bytes().iter().enumerate().all(|(i, b)| *b == (i % 251) as u8));
        #[cfg(unix)]
        assert!(all.bytes().as_ptr().cast::<u8>().addr().is_multiple_of(HUGE_PAGE));
        let part = MappedWeights::open(&file.0, Some(16384..16400)).expect("inside");
        assert_eq!(part.bytes(), &all.bytes()[16384..16400]);
        #[cfg(unix)]
        assert!(part.bytes().as_ptr().addr().is_multiple_of(16384));
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let (file, empty) = (Scratch::new("outside", 10), Scratch::new("empty", 0));
        assert!(MappedWeights::open(&file.0, Some(5..11)).is_err());
        assert!(MappedWeights::open(&empty.0, None).is_err());
        assert!(MappedWeights::open(&std::env::temp_dir(), None).is_err());
        assert!(MappedWeights::open(&file.0.join("missing"), None).is_err());
    }
}
