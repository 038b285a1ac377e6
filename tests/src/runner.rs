//! Runs functions of any backend in a process of their own: natively where the ISA is the host's, else under
//! `qemu-<isa>`.
//!
//! ```text
//! let runner = Runner::new(backend, features, vec![function])?;
//! let mut process = runner.start(&["-cpu", "rv64,v=true,vlen=256"])?;
//! let mut memory = Memory::new();
//! let block = memory.place_words(&[1, 2, 3]);
//! let result = process.call("kernel_name", &[block], &mut memory)?;
//! ```

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use tcc_backends::code::Function;
use tcc_backends::isa::Backend;
use tcc_ir::target::Features;
use thiserror::Error;

use crate::exe::{self, MAX_ARGS};
use crate::memory::Memory;

/// Why code under test did not run, or did wrong while running.
#[derive(Debug, Error)]
pub enum RunError {
    /// The caller reports it; a run that must not skip turns it into a failure.
    #[error("skipped: {emulator} not found")]
    NoEmulator { emulator: String },
    #[error("skipped: {emulator} is version {found}, expected {least} or later")]
    OldEmulator { emulator: String, found: u32, least: u32 },
    #[error("cannot build the executable: {0}")]
    Build(String),
    #[error("'{function}' ended its process: {status}")]
    Died { function: String, status: String },
    #[error("'{function}' wrote outside its buffers at {address:#x}")]
    Clobbered { function: String, address: u64 },
    #[error("i/o: {0}")]
    Io(#[from] std::io::Error),
}

/// An executable that holds functions under test.
pub struct Runner {
    emulator: Option<String>,
    file: Rc<tempfile::TempPath>,
    addresses: BTreeMap<String, u64>,
}

impl Runner {
    /// Links `functions` (those under test and all they call) for cores with `features`.
    pub fn new(backend: &dyn Backend, features: Features, functions: Vec<Function>) -> Result<Runner, RunError> {
        Runner::with_memory(backend, features, functions, Memory::MAX_BYTES)
    }

    /// The same with images of at most `memory_bytes`, whole pages: an access behind them ends the process.
    pub fn with_memory(
        backend: &dyn Backend,
        features: Features,
        functions: Vec<Function>,
        memory_bytes: usize,
    ) -> Result<Runner, RunError> {
        let exe = exe::build(backend, features, functions, memory_bytes).map_err(RunError::Build)?;
        let mut file = tempfile::Builder::new().prefix("tcc-runner-").tempfile()?;
        file.write_all(&exe.elf)?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o700))?;
        let name = backend.desc().name;
        let emulator = (name != std::env::consts::ARCH).then(|| emulator(name));
        Ok(Runner { emulator, file: Rc::new(file.into_temp_path()), addresses: exe.addresses })
    }

    /// Starts a process; `emulator_args` go to the emulator, if one is needed.
    pub fn start(&self, emulator_args: &[&str]) -> Result<Process, RunError> {
        let mut command = match &self.emulator {
            None => Command::new(&**self.file),
            Some(emulator) => {
                let mut command = Command::new(emulator);
                command.args(emulator_args).arg(&**self.file);
                command
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        loop {
            match command.spawn() {
                Ok(child) => {
                    let (file, addresses) = (Rc::clone(&self.file), self.addresses.clone());
                    return Ok(Process { child, _file: file, addresses });
                }
                // Another test's fork may still hold the file open for writing, until it executes its own program.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let emulator = self.emulator.clone().ok_or(error)?;
                    return Err(RunError::NoEmulator { emulator });
                }
                Err(error) => return Err(RunError::Io(error)),
            }
        }
    }
}

/// The emulator of `target`: the one that `tests/newer-emulator.sh` leaves beside the system's, or the system's. The newer
/// one takes no plugins, so what counts instructions uses the system's.
fn emulator(target: &str) -> String {
    let newer = format!("qemu-{target}-newer");
    let has_newer =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(&newer).is_file()));
    if has_newer { newer } else { format!("qemu-{target}") }
}

/// Major version of the emulator of `target`.
pub fn emulator_version(target: &str) -> Result<u32, RunError> {
    let emulator = emulator(target);
    match Command::new(&emulator).arg("--version").output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let version = text.split_once("version ").and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok());
            version.ok_or_else(|| RunError::Build(format!("{emulator} --version says '{text}'")))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(RunError::NoEmulator { emulator }),
        Err(error) => Err(RunError::Io(error)),
    }
}

/// A running executable; ends when dropped.
pub struct Process {
    child: Child,
    /// Kept until the end: an emulator opens it some time after it has started.
    _file: Rc<tempfile::TempPath>,
    addresses: BTreeMap<String, u64>,
}

impl Process {
    /// Address of `function`, for code that is called through pointers.
    pub fn address(&self, function: &str) -> Result<u64, RunError> {
        self.addresses.get(function).copied().ok_or_else(|| RunError::Build(format!("no '{function}'")))
    }

    /// Calls `function` with up to six integer arguments on `memory`, which afterwards holds what the function left.
    /// The result is meaningless for functions without one.
    pub fn call(&mut self, function: &str, args: &[u64], memory: &mut Memory) -> Result<u64, RunError> {
        let bytes = memory.bytes().len();
        let result = self.exchange(function, args, 1, bytes, bytes, memory)?;
        match memory.clobbered() {
            Some(address) => Err(RunError::Clobbered { function: function.into(), address }),
            None => Ok(result),
        }
    }

    /// Sends `memory` and calls `function` once; the memory stays in the process for [`Process::repeat`].
    pub fn load(&mut self, function: &str, args: &[u64], memory: &mut Memory) -> Result<u64, RunError> {
        let bytes = memory.bytes().len();
        self.exchange(function, args, 1, bytes, 0, memory)
    }

    /// Calls `function` `times` times on the memory that is already there: for measuring time.
    pub fn repeat(&mut self, function: &str, args: &[u64], times: u64) -> Result<u64, RunError> {
        assert!(times > 0, "at least one call");
        self.exchange(function, args, times, 0, 0, &mut Memory::new())
    }

    fn exchange(
        &mut self,
        function: &str,
        args: &[u64],
        times: u64,
        in_bytes: usize,
        out_bytes: usize,
        memory: &mut Memory,
    ) -> Result<u64, RunError> {
        assert!(args.len() <= MAX_ARGS, "at most {MAX_ARGS} arguments");
        let address = self.address(function)?;
        let mut header = vec![address];
        header.extend_from_slice(args);
        header.resize(1 + MAX_ARGS, 0);
        header.extend_from_slice(&[times, in_bytes as u64, out_bytes as u64]);
        let request: Vec<u8> = header.iter().flat_map(|w| w.to_le_bytes()).collect();
        let stdin = self.child.stdin.as_mut().expect("piped");
        let sent = stdin.write_all(&request).and_then(|()| stdin.write_all(&memory.bytes()[..in_bytes]));
        let stdout = self.child.stdout.as_mut().expect("piped");
        let mut result = [0; 8];
        let got = sent
            .and_then(|()| stdout.read_exact(&mut result))
            .and_then(|()| stdout.read_exact(&mut memory.bytes_mut()[..out_bytes]));
        match got {
            Ok(()) => Ok(u64::from_le_bytes(result)),
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe) => {
                let status = self.child.wait()?.to_string();
                Err(RunError::Died { function: function.into(), status })
            }
            Err(error) => Err(RunError::Io(error)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The program exits when its input ends; a hung one is ended by force.
        drop(self.child.stdin.take());
        let ended = self.child.kill().and_then(|()| self.child.wait());
        drop(ended);
    }
}
