//! A plugin of the user-mode emulator QEMU: executed guest instructions by place in the code.
//!
//! It is given `map=FILE,out=FILE`. A line of the map is `BEGIN END SLOT`: the range of a call site and the number of
//! its slot. Code of a range counts for its slot, and so does all code without a range that runs before the next
//! range is entered: what the call site calls. Whatever runs before any range counts for slot 0. At the end of the
//! program, each line of `out` says of one slot how often it was entered, its instructions, and its instructions
//! with vector instructions of RISC-V weighted (see [`vector`]).
//!
//! `tcc` builds this package into a shared library and carries it along (`compiler/build.rs`); it has no dependency.

pub mod count;
pub mod map;
pub mod vector;

// User-mode emulation is of Linux, and a test binary has no emulator to link with.
#[cfg(all(target_os = "linux", not(test)))]
mod qemu;
