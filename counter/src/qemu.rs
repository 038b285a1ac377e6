//! The interface of QEMU's plugins, and the counter behind it.
//!
//! The functions declared here are those of `qemu-plugin.h` whose types are the same in every version of the
//! interface; they live in the emulator, which loads this library.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::count::Counter;
use crate::map::Map;
use crate::vector::Kind;

type Translated = extern "C" fn(id: u64, block: *mut c_void);
type Executed = extern "C" fn(cpu: c_uint, data: *mut c_void);
type Ended = extern "C" fn(id: u64, data: *mut c_void);

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: Translated);
    fn qemu_plugin_register_vcpu_tb_exec_cb(block: *mut c_void, callback: Executed, flags: c_int, data: *mut c_void);
    fn qemu_plugin_register_atexit_cb(id: u64, callback: Ended, data: *mut c_void);
    fn qemu_plugin_tb_n_insns(block: *const c_void) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const c_void, index: usize) -> *mut c_void;
    fn qemu_plugin_insn_vaddr(instruction: *const c_void) -> u64;
    fn qemu_plugin_insn_size(instruction: *const c_void) -> usize;
    fn qemu_plugin_insn_haddr(instruction: *const c_void) -> *const u8;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

/// Version of the interface, read by the emulator after the library's constructors have run.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static qemu_plugin_version: AtomicI32 = AtomicI32::new(1);

/// Version 2 took one function away and accepts no plugin of version 1; nothing used here differs.
extern "C" fn choose_version() {
    // SAFETY: a null library means the global scope, and the name ends in 0.
    let old = unsafe { dlsym(std::ptr::null_mut(), c"qemu_plugin_n_max_vcpus".as_ptr()) };
    if old.is_null() {
        qemu_plugin_version.store(2, Ordering::Relaxed);
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE_VERSION: extern "C" fn() = choose_version;

/// The beginning of the emulator's description of itself.
#[repr(C)]
struct Info {
    target_name: *const c_char,
}

/// What runs between start and end of the program.
struct Run {
    counter: Counter,
    out: PathBuf,
    /// True for instructions that [`Kind::of`] understands.
    is_riscv: bool,
}

static RUN: Mutex<Option<Run>> = Mutex::new(None);

fn with_run(work: impl FnOnce(&mut Run)) {
    // Counts are whole at every instant, so that poison says nothing.
    if let Some(run) = RUN.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        work(run);
    }
}

/// Called by the emulator once; not 0 ends it.
///
/// # Safety
/// `info` is null or the emulator's description, and `argv` holds `argc` strings.
#[unsafe(no_mangle)]
unsafe extern "C" fn qemu_plugin_install(id: u64, info: *const Info, argc: c_int, argv: *const *const c_char) -> c_int {
    let count = usize::try_from(argc).unwrap_or(0);
    // SAFETY: the emulator passes as many strings as it says.
    let arguments = (0..count).map(|i| unsafe { CStr::from_ptr(*argv.add(i)) }.to_string_lossy().into_owned());
    // SAFETY: where there is a description it begins with the target's name.
    let target = unsafe { info.as_ref().map(|info| CStr::from_ptr(info.target_name).to_string_lossy().into_owned()) };
    match start(arguments, target.is_some_and(|name| name.starts_with("riscv"))) {
        Ok(run) => with_new_run(id, run),
        Err(reason) => {
            eprintln!("tcc's instruction counter: {reason}");
            1
        }
    }
}

fn with_new_run(id: u64, run: Run) -> c_int {
    *RUN.lock().unwrap_or_else(PoisonError::into_inner) = Some(run);
    // SAFETY: `id` is the emulator's name for this plugin, and the callbacks have the types it expects.
    unsafe {
        qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
        qemu_plugin_register_atexit_cb(id, ended, std::ptr::null_mut());
    }
    0
}

fn start(arguments: impl Iterator<Item = String>, is_riscv: bool) -> Result<Run, String> {
    let (mut map, mut out) = (None, None);
    for argument in arguments {
        match argument.split_once('=') {
            Some(("map", file)) => {
                let text = std::fs::read_to_string(file).map_err(|error| format!("'{file}': {error}"))?;
                map = Some(Map::parse(&text)?);
            }
            Some(("out", file)) => out = Some(PathBuf::from(file)),
            _ => return Err(format!("'{argument}' is neither map=FILE nor out=FILE")),
        }
    }
    match (map, out) {
        (Some(map), Some(out)) => Ok(Run { counter: Counter::new(map), out, is_riscv }),
        _ => Err("map=FILE and out=FILE are needed".into()),
    }
}

extern "C" fn translated(_id: u64, block: *mut c_void) {
    with_run(|run| {
        // SAFETY: the emulator's block and its instructions are valid during this call.
        let (kinds, last) = unsafe { read_block(block, run.is_riscv) };
        let number = run.counter.add(last, &kinds);
        const NO_REGISTERS: c_int = 0;
        // SAFETY: as above; the data is a number, not an address.
        unsafe { qemu_plugin_register_vcpu_tb_exec_cb(block, executed, NO_REGISTERS, number as *mut c_void) };
    });
}

/// Kinds of the block's instructions and the address of the last.
///
/// # Safety
/// `block` is a block that the emulator is translating.
unsafe fn read_block(block: *const c_void, is_riscv: bool) -> (Vec<Kind>, u64) {
    // SAFETY: the caller vouches for the block, and indices are below its count.
    let instructions = || unsafe { (0..qemu_plugin_tb_n_insns(block)).map(|i| qemu_plugin_tb_get_insn(block, i)) };
    let kinds = instructions().map(|instruction| {
        // SAFETY: an instruction of the block.
        let (bytes, size) = unsafe { (qemu_plugin_insn_haddr(instruction), qemu_plugin_insn_size(instruction)) };
        match is_riscv && size == 4 && !bytes.is_null() {
            // SAFETY: the instruction's four bytes, which may be aligned to two.
            true => Kind::of(unsafe { bytes.cast::<u32>().read_unaligned() }),
            false => Kind::Scalar,
        }
    });
    // SAFETY: an instruction of the block.
    let last = instructions().next_back().map_or(0, |instruction| unsafe { qemu_plugin_insn_vaddr(instruction) });
    (kinds.collect(), last)
}

extern "C" fn executed(_cpu: c_uint, data: *mut c_void) {
    with_run(|run| run.counter.execute(data as usize));
}

extern "C" fn ended(_id: u64, _data: *mut c_void) {
    with_run(|run| {
        if let Err(error) = std::fs::write(&run.out, run.counter.lines()) {
            eprintln!("tcc's instruction counter: '{}': {error}", run.out.display());
        }
    });
}
