//! What commands have in common before they differ: opened models, resolved targets, names.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::parse::{MachineError, parse};
use tcc_backends::isa::matrix::machine::preset::PRESETS;
use tcc_ir::coded::RowCode;
use tcc_ir::encoding::{ENCODINGS, Encoding};
use tcc_ir::target::Features;
use tcc_ir::ty::DType;
use tcc_runtime::host;

use super::Cx;
use super::args::{ActivationsArg, Dense, Head, Kv, MachineArgs, MatrixArgs, ModelArgs, RateArgs};
use crate::arch::BuildOptions;
use crate::driver::{self, Back, Front, Variant};
use crate::error::Error;
use crate::load::{self, DensePolicy, LoadOptions};
use crate::matrix::MatrixOptions;
use crate::matrix::tiles;
use crate::model::{Activations, Model};
use crate::output::{self, Mode};
use crate::plan::{HEAD_ROWS, HeadChoice, PlanOptions};
use crate::profile::{Profile, ProfileError};
use crate::run::tune;
use crate::target::{self, Target, TargetRequest};

/// Opens and checks the model, saying its warnings.
pub fn open(cx: &Cx, args: &ModelArgs) -> Result<Model, Error> {
    let dense = match args.dense {
        Dense::Refuse => DensePolicy::Refuse,
        Dense::Keep => DensePolicy::Keep,
    };
    let activations = args.activations.map(|a| match a {
        ActivationsArg::Int8 => Activations::Int8,
        ActivationsArg::Float => Activations::Float,
    });
    let model = load::open(&args.model, &LoadOptions { dense, activations })?;
    if !cx.quiet {
        model.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    }
    Ok(model)
}

/// The builder's options from the arguments.
pub fn build_options(args: &ModelArgs) -> BuildOptions {
    let kv = match args.kv {
        Kv::F32 => DType::F32,
        Kv::F16 => DType::F16,
        Kv::Int8 => DType::Q8,
    };
    let head = match args.head {
        Head::Auto | Head::Screened | Head::Exact => None,
        Head::Int8 => Some(RowCode::Int8),
        Head::Int4 => Some(RowCode::Int4),
    };
    BuildOptions { ctx: args.ctx, prefill: args.prefill, kv, head }
}

/// The optimized program of an opened model.
pub fn front<'m>(model: &'m Model, args: &ModelArgs) -> Result<Front<'m>, Error> {
    driver::front(model, &build_options(args), None, |_, _| {})
}

/// The machine of `-t name` (host if `None`) with the CPU arguments, for objects that anybody may run.
pub fn target(name: Option<&str>, machine: &MachineArgs) -> Result<Target, Error> {
    resolve(name, machine, false)
}

/// The same for code that this process runs itself, with what the system grants it.
pub fn own_target(name: Option<&str>, machine: &MachineArgs) -> Result<Target, Error> {
    resolve(name, machine, true)
}

fn resolve(name: Option<&str>, machine: &MachineArgs, takes_granted: bool) -> Result<Target, Error> {
    let request = TargetRequest {
        target: name.map(str::to_owned),
        cpu: machine.cpu.clone(),
        features: machine.features.clone(),
        variants: machine.variants.clone(),
        vlen: machine.vlen,
        takes_granted,
    };
    let target = target::resolve(&request, host::features)?;
    let Some(path) = &machine.profile else { return Ok(target) };
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let is_host = matches!(name, None | Some("host"));
    let here = |profile: Profile| match tune::cpu_name() {
        cpu if is_host && cpu != profile.cpu => Err(ProfileError::Cpu { found: profile.cpu, expected: cpu }),
        _ => Ok(profile),
    };
    let profile = Profile::parse(&text).and_then(here).and_then(|profile| target.with_profile(profile));
    profile.map_err(|source| Error::Profile { path: path.clone(), source })
}

/// What this machine can run: its own features, and code tuned for any core.
fn here() -> Result<Features, Error> {
    let machine = own_target(None, &MachineArgs::default())?.machine;
    Ok(machine.features.with(machine.desc.tuning))
}

/// Names of those features of `target` among `needs` that this machine, of its instruction set, lacks.
pub fn missing_here(target: &Target, needs: Features) -> Result<String, Error> {
    Ok(target.machine.desc.feature_names(needs.without(here()?)))
}

/// The variant of `back` called `forced`; else the one that `init` chooses on this machine, or the first for code that
/// is emulated. Code that this machine would have to run and cannot is refused.
pub fn variant<'b>(back: &'b Back, forced: Option<&str>) -> Result<&'b Variant, Error> {
    if !back.target.is_host_isa {
        return forced.map_or(Ok(&back.variants[0]), |name| back.variant(name));
    }
    let Some(name) = forced else {
        let here = here()?;
        return Ok(back.variants.iter().find(|v| here.contains(v.plan.needs)).unwrap_or(&back.variants[0]));
    };
    let variant = back.variant(name)?;
    let missing = missing_here(&back.target, variant.plan.needs)?;
    if missing.is_empty() {
        return Ok(variant);
    }
    let message = format!("this machine lacks {missing}, which variant '{name}' needs");
    Err(Error::usage(message, "leave out --variant, or name one that fits"))
}

/// Refuses tokens outside the vocabulary and more of them than the context holds.
pub fn check_ids((vocab, ctx): (usize, usize), ids: &[u32]) -> Result<(), Error> {
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
        let help = format!("give ids from 0 to {}", vocab - 1);
        return Err(Error::usage(format!("token {id} is outside the vocabulary of {vocab}"), help));
    }
    if ids.len() > ctx {
        let message = format!("{} tokens do not fit the context of {ctx}", ids.len());
        return Err(Error::usage(message, "give fewer ids, or a larger --ctx"));
    }
    Ok(())
}

/// The encoding called `name`; a family's name is enough where the family has one member.
fn encoding(name: &str) -> Result<Encoding, Error> {
    let whole = ENCODINGS.iter().copied().find(|e| e.to_string() == name);
    let family: Vec<_> = ENCODINGS.iter().copied().filter(|e| e.family() == name).collect();
    match (whole, &family[..]) {
        (Some(encoding), _) => Ok(encoding),
        (None, [encoding]) => Ok(*encoding),
        (None, _) => {
            let known: Vec<_> = ENCODINGS.iter().map(ToString::to_string).collect();
            Err(Error::usage(format!("encoding '{name}' is not known"), format!("known: {}", known.join(", "))))
        }
    }
}

/// The matrix unit of the arguments.
pub fn matrix_machine(args: &MatrixArgs) -> Result<Machine, Error> {
    match args.machine.as_deref() {
        Some(given) => machine(given, &args.rates),
        None => Err(Error::usage("which matrix unit is meant is not said", format!("give --machine {}", machines()))),
    }
}

/// What a matrix unit may be called.
pub fn machines() -> String {
    let names: Vec<_> = PRESETS.iter().map(|(name, _)| *name).collect();
    format!("a file or one of {}", names.join(", "))
}

/// The matrix unit `given`: a preset, or the path of a machine file, with the user's rates.
pub fn machine(given: &str, rates: &RateArgs) -> Result<Machine, Error> {
    let (text, name) = match PRESETS.iter().find(|(name, _)| *name == given) {
        Some((name, text)) => ((*text).to_owned(), *name),
        None if Path::new(given).exists() => (std::fs::read_to_string(given).map_err(Error::io("read", given))?, given),
        None => {
            let message = format!("machine '{given}' is neither a preset nor a file");
            return Err(Error::usage(message, format!("give {}", machines())));
        }
    };
    let broken = |error: MachineError| {
        Error::usage(format!("machine '{name}': {error}"), "docs/matrix.md has the format of machine files")
    };
    let mut machine = parse(&text).map_err(broken)?;
    if let Some(costs) = &rates.costs {
        machine.vector.costs.clone_from(costs);
    }
    let clock = rates.clock.map(|hz| hz / 1e9);
    let clock_ghz = clock.or(machine.clock_ghz.map(|c| c.value));
    let rate = match (rates.gm_rate, clock_ghz) {
        (None, _) => None,
        (Some(rate), Some(ghz)) => Some(rate / (ghz * 1e9)),
        (Some(_), None) => {
            let message = format!("the clock of machine '{name}' is not published: bytes per second say nothing");
            return Err(Error::usage(message, "give --clock HZ as well"));
        }
    };
    machine.with_user_rates(clock, rate).map_err(broken)
}

/// What the user decided about a matrix unit's programs.
///
/// Errors: arguments that are for CPUs.
pub fn matrix_options(machine: &MachineArgs, args: &MatrixArgs) -> Result<MatrixOptions, Error> {
    no_cpu(machine)?;
    let encoding = forced_encoding(machine)?;
    let Some(path) = &args.tiles else { return Ok(MatrixOptions { encoding, tiles: vec![] }) };
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let tiles = tiles::parse(&text).map_err(|source| Error::Tiles { path: path.clone(), source })?;
    Ok(MatrixOptions { encoding, tiles })
}

/// True if the file begins as ELF files do.
pub fn is_elf(path: &Path) -> bool {
    begins_with(path, b"\x7fELF")
}

/// True if `path` is a file with these first bytes.
pub fn begins_with(path: &Path, magic: &[u8]) -> bool {
    let mut first = vec![0; magic.len()];
    File::open(path).and_then(|mut f| f.read_exact(&mut first)).is_ok() && first == magic
}

/// Fails where arguments about a matrix unit are given and the target is a CPU.
pub fn no_matrix_unit(args: &MatrixArgs) -> Result<(), Error> {
    match args.is_given() {
        false => Ok(()),
        true => Err(Error::usage(
            "--machine, --clock, --gm-rate, --costs and --tiles are for a matrix unit, and the target is none",
            "give -t ascend, or leave them out",
        )),
    }
}

/// Fails where arguments about a CPU are given and the target is a matrix unit.
pub fn no_cpu(args: &MachineArgs) -> Result<(), Error> {
    match args.is_for_cpu() {
        false => Ok(()),
        true => Err(Error::usage(
            "--cpu, --features, --variants, --vlen and --profile are for CPUs, and the target is a matrix unit",
            "leave them out; --machine, --clock, --gm-rate and --costs say what a matrix unit is like",
        )),
    }
}

/// Fails where arguments that decide about a matrix unit are given for an object, which has it decided.
pub fn nothing_to_decide(machine: &MachineArgs, args: &MatrixArgs) -> Result<(), Error> {
    no_cpu(machine)?;
    match args.is_given() || machine.encoding.is_some() {
        false => Ok(()),
        true => Err(Error::usage(
            "an object's machine, encoding and tiles are decided",
            "leave out --machine, --clock, --gm-rate, --costs, --encoding and --tiles, or give them to `tcc compile`",
        )),
    }
}

fn forced_encoding(machine: &MachineArgs) -> Result<Option<Encoding>, Error> {
    machine.encoding.as_deref().map(encoding).transpose()
}

/// The planner's options from the arguments.
pub fn plan_options(model: &ModelArgs, machine: &MachineArgs, max_threads: u32) -> Result<PlanOptions, Error> {
    let encoding = forced_encoding(machine)?;
    if !(1..=256).contains(&max_threads) {
        return Err(Error::usage(format!("{max_threads} threads were asked for"), "give 1 to 256"));
    }
    let head = match model.head {
        Head::Auto => HeadChoice::Auto,
        Head::Screened => HeadChoice::Screened,
        Head::Exact | Head::Int8 | Head::Int4 => HeadChoice::Exact,
    };
    let state_bytes = crate::emit::state_bytes(max_threads);
    Ok(PlanOptions { max_threads, joins: max_threads > 1, encoding, head, head_rows: HEAD_ROWS, state_bytes })
}

/// The C prefix of a model: `given`, or made from the name of the folder that holds it.
pub fn model_name(given: Option<&str>, model: &Model) -> Result<String, Error> {
    if let Some(name) = given {
        let valid = is_identifier(name);
        let message = || format!("'{name}' is not a C identifier");
        return if valid {
            Ok(name.to_owned())
        } else {
            Err(Error::usage(message(), "give -n NAME of letters, digits and _"))
        };
    }
    let folder = std::fs::canonicalize(model.folder()).unwrap_or_else(|_| model.folder().to_owned());
    let stem = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, 'm');
    }
    if is_identifier(&name) && name != "model" {
        Ok(name)
    } else {
        let help = "give one with -n NAME";
        Err(Error::usage(format!("the folder '{}' gives no name for the model", folder.display()), help))
    }
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Writes all of a file, or nothing.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    output::write_whole(path, Mode::Data, |out| out.write_all(bytes)).map_err(Error::io("written", path))
}

/// Creates `folder` and what is above it.
pub fn create_folder(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(Error::io("created", folder))
}
