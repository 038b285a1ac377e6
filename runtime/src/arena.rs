//! Zeroed, page-aligned memory for a model's arena, taken from the system and not from the heap.

use std::io;

use memmap2::MmapMut;

/// An arena's memory; pages cost nothing until they are touched.
#[derive(Debug)]
pub struct Arena(MmapMut);

impl Arena {
    /// Reserves `bytes` bytes; fails where the system has no address space for them.
    pub fn new(bytes: u64) -> io::Result<Arena> {
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Arena(MmapMut::map_anon(bytes.max(1))?))
    }

    /// The memory.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
