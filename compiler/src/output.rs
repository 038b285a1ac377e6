//! Files that appear whole or not at all: written under a temporary name beside the target, then renamed.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Bytes of each write, whose offset is a multiple of it: the size of a huge page. Linux then keeps the file in huge
/// pages where its file system can, and mapping the weights right after making them costs few TLB entries.
const BLOCK_BYTES: usize = 2 << 20;

/// Who may do what with a new file, before the user's mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Data,
    Executable,
}

/// Creates `path` with what `fill` writes; leaves nothing behind if it fails.
pub fn write_whole<E: From<io::Error>>(
    path: &Path,
    mode: Mode,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<(), E> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let bits = match mode {
        Mode::Data => 0o666,
        Mode::Executable => 0o777,
    };
    let file =
        tempfile::Builder::new().prefix(".tcc-").permissions(Permissions::from_mode(bits)).tempfile_in(folder)?;
    let mut blocks = Blocks { out: file, gathered: Vec::new() };
    fill(&mut blocks)?;
    blocks.flush()?;
    blocks.out.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Passes on what it is given in writes of exactly [`BLOCK_BYTES`], the last one apart.
struct Blocks<W: Write> {
    out: W,
    /// Less than a block.
    gathered: Vec<u8>,
}

impl<W: Write> Write for Blocks<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(BLOCK_BYTES - self.gathered.len());
        self.gathered.extend_from_slice(&data[..taken]);
        if self.gathered.len() == BLOCK_BYTES {
            self.out.write_all(&self.gathered)?;
            self.gathered.clear();
        }
        Ok(taken)
    }

    /// Ends the file: later writes would no longer be blocks.
    fn flush(&mut self) -> io::Result<()> {
        self.out.write_all(&self.gathered)?;
        self.gathered.clear();
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers the size of every write.
    #[derive(Default)]
    struct Sizes(Vec<usize>, Vec<u8>);

    impl Write for Sizes {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.push(data.len());
            self.1.extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn writes_are_whole_blocks() {
        let mut blocks = Blocks { out: Sizes::default(), gathered: Vec::new() };
        let data: Vec<u8> = (0..2 * BLOCK_BYTES + 5).map(|i| (i % 253) as u8).collect();
        let (first, rest) = data.split_at(3);
        blocks.write_all(first).expect("to memory");
        blocks.write_all(rest).expect("to memory");
        blocks.flush().expect("to memory");
        assert_eq!(blocks.out.0.iter().filter(|n| **n > 0).collect::<Vec<_>>(), [&BLOCK_BYTES, &BLOCK_BYTES, &5]);
        assert_eq!(blocks.out.1, data);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("out.bin");
        let failed = write_whole(&path, Mode::Data, |w| {
            w.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_write_replaces_the_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("out.bin");
        for text in [b"one", b"two"] {
            write_whole(&path, Mode::Executable, |w| w.write_all(text)).expect("writable");
        }
        assert_eq!(std::fs::read(&path).expect("readable"), b"two");
        let mode = std::fs::metadata(&path).expect("exists").permissions().mode();
        assert_eq!(mode & 0o100, 0o100, "executable by its owner");
    }
}
