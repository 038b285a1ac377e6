//! The C interface of generated objects, version 1.2: the only definition in Rust of its types, codes and names.
//!
//! The header beside each object declares the same types in C; the code generator takes field offsets from
//! [`offsets`]. Every target has 64-bit pointers and C's usual layout, so the offsets hold on all of them.
//!
//! **Invariant:** nothing here calls generated code.

use core::ffi::{c_char, c_int, c_void};
use core::fmt;

/// Objects and callers of different majors do not understand each other.
pub const ABI_MAJOR: u32 = 1;
/// Grows when functions, or members at the end of a size-prefixed struct, are added.
pub const ABI_MINOR: u32 = 2;

/// Section of an object that holds the weights blob.
pub const WEIGHTS_SECTION: &str = "tcc_weights";
/// Prefix of an object's text section; the model's name follows.
pub const TEXT_SECTION_PREFIX: &str = ".text.";

/// A status code of the interface; `0` is success. `int32_t` in C, so unknown codes of newer objects fit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
#[must_use]
pub struct Status(pub i32);

/// What a status code is called and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusText {
    pub status: Status,
    /// The C macro.
    pub name: &'static str,
    /// What `strerror` returns, and the comment in the header.
    pub sentence: &'static str,
}

macro_rules! statuses {
    ($($name:ident = $code:literal $macro:literal $sentence:literal;)*) => {
        impl Status {
            $(#[doc = $sentence] pub const $name: Status = Status($code);)*
        }

        /// Every status code, ascending from 0 without gaps.
        pub const STATUSES: &[StatusText] =
            &[$(StatusText { status: Status::$name, name: $macro, sentence: $sentence }),*];
    };
}

statuses! {
    OK = 0 "TCC_OK" "success";
    ARG = 1 "TCC_E_ARG" "an argument is NULL, zero or out of range";
    ABI = 2 "TCC_E_ABI" "a struct is of another ABI major, or too short";
    CPU = 3 "TCC_E_CPU" "this core lacks a feature the model was compiled for";
    ARENA_SIZE = 4 "TCC_E_ARENA_SIZE" "the arena is too small";
    ARENA_ALIGN = 5 "TCC_E_ARENA_ALIGN" "the arena is not aligned";
    WEIGHTS = 6 "TCC_E_WEIGHTS" "the weights are missing, misaligned, of wrong length or not those of this object";
    HASH = 7 "TCC_E_HASH" "the weights or the golden run differ from the build";
    CTX_FULL = 8 "TCC_E_CTX_FULL" "the context is full";
    TOKEN = 9 "TCC_E_TOKEN" "a token is outside the vocabulary";
    BUF = 10 "TCC_E_BUF" "the output buffer is too small";
    UTF8 = 11 "TCC_E_UTF8" "the text is not UTF-8";
    STATE = 12 "TCC_E_STATE" "the state was saved by another model or build family";
    STOPPED = 13 "TCC_E_STOPPED" "should_stop asked to stop";
    NONFINITE = 14 "TCC_E_NONFINITE" "an activation or a logit is not finite";
}

impl Status {
    /// `Ok` for [`Status::OK`], the status itself otherwise.
    pub fn check(self) -> Result<(), Status> {
        if self == Status::OK { Ok(()) } else { Err(self) }
    }

    /// Name and sentence; none for a code that this version does not know.
    pub fn text(self) -> Option<&'static StatusText> {
        STATUSES.get(usize::try_from(self.0).ok()?)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => write!(f, "{} ({})", text.sentence, text.name),
            None => write!(f, "unknown status {}", self.0),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text.name),
            None => write!(f, "Status({})", self.0),
        }
    }
}

impl core::error::Error for Status {}

/// `tcc_task`: one task of a `parallel_for`.
pub type Task = unsafe extern "C" fn(arg: *mut c_void, index: u32);
/// `parallel_for`: calls `task(arg, 0..n-1)`, each once; returns when all have returned.
pub type ParallelFor = unsafe extern "C" fn(user: *mut c_void, n: u32, task: Task, arg: *mut c_void);
/// `now`: any monotonic tick.
pub type Now = unsafe extern "C" fn(user: *mut c_void) -> u64;
/// `op_begin` and `op_end`, called by profiling builds only.
pub type OpMark = unsafe extern "C" fn(user: *mut c_void, op: u32);
/// `should_stop`: asked once a layer; not 0 stops the call.
pub type ShouldStop = unsafe extern "C" fn(user: *mut c_void) -> c_int;

/// `tcc_hooks`: what the caller offers. Members past `size` count as 0.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Hooks {
    /// Bytes of this struct.
    pub size: u32,
    /// Tasks run at once; 0 = 1.
    pub threads: u32,
    /// First argument of every hook.
    pub user: *mut c_void,
    pub parallel_for: Option<ParallelFor>,
    pub now: Option<Now>,
    pub op_begin: Option<OpMark>,
    pub op_end: Option<OpMark>,
    pub should_stop: Option<ShouldStop>,
    /// `TCC_CPU_*` bits; 0 = probe where the ISA lets user code probe. What a process asks its system for is never probed.
    pub cpu_features: u64,
    /// Vector register bits where they vary (riscv64 V); 0 = ask the core.
    pub vlen: u32,
}

impl Hooks {
    /// No hooks: one thread, features probed.
    pub const NONE: Hooks = Hooks {
        size: size_of::<Hooks>() as u32,
        threads: 0,
        user: core::ptr::null_mut(),
        parallel_for: None,
        now: None,
        op_begin: None,
        op_end: None,
        should_stop: None,
        cpu_features: 0,
        vlen: 0,
    };
}

/// `tcc_blob`: weights outside the object.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Blob {
    pub data: *const c_void,
    pub len: usize,
}

/// `tcc_sampler`: settings and generator of `sample`; `docs/sampling.md` says what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Sampler {
    /// Bytes of this struct.
    pub size: u32,
    /// Tokens kept; 1 = greedy, 0 = all.
    pub top_k: u32,
    /// Temperature · 65536; 0 = greedy.
    pub temperature_q16: u32,
    /// Share of the weight kept · 65536; 65536 = all.
    pub top_p_q16: u32,
    /// State of the generator, advanced in place; any value but `{0, 0}` unless greedy.
    pub rng: [u64; 2],
}

/// `tcc_head_stats`: what the head has read since `init`, as `head_stats` fills it in; `docs/head.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HeadStats {
    /// Bytes of this struct, set by the caller.
    pub size: u32,
    pub reserved: u32,
    /// Searches for the best tokens: each reads the high bits of every row.
    pub searches: u64,
    /// Rows whose low bits they read as well.
    pub rows_low: u64,
    /// Rows whose weights they read as well.
    pub rows_exact: u64,
    /// Rows of which every logit was computed, those of rejected guesses included; up to eight share a pass.
    pub full: u64,
}

impl HeadStats {
    /// What a caller hands to `head_stats`: `size` set, the rest zero.
    pub const EMPTY: HeadStats = HeadStats {
        size: size_of::<HeadStats>() as u32,
        reserved: 0,
        searches: 0,
        rows_low: 0,
        rows_exact: 0,
        full: 0,
    };
}

/// Bytes of a SHA-256.
pub type Sha256 = [u8; 32];

/// `tcc_info`: what a build is, as `info` fills it in.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Info {
    /// Bytes of this struct, set by the caller.
    pub size: u32,
    pub abi_major: u32,
    pub abi_minor: u32,
    pub flags: u32,
    pub name: *const c_char,
    pub target: *const c_char,
    pub cpu_features: *const c_char,
    pub tcc_version: *const c_char,
    pub licence: *const c_char,
    pub model_sha256: Sha256,
    pub weights_sha256: Sha256,
    pub build_sha256: Sha256,
    pub golden_sha256: Sha256,
    pub arena_bytes: u64,
    pub arena_align: u64,
    pub weights_bytes: u64,
    pub weights_align: u64,
    pub stack_bytes: u64,
    pub task_stack_bytes: u64,
    pub state_bytes: u64,
    pub vocab: u32,
    pub ctx: u32,
    pub prefill: u32,
    pub layers: u32,
    pub width: u32,
    pub op_count: u32,
    pub max_threads: u32,
    pub reserved: [u32; 9],
}

impl Info {
    /// What a caller hands to `info`: `size` set, the rest zero.
    pub const EMPTY: Info = Info {
        size: size_of::<Info>() as u32,
        abi_major: 0,
        abi_minor: 0,
        flags: 0,
        name: core::ptr::null(),
        target: core::ptr::null(),
        cpu_features: core::ptr::null(),
        tcc_version: core::ptr::null(),
        licence: core::ptr::null(),
        model_sha256: [0; 32],
        weights_sha256: [0; 32],
        build_sha256: [0; 32],
        golden_sha256: [0; 32],
        arena_bytes: 0,
        arena_align: 0,
        weights_bytes: 0,
        weights_align: 0,
        stack_bytes: 0,
        task_stack_bytes: 0,
        state_bytes: 0,
        vocab: 0,
        ctx: 0,
        prefill: 0,
        layers: 0,
        width: 0,
        op_count: 0,
        max_threads: 0,
        reserved: [0; 9],
    };
}

/// One model instance, at the start of its arena; opaque.
#[repr(C)]
pub struct Instance {
    opaque: [u8; 0],
}

macro_rules! functions {
    ($($(#[$doc:meta])* $suffix:ident: $ty:ty;)*) => {
        /// The functions of one object. Symbols are `NAME_` and the field's name.
        #[derive(Clone, Copy, Debug)]
        pub struct Functions {
            $($(#[$doc])* pub $suffix: $ty,)*
        }

        /// What the symbols of an object end in, in the header's order.
        pub const FUNCTIONS: &[&str] = &[$(stringify!($suffix)),*];

        impl Functions {
            /// The functions at the addresses that `resolve` gives for the names of [`FUNCTIONS`].
            ///
            /// # Safety
            /// Each address is that of the function of that name in an object of this ABI, mapped executable, and
            /// stays so as long as the result is used.
            pub unsafe fn resolve<E>(mut resolve: impl FnMut(&str) -> Result<*const c_void, E>) -> Result<Self, E> {
                $(let $suffix = resolve(stringify!($suffix))?;)*
                // SAFETY: the caller vouches for addresses and types; a pointer and a function pointer are one size.
                Ok(unsafe { Functions { $($suffix: core::mem::transmute::<*const c_void, $ty>($suffix)),* } })
            }
        }
    };
}

functions! {
    info: unsafe extern "C" fn(out: *mut Info) -> Status;
    strerror: unsafe extern "C" fn(status: Status) -> *const c_char;
    /// Label of an op, null past the last.
    op_name: unsafe extern "C" fn(op: u32) -> *const c_char;
    /// `weights` null = the blob in the object; `hooks` null = one thread.
    init: unsafe extern "C" fn(*mut c_void, usize, *const Blob, *const Hooks, *mut *mut Instance) -> Status;
    /// Names of the features of the code that `init` chose, null for what is no instance.
    variant: unsafe extern "C" fn(*const Instance) -> *const c_char;
    reset: unsafe extern "C" fn(*mut Instance);
    pos: unsafe extern "C" fn(*const Instance) -> u32;
    rewind: unsafe extern "C" fn(*mut Instance, pos: u32) -> Status;
    eval: unsafe extern "C" fn(*mut Instance, tokens: *const u32, n: usize) -> Status;
    /// Also the logits of every token, `out: f32[n, vocab]`.
    eval_all: unsafe extern "C" fn(*mut Instance, tokens: *const u32, n: usize, out: *mut f32) -> Status;
    /// The first token, then guesses; `kept` of them are what sampling chooses, and `next` follows.
    eval_draft: unsafe extern "C" fn(
        *mut Instance,
        tokens: *const u32,
        n: usize,
        *mut Sampler,
        kept: *mut usize,
        next: *mut u32,
    ) -> Status;
    logits: unsafe extern "C" fn(*mut Instance, out: *mut *const f32) -> Status;
    sample: unsafe extern "C" fn(*mut Instance, *mut Sampler, token: *mut u32) -> Status;
    /// What the head has read.
    head_stats: unsafe extern "C" fn(*const Instance, out: *mut HeadStats) -> Status;
    self_test: unsafe extern "C" fn(*mut c_void, usize, *const Blob, *const Hooks) -> Status;
}

/// Byte offsets of fields, for the code generator.
pub mod offsets {
    macro_rules! offsets {
        ($($module:ident $struct:ident { $($name:ident $field:ident),* })*) => {$(
            pub mod $module {
                use crate::abi::$struct;
                /// Bytes of the struct.
                pub const SIZE: usize = size_of::<$struct>();
                $(pub const $name: usize = core::mem::offset_of!($struct, $field);)*
            }
        )*};
    }

    offsets! {
        hooks Hooks {
            STRUCT_SIZE size, THREADS threads, USER user, PARALLEL_FOR parallel_for, NOW now, OP_BEGIN op_begin,
            OP_END op_end, SHOULD_STOP should_stop, CPU_FEATURES cpu_features, VLEN vlen
        }
        blob Blob { DATA data, LEN len }
        sampler Sampler {
            STRUCT_SIZE size, TOP_K top_k, TEMPERATURE_Q16 temperature_q16, TOP_P_Q16 top_p_q16, RNG rng
        }
        head_stats HeadStats {
            STRUCT_SIZE size, SEARCHES searches, ROWS_LOW rows_low, ROWS_EXACT rows_exact, FULL full
        }
        info Info {
            STRUCT_SIZE size, ABI_MAJOR abi_major, ABI_MINOR abi_minor, FLAGS flags, NAME name, TARGET target,
            CPU_FEATURES cpu_features, TCC_VERSION tcc_version, LICENCE licence, MODEL_SHA256 model_sha256,
            WEIGHTS_SHA256 weights_sha256, BUILD_SHA256 build_sha256, GOLDEN_SHA256 golden_sha256,
            ARENA_BYTES arena_bytes, ARENA_ALIGN arena_align, WEIGHTS_BYTES weights_bytes,
            WEIGHTS_ALIGN weights_align, STACK_BYTES stack_bytes, TASK_STACK_BYTES task_stack_bytes,
            STATE_BYTES state_bytes, VOCAB vocab, CTX ctx, PREFILL prefill, LAYERS layers, WIDTH width,
            OP_COUNT op_count, MAX_THREADS max_threads
        }
    }
}

// The layouts as C compilers of all targets see them (LP64), whatever this host is.
const _: () = {
    assert!(offsets::hooks::SIZE == 72 && offsets::hooks::PARALLEL_FOR == 16 && offsets::hooks::VLEN == 64);
    assert!(offsets::head_stats::SIZE == 40 && offsets::head_stats::SEARCHES == 8);
    assert!(offsets::blob::SIZE == 16 && offsets::sampler::SIZE == 32 && offsets::sampler::RNG == 16);
    assert!(offsets::info::NAME == 16 && offsets::info::MODEL_SHA256 == 56 && offsets::info::ARENA_BYTES == 184);
    assert!(offsets::info::VOCAB == 240 && offsets::info::SIZE == 304);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_indices_of_the_table() {
        for (i, text) in STATUSES.iter().enumerate() {
            assert_eq!(text.status.0 as usize, i);
            assert_eq!(text.status.text(), Some(text));
        }
        assert_eq!([Status(-1).text(), Status(STATUSES.len() as i32).text()], [None, None]);
    }

    #[test]
    fn statuses_say_their_name() {
        assert_eq!(Status::CTX_FULL.to_string(), "the context is full (TCC_E_CTX_FULL)");
        assert_eq!(Status(99).to_string(), "unknown status 99");
        assert_eq!((Status::OK.check(), Status::ARG.check()), (Ok(()), Err(Status::ARG)));
    }

    #[test]
    fn functions_are_in_header_order() {
        assert_eq!(FUNCTIONS.first(), Some(&"info"));
        assert_eq!(FUNCTIONS.last(), Some(&"self_test"));
    }
}
