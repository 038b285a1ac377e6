//! The rules as tables: layers, names that stay in their folder, words that are not used, sizes, exceptions.

/// Which crates of ours, or modules of them, a file may name; the first row whose prefix fits the path decides.
pub const LAYERS: &[(&str, &[&str])] = &[
    ("ir/", &["tcc_ir"]),
    ("backends/", &["tcc_backends", "tcc_ir", "tcc_runtime::abi"]),
    // `tcc run` and `tcc eval` call what they compiled.
    ("compiler/src/run/", &["tcc_ir", "tcc_backends", "tcc_runtime"]),
    ("compiler/src/cli/run.rs", &["tcc_ir", "tcc_runtime"]),
    ("compiler/src/cli/bench/", &["tcc_ir", "tcc_runtime"]),
    ("compiler/src/cli/mod.rs", &["tcc_runtime::pipe"]),
    ("compiler/src/cli/prepare.rs", &["tcc_ir", "tcc_backends", "tcc_runtime::host"]),
    // The mapping of files is the runtime's: the compiler forbids unsafe code.
    ("compiler/src/load/", &["tcc_ir", "tcc_runtime::map"]),
    ("compiler/src/inspect.rs", &["tcc_ir", "tcc_backends::image", "tcc_runtime::abi", "tcc_runtime::map"]),
    // What drives the backends, writes their code out, or shows it.
    ("compiler/src/driver.rs", &["tcc_ir", "tcc_backends", "tcc_runtime::abi"]),
    ("compiler/src/emit.rs", &["tcc_ir", "tcc_backends", "tcc_runtime::abi"]),
    ("compiler/src/golden.rs", &["tcc_ir", "tcc_backends", "tcc_runtime"]),
    ("compiler/src/error.rs", &["tcc_ir", "tcc_backends", "tcc_runtime::abi"]),
    ("compiler/src/object.rs", &["tcc_ir", "tcc_backends", "tcc_runtime::abi"]),
    ("compiler/src/header/", &["tcc_ir", "tcc_backends", "tcc_runtime::abi"]),
    ("compiler/src/exe.rs", &["tcc_ir", "tcc_backends", "tcc_runtime::abi"]),
    ("compiler/src/listing.rs", &["tcc_ir", "tcc_backends"]),
    ("compiler/src/target.rs", &["tcc_ir", "tcc_backends"]),
    ("compiler/src/matrix/", &["tcc_ir", "tcc_backends", "tcc_runtime::abi", "tcc_runtime::map"]),
    ("compiler/src/cli/", &["tcc_ir", "tcc_backends", "tcc_runtime::abi"]),
    ("compiler/src/main.rs", &["tcc"]),
    ("compiler/", &["tcc_ir"]),
    ("counter/", &["tcc_counter"]),
    ("runtime/", &["tcc_runtime"]),
    ("tests/", &["tcc", "tcc_ir", "tcc_backends", "tcc_runtime", "tcc_tests"]),
];

/// Manifest and the crates of ours it may depend on.
pub const MANIFESTS: &[(&str, &[&str])] = &[
    ("ir/Cargo.toml", &[]),
    ("backends/Cargo.toml", &["tcc-ir", "tcc-runtime"]),
    ("compiler/Cargo.toml", &["tcc-ir", "tcc-backends", "tcc-runtime"]),
    ("counter/Cargo.toml", &[]),
    ("runtime/Cargo.toml", &[]),
];

/// Crates that decide what comes out: their maths, maps and words are restricted.
pub const PURE: &[&str] = &["ir/src/", "backends/src/", "compiler/src/"];

/// Names of instruction sets. They stay in `backends/src/isa/<isa>/`.
pub const ISA_NAMES: &[&str] = &["x86", "aarch64", "arm64", "armv8", "riscv", "avx", "neon", "rvv"];

/// Where (files or folders) an instruction set may be named besides, and why.
pub const ISA_EXCEPTIONS: &[(&str, &str)] = &[
    ("backends/src/isa/mod.rs", "the table of backends"),
    ("backends/src/code.rs", "relocation kinds are named after the fields that their ISA defines"),
    ("backends/src/clif/link.rs", "maps the code generator's relocation kinds to ours"),
    ("backends/src/image.rs", "the two halves of a split displacement are relocated together"),
    ("compiler/src/cli/", "examples in help texts"),
    ("counter/src/", "counts vector instructions of the one instruction set that has register groups"),
    ("runtime/src/code.rs", "makes new code visible to the machine that the runtime was built for"),
    ("runtime/src/bandwidth.rs", "prefetches with the instruction of the machine that the runtime was built for"),
    ("runtime/src/host.rs", "asks the CPU that the runtime was built for what it has"),
    ("runtime/src/module.rs", "loads objects of the architecture that the runtime was built for"),
];

/// Names of model families. They stay in the front end.
pub const FAMILY_NAMES: &[&str] = &["bitnet", "llama", "minicpm", "bitcpm", "qwen", "falcon", "trilm"];

/// Where families are at home.
pub const FAMILY_HOMES: &[&str] = &["compiler/src/arch/", "compiler/src/load/", "tests/", "examples/"];

/// Token sequences that are not used, where (path prefixes; empty: everywhere), in tests too or not, and why.
pub struct Banned {
    pub tokens: &'static [&'static str],
    pub under: &'static [&'static str],
    pub in_tests: bool,
    pub why: &'static str,
}

const fn everywhere(tokens: &'static [&'static str], why: &'static str) -> Banned {
    Banned { tokens, under: &[], in_tests: true, why }
}

const fn maths(tokens: &'static [&'static str]) -> Banned {
    Banned { tokens, under: PURE, in_tests: false, why: "the host's mathematics differ: use libm" }
}

const fn effect(tokens: &'static [&'static str]) -> Banned {
    Banned {
        tokens,
        under: &["ir/src/", "backends/src/"],
        in_tests: false,
        why: "ir and backends touch no files, environment, clock, threads or standard output",
    }
}

pub const BANNED: &[Banned] = &[
    everywhere(&["todo", "!"], "a limit is an error with a test"),
    everywhere(&["unimplemented", "!"], "a limit is an error with a test"),
    everywhere(&["dbg", "!"], "left from debugging"),
    everywhere(&["#", "[", "ignore"], "a case that fails today asserts today's result"),
    everywhere(&["#", "[", "should_panic"], "wrong input gives an error"),
    Banned {
        tokens: &[".", "unwrap", "("],
        under: &[],
        in_tests: false,
        why: "expect(\"...\") states why it cannot fail",
    },
    Banned { tokens: &["HashMap"], under: PURE, in_tests: true, why: "its order reaches output: use BTreeMap" },
    Banned { tokens: &["HashSet"], under: PURE, in_tests: true, why: "its order reaches output: use BTreeSet" },
    Banned {
        tokens: &["unsafe"],
        under: &["ir/", "backends/", "compiler/"],
        in_tests: true,
        why: "unsafe lives in the runtime and the test runner",
    },
    maths(&[".", "sin", "(", ")"]),
    maths(&[".", "cos", "(", ")"]),
    maths(&[".", "tan", "(", ")"]),
    maths(&[".", "tanh", "(", ")"]),
    maths(&[".", "exp", "(", ")"]),
    maths(&[".", "exp2", "(", ")"]),
    maths(&[".", "ln", "(", ")"]),
    maths(&[".", "log2", "(", ")"]),
    maths(&[".", "log10", "(", ")"]),
    maths(&[".", "powf", "("]),
    maths(&[".", "powi", "("]),
    effect(&["std", ":", ":", "fs"]),
    effect(&["std", ":", ":", "env"]),
    effect(&["std", ":", ":", "io"]),
    effect(&["std", ":", ":", "net"]),
    effect(&["std", ":", ":", "process"]),
    effect(&["std", ":", ":", "thread"]),
    effect(&["std", ":", ":", "time"]),
    effect(&["println", "!"]),
    effect(&["eprintln", "!"]),
];

/// Lines of a file and of a function.
pub const FILE_LINES: usize = 600;
pub const FUNCTION_LINES: usize = 80;

/// Files that are longer, and why.
pub const LONG_FILES: &[(&str, &str)] = &[];

/// Functions that are longer (file, name), and why.
pub const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// Names that look like types of ours in documents but come from elsewhere.
pub const FOREIGN_NAMES: &[&str] = &[];
