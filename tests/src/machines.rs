//! The machines that tests run code on: this host, and emulated cores of every ISA.

use tcc_backends::isa::Backend;
use tcc_ir::target::Features;

use crate::memory::Memory;
use crate::runner::{RunError, Runner, emulator_version};

/// A core that code may be run on.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Name of the target it executes.
    pub target: &'static str,
    pub name: &'static str,
    pub emulator_args: &'static [&'static str],
    /// Names of its features beyond the baseline; `None` where the core itself can be asked.
    pub features: Option<&'static [&'static str]>,
    /// Vector register bits where the target does not fix them, else 0.
    pub vlen: u32,
}

/// Every machine; tests use those of a target that have the features they need.
pub const MACHINES: &[Machine] = &[
    Machine { target: "x86_64", name: "host", emulator_args: &[], features: None, vlen: 0 },
    Machine {
        target: "aarch64",
        name: "cortex-a53",
        emulator_args: &["-cpu", "cortex-a53"],
        features: Some(&[]),
        vlen: 0,
    },
    Machine {
        target: "aarch64",
        name: "cortex-a76",
        emulator_args: &["-cpu", "cortex-a76"],
        features: Some(&["lse", "dotprod"]),
        vlen: 0,
    },
    Machine {
        target: "aarch64",
        name: "max without sve",
        emulator_args: &["-cpu", "max,sve=off"],
        features: Some(&["lse", "dotprod", "i8mm"]),
        vlen: 0,
    },
    Machine {
        target: "aarch64",
        name: "max, sve of 128 bits",
        emulator_args: &["-cpu", "max,sme=off,sve-max-vq=1"],
        features: Some(&["lse", "dotprod", "i8mm", "sve", "sve2"]),
        vlen: 0,
    },
    Machine {
        target: "aarch64",
        name: "max, sve of 256 bits",
        emulator_args: &["-cpu", "max,sme=off,sve-max-vq=2"],
        features: Some(&["lse", "dotprod", "i8mm", "sve", "sve2"]),
        vlen: 0,
    },
    Machine {
        target: "aarch64",
        name: "max, sve of 384 bits",
        emulator_args: &["-cpu", "max,sme=off,sve-max-vq=3"],
        features: Some(&["lse", "dotprod", "i8mm", "sve", "sve2"]),
        vlen: 0,
    },
    Machine {
        target: "aarch64",
        name: "max, sve of 2048 bits",
        emulator_args: &["-cpu", "max,sme=off,sve-max-vq=16"],
        features: Some(&["lse", "dotprod", "i8mm", "sve", "sve2"]),
        vlen: 0,
    },
    Machine {
        target: "aarch64",
        name: "max, streaming mode of 128 bits",
        emulator_args: &["-cpu", "max,sme_fa64=off,sve-max-vq=3,sme-default-vector-length=16"],
        features: Some(&["lse", "dotprod", "i8mm", "sve", "sve2", "sme"]),
        vlen: 0,
    },
    Machine {
        target: "aarch64",
        name: "max, streaming mode of 256 bits",
        emulator_args: &["-cpu", "max,sme_fa64=off,sve-max-vq=3,sme-default-vector-length=32"],
        features: Some(&["lse", "dotprod", "i8mm", "sve", "sve2", "sme"]),
        vlen: 0,
    },
    Machine {
        target: "aarch64",
        name: "max, streaming mode of 512 bits",
        emulator_args: &["-cpu", "max,sme_fa64=off,sve-max-vq=3,sme-default-vector-length=64"],
        features: Some(&["lse", "dotprod", "i8mm", "sve", "sve2", "sme"]),
        vlen: 0,
    },
    Machine {
        target: "aarch64",
        name: "max, streaming mode of 2048 bits",
        emulator_args: &["-cpu", "max,sme_fa64=off,sve-max-vq=3,sme-default-vector-length=256"],
        features: Some(&["lse", "dotprod", "i8mm", "sve", "sve2", "sme"]),
        vlen: 0,
    },
    Machine {
        target: "riscv64",
        name: "rv64gc",
        emulator_args: &["-cpu", "rv64,v=false,zba=false,zbb=false"],
        features: Some(&[]),
        vlen: 0,
    },
    Machine {
        target: "riscv64",
        name: "rv64gcv, 128 bits",
        emulator_args: &["-cpu", "rv64,v=true,vext_spec=v1.0,vlen=128"],
        features: Some(&["v"]),
        vlen: 128,
    },
    Machine {
        target: "riscv64",
        name: "spacemit-x60",
        emulator_args: &["-cpu", "rv64,v=true,vext_spec=v1.0,vlen=256,zba=true,zbb=true"],
        features: Some(&["v", "zba", "zbb"]),
        vlen: 256,
    },
    Machine {
        target: "riscv64",
        name: "rv64gcv, 512 bits",
        emulator_args: &["-cpu", "rv64,v=true,vext_spec=v1.0,vlen=512"],
        features: Some(&["v"]),
        vlen: 512,
    },
    Machine {
        target: "riscv64",
        name: "rv64gcv, 1024 bits",
        emulator_args: &["-cpu", "rv64,v=true,vext_spec=v1.0,vlen=1024"],
        features: Some(&["v"]),
        vlen: 1024,
    },
];

/// First known version of the emulator whose `smopa` multiplies the elements that it should; 7.2 does not.
const SME_EMULATOR: u32 = 10;

impl Machine {
    /// The features of this machine.
    pub fn features(&self, backend: &dyn Backend) -> Result<Features, RunError> {
        let desc = backend.desc();
        let Some(names) = self.features else {
            let runner = Runner::new(backend, desc.baseline, vec![backend.hwcap()])?;
            return Ok(Features(runner.start(self.emulator_args)?.call("hwcap", &[0, 0], &mut Memory::new())?));
        };
        if names.contains(&"sme") {
            let (found, least) = (emulator_version(self.target)?, SME_EMULATOR);
            if found < least {
                return Err(RunError::OldEmulator { emulator: format!("qemu-{}", self.target), found, least });
            }
        }
        let named = names.iter().map(|name| {
            let known = desc.features.iter().find(|f| f.name == *name);
            known.map(|f| f.bit).ok_or_else(|| RunError::Build(format!("'{}' has no feature '{name}'", desc.name)))
        });
        let set = named.collect::<Result<Vec<_>, _>>()?.into_iter().fold(desc.baseline, Features::with);
        Ok(desc.close(set))
    }

    /// What code is compiled for in turn: the machine's own features, and where the core itself was asked for those,
    /// the baseline and every named core that it can stand for. Other targets have machines for that.
    pub fn levels(&self, backend: &dyn Backend) -> Result<Vec<Features>, RunError> {
        let (desc, own) = (backend.desc(), self.features(backend)?);
        let mut levels = vec![own];
        if self.features.is_none() {
            let named = desc.cpus.iter().map(|cpu| desc.close(cpu.features.without(desc.tuning)));
            for level in named.chain([desc.baseline]) {
                if own.contains(level) && !levels.contains(&level) {
                    levels.push(level);
                }
            }
        }
        Ok(levels)
    }
}

/// What code for `backend` is tested with in turn: no tuning, and the target's own if it has some.
pub fn tunings(backend: &dyn Backend) -> Vec<Features> {
    let mut all = vec![Features::NONE, backend.desc().tuning];
    all.dedup();
    all
}

/// Reports why something did not run. Where the variable `CI` is set nothing may be skipped for want of a program.
pub fn report_skipped(what: &str, error: &RunError) {
    match error {
        RunError::NoEmulator { .. } => {
            assert!(std::env::var_os("CI").is_none(), "{what}: {error}");
            eprintln!("{what}: {error}");
        }
        RunError::OldEmulator { .. } => eprintln!("{what}: {error}"),
        RunError::Build(_) | RunError::Died { .. } | RunError::Clobbered { .. } | RunError::Io(_) => {
            panic!("{what}: {error}")
        }
    }
}
