//! Machine code in this process: on pages of its own, executable and no longer writable.

use std::io;
use std::ops::Deref;

use memmap2::{Mmap, MmapMut};

/// A copy of some code, ready to run.
#[derive(Debug)]
pub(crate) struct Code(Mmap);

impl Code {
    /// Copies `bytes`, of which there is at least one.
    pub fn new(bytes: &[u8]) -> io::Result<Code> {
        let mut map = MmapMut::map_anon(bytes.len())?;
        map.copy_from_slice(bytes);
        let code = map.make_exec()?;
        make_visible(&code);
        Ok(Code(code))
    }
}

impl Deref for Code {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Makes new code visible to instruction fetch: caches of instructions and of data are coherent here.
#[cfg(not(target_arch = "aarch64"))]
fn make_visible(_code: &[u8]) {}

/// Makes new code visible to instruction fetch: cleans the data cache to the point of unification, then invalidates
/// the instruction cache (Arm Architecture Reference Manual, B2.4.4).
#[cfg(target_arch = "aarch64")]
fn make_visible(code: &[u8]) {
    use std::arch::asm;

    /// Smallest line any core has, bytes: touching a line twice costs little and needs no register that a
    /// hypervisor may misreport between unlike cores.
    const LINE: usize = 16;
    // SAFETY: maintenance by address of readable memory changes no content and is allowed to user code on Linux.
    unsafe {
        for line in code.chunks(LINE) {
            asm!("dc cvau, {}", in(reg) line.as_ptr(), options(nostack, preserves_flags));
        }
        asm!("dsb ish", options(nostack, preserves_flags));
        for line in code.chunks(LINE) {
            asm!("ic ivau, {}", in(reg) line.as_ptr(), options(nostack, preserves_flags));
        }
        asm!("dsb ish", "isb", options(nostack, preserves_flags));
    }
}
