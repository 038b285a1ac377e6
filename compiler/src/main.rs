//! The `tcc` binary.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    tcc::cli::main()
}
