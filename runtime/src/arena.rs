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

    /// The same memory in huge pages where the system has them: fewer walks of page tables, but the first touch of a
    /// page commits all of it.
    pub fn in_huge_pages(self) -> Arena {
        #[cfg(target_os = "linux")]
        // A kernel without huge pages refuses, and nothing is lost.
        let _ = self.0.advise(memmap2::Advice::HugePage);
        self
    }

    /// The memory.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_and_writable_in_any_pages() {
        for arena in [Arena::new(0), Arena::new(5 << 20), Arena::new(5 << 20).map(Arena::in_huge_pages)] {
            let mut arena = arena.expect("memory");
            let bytes = arena.bytes_mut();
            assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 0));
            bytes.fill(1);
        }
    }

    /// Linux says of each mapping what it was advised: `hg` is huge pages.
    #[cfg(target_os = "linux")]
    #[test]
    fn huge_pages_are_asked_for_where_there_are_any() {
        if !std::fs::exists("/sys/kernel/mm/transparent_hugepage").expect("a folder to look at") {
            return;
        }
        let mut arenas =
            [Arena::new(5 << 20), Arena::new(5 << 20).map(Arena::in_huge_pages)].map(|a| a.expect("memory"));
        let advised = arenas.each_mut().map(|arena| flags(arena.bytes_mut()).contains(" hg"));
        assert_eq!(advised, [false, true]);
    }

    /// The flags of the mapping that holds `memory`.
    #[cfg(target_os = "linux")]
    fn flags(memory: &[u8]) -> String {
        let (mut is_it, address) = (false, memory.as_ptr().addr());
        for line in std::fs::read_to_string("/proc/self/smaps").expect("Linux").lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let hex = |digits| usize::from_str_radix(digits, 16).ok();
            if let Some((begin, end)) = range.and_then(|(begin, end)| hex(begin).zip(hex(end))) {
                is_it = (begin..end).contains(&address);
            }
            if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| is_it) {
                return flags.to_owned();
            }
        }
        panic!("no mapping holds the memory");
    }
}
