//! Files that appear whole or not at all: written under a temporary name beside the target, then renamed.

use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Bytes gathered before each write.
const BUFFER_BYTES: usize = 1 << 20;

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
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, file);
    fill(&mut buffered)?;
    let file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
