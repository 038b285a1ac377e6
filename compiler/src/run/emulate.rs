//! Runs compiled code of another instruction set: as an executable under a user-mode emulator.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::driver::{Back, Variant};
use crate::error::Error;
use crate::target::Target;

/// Name of the emulator of `target`.
pub fn program(target: &Target) -> String {
    format!("qemu-{}", target.machine.desc.name)
}

/// How to run an executable of `back`'s target: this machine itself, or an emulator with its arguments.
fn command(back: &Back, variant: &Variant, exe: &Path) -> Result<Command, Error> {
    if back.target.is_host_isa {
        return Ok(Command::new(exe));
    }
    let mut command = emulator(back, variant)?;
    command.arg(exe);
    Ok(command)
}

/// The emulator of `back`'s target with its arguments, before the executable's.
///
/// An emulated processor has the features that `variant` needs, so that what is missing is the code's mistake.
pub(super) fn emulator(back: &Back, variant: &Variant) -> Result<Command, Error> {
    let desc = back.target.machine.desc;
    let program = program(&back.target);
    let found = find(&program).ok_or_else(|| Error::NoEmulator { program: program.clone(), target: desc.name })?;
    let mut command = Command::new(found);
    if let Some(cpu) = back.target.backend.emulated_cpu(variant.plan.needs, back.target.machine.vlen) {
        command.args(["-cpu", &cpu]);
    }
    Ok(command)
}

/// The first file called `program` in the folders of `PATH`.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Logits of every token, `[tokens, vocab]`, by an executable written to `folder`, on a core for `variant`.
pub fn logits(
    back: &Back,
    variant: &Variant,
    weights: &Path,
    folder: &Path,
    tokens: &[u32],
    threads: u32,
) -> Result<Vec<f32>, Error> {
    let exe = folder.join("exe");
    back.write_executable(&exe, weights)?;
    let mut command = command(back, variant, &exe)?;
    command.arg("--logits").arg("--threads").arg(threads.to_string());
    command.args(tokens.iter().map(ToString::to_string));
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(Error::io("run", &program))?;
    let expected = 4 * tokens.len() * back.plan().facts.vocab;
    if !output.status.success() || output.stdout.len() != expected {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let ended = match output.status.success() {
            true => format!("{} bytes of logits, expected {expected}", output.stdout.len()),
            false => output.status.to_string(),
        };
        return Err(Error::Child { program, ended, stderr });
    }
    let floats = output.stdout.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("chunks of four")));
    Ok(floats.collect())
}
