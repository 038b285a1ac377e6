//! Target strings of the command line: a short name or a full triple, a CPU, and feature changes.

use target_lexicon::Triple;
use tcc_backends::isa::{BACKENDS, Backend, backend, matrix};
use tcc_ir::target::{Features, TargetDesc};
use thiserror::Error;

use crate::profile::{Profile, ProfileError};
use crate::schedule::Machine;

/// What the user asked for with `-t`, `--cpu`, `--features` and `--vlen`.
#[derive(Clone, Debug, Default)]
pub struct TargetRequest {
    /// `host`, a short name, or a triple; `None` means host.
    pub target: Option<String>,
    pub cpu: Option<String>,
    /// `+a,-b`.
    pub features: Option<String>,
    /// Variants of one object: `baseline`, features and CPUs, joined by `+`; empty = one.
    pub variants: Vec<String>,
    /// Vector register bits of a machine with vectors of unknown length, 0 = any.
    pub vlen: u32,
    /// Of this machine's features take those, too, that a system grants to processes that ask: for code that the asking
    /// process runs.
    pub takes_granted: bool,
}

/// A machine to compile for.
#[derive(Clone)]
pub struct Target {
    /// As stated in the header (`aarch64-none-elf`).
    pub triple: String,
    pub backend: &'static dyn Backend,
    /// Its features are those that every variant has.
    pub machine: Machine,
    /// Names and features of the variants of an object that has several.
    variants: Vec<(String, Features)>,
    /// The measured rates in the machine's description, if they were given.
    pub profile: Option<Profile>,
    /// True if this machine has the target's instruction set.
    pub is_host_isa: bool,
    /// True if this machine has every feature of the target, or of one of its variants, too: it can run the code itself.
    pub runs_here: bool,
}

impl Target {
    /// The same machine with the measured rates of `profile`.
    ///
    /// Errors: a profile of another target, without one of its features, or with names that it does not have.
    pub fn with_profile(self, profile: Profile) -> Result<Target, ProfileError> {
        let features = self.machines().iter().fold(Features::NONE, |all, (_, machine)| all.with(machine.features));
        let machine = Machine { desc: profile.apply(self.machine.desc, features)?, ..self.machine };
        Ok(Target { machine, profile: Some(profile), ..self })
    }

    /// The machines that an object is for, in the order they were asked for, and the name of the code for each.
    pub fn machines(&self) -> Vec<(String, Machine)> {
        if self.variants.is_empty() {
            return vec![(self.machine.desc.feature_names(self.machine.features), self.machine)];
        }
        let variants = self.variants.iter();
        variants.map(|(name, features)| (name.clone(), Machine { features: *features, ..self.machine })).collect()
    }

    /// True if the machine has vectors whose length its features do not fix.
    pub fn has_open_vlen(&self) -> bool {
        self.backend.vlen().is_some() && self.backend.has_vectors(self.machine.features)
    }
}

/// The target string means nothing to us.
#[derive(Debug, Error)]
pub enum TargetError {
    #[error("target '{found}' is not known")]
    Unknown { found: String, known: String },
    #[error("target '{found}' is {problem}")]
    Unusable { found: String, problem: &'static str, known: String },
    #[error("target '{found}' is a matrix unit, which this command does not know")]
    Simulated { found: &'static str },
    #[error("CPU '{found}' is not known on target '{target}'")]
    Cpu { found: String, target: &'static str, known: String },
    #[error("CPU feature '{found}' is not known on target '{target}'")]
    Feature { found: String, target: &'static str, known: String },
    #[error("feature change '{found}' does not begin with '+' or '-'")]
    Sign { found: String },
    #[error("feature '{feature}' cannot be removed: every object of target '{target}' needs it")]
    Baseline { feature: String, target: &'static str },
    #[error(
        "variant '{found}' of target '{target}' is neither 'baseline', nor a feature or CPU, nor several joined by '+'"
    )]
    Variant { found: String, target: &'static str, known: String },
    #[error("variants '{first}' and '{second}' are both for cores with {features}")]
    SameVariant { first: String, second: String, features: String },
    #[error("no backend for this machine's instruction set '{found}'")]
    NoHost { found: &'static str, known: String },
}

impl TargetError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            TargetError::Unknown { known, .. }
            | TargetError::Unusable { known, .. }
            | TargetError::Cpu { known, .. }
            | TargetError::Feature { known, .. }
            | TargetError::NoHost { known, .. } => format!("known: {known}; `tcc targets` lists everything"),
            TargetError::Simulated { found } => {
                format!(
                    "try `tcc compile MODEL -t {found} --machine NAME`; eval, bench and inspect know it, too, and `tcc \
                     compare MODEL --targets {found}:NAME`"
                )
            }
            TargetError::Sign { .. } => "write --features +a,-b".into(),
            TargetError::Variant { known, .. } => format!("features: {known}; `tcc targets` lists CPUs"),
            TargetError::SameVariant { .. } => "leave one of them out".into(),
            TargetError::Baseline { .. } => "`tcc targets` shows the baseline of each target".into(),
        }
    }
}

/// Resolves a request. `host_features` names the features of this machine; `host` means them, and they tell what can
/// run here.
pub fn resolve(request: &TargetRequest, host_features: impl Fn() -> Vec<&'static str>) -> Result<Target, TargetError> {
    let name = request.target.as_deref().unwrap_or("host");
    let is_host = name == "host";
    let (backend, triple) = if is_host { host()? } else { parse(name)? };
    let desc = backend.desc();
    let of_host = || {
        let all = named(desc, &host_features());
        if request.takes_granted { all } else { all.without(desc.granted) }
    };
    let mut features = match &request.cpu {
        Some(cpu) if cpu == "host" => of_host(),
        Some(cpu) => cpu_features(desc, cpu)?,
        // Variants say what they add, and to be carried elsewhere they start from every machine's features.
        None if is_host && request.variants.is_empty() => of_host(),
        None => desc.baseline,
    };
    features = change(desc, desc.close(features.with(desc.baseline)), request.features.as_deref().unwrap_or(""))?;
    let machine = Machine { desc, features, vlen: request.vlen };
    let variants = variants(&machine, &request.variants)?;
    let is_host_isa = desc.name == std::env::consts::ARCH;
    let here = desc.close(desc.baseline.with(named(desc, &host_features())).with(desc.tuning));
    let has_one = variants.is_empty() && here.contains(features) || variants.iter().any(|v| here.contains(v.1));
    Ok(Target { triple, backend, machine, variants, profile: None, is_host_isa, runs_here: is_host_isa && has_one })
}

/// Features of the variants called `names`.
fn variants(machine: &Machine, names: &[String]) -> Result<Vec<(String, Features)>, TargetError> {
    let mut variants: Vec<(String, Features)> = Vec::new();
    for name in names {
        let desc = machine.desc;
        let parts = name.split('+').map(|part| variant_part(desc, part));
        let features = parts.collect::<Option<Vec<_>>>().ok_or_else(|| TargetError::Variant {
            found: name.clone(),
            target: desc.name,
            known: desc.features.iter().map(|f| f.name).collect::<Vec<_>>().join(", "),
        })?;
        let features = desc.close(features.into_iter().fold(machine.features, Features::with));
        if let Some((other, _)) =
            variants.iter().find(|(_, known)| known.without(desc.tuning) == features.without(desc.tuning))
        {
            let features = desc.feature_names(features);
            return Err(TargetError::SameVariant { first: other.clone(), second: name.clone(), features });
        }
        variants.push((name.clone(), features));
    }
    Ok(variants)
}

/// Features of one part of a variant's name; a CPU's name may leave out the target's: `v3` is `x86-64-v3`.
fn variant_part(desc: &'static TargetDesc, part: &str) -> Option<Features> {
    let whole = format!("{}-{part}", desc.name.replace('_', "-"));
    let feature = desc.features.iter().find(|f| f.name == part).map(|f| f.bit);
    let cpu = desc.cpus.iter().find(|c| c.name == part || c.name == whole).map(|c| c.features);
    let baseline = (part == "baseline").then_some(desc.baseline);
    baseline.or(feature).or(cpu)
}

fn known_targets() -> String {
    let names: Vec<_> = BACKENDS.iter().map(|b| b.desc().name).collect();
    format!("host, {}", names.join(", "))
}

fn host() -> Result<(&'static dyn Backend, String), TargetError> {
    let arch = std::env::consts::ARCH;
    let found = backend(arch).ok_or_else(|| TargetError::NoHost { found: arch, known: known_targets() })?;
    Ok((found, Triple::host().to_string()))
}

/// A short name means the ISA without an operating system.
fn parse(name: &str) -> Result<(&'static dyn Backend, String), TargetError> {
    let short = name.replace('-', "_");
    if let Some(found) = backend(&short) {
        return Ok((found, format!("{short}-unknown-none-elf")));
    }
    if short == matrix::desc::NAME {
        return Err(TargetError::Simulated { found: matrix::desc::NAME });
    }
    let unknown = || TargetError::Unknown { found: name.into(), known: known_targets() };
    let triple: Triple = name.parse().map_err(|_| unknown())?;
    let isa = triple.architecture.to_string();
    let found = BACKENDS.iter().find(|b| isa == b.desc().name || isa.starts_with(&format!("{}gc", b.desc().name)));
    let unusable = |problem| TargetError::Unusable { found: name.into(), problem, known: known_targets() };
    match triple.binary_format {
        target_lexicon::BinaryFormat::Elf | target_lexicon::BinaryFormat::Unknown => {}
        _ => return Err(unusable("not an ELF target; only ELF objects can be written")),
    }
    Ok((*found.ok_or_else(unknown)?, name.to_owned()))
}

/// Features with the given names; names the target does not know are not its features.
fn named(desc: &TargetDesc, names: &[&str]) -> Features {
    desc.features.iter().filter(|f| names.contains(&f.name)).fold(Features::NONE, |set, f| set.with(f.bit))
}

fn cpu_features(desc: &'static TargetDesc, cpu: &str) -> Result<Features, TargetError> {
    let known = || desc.cpus.iter().map(|c| c.name).collect::<Vec<_>>().join(", ");
    let found = desc.cpus.iter().find(|c| c.name == cpu).map(|c| c.features);
    found.ok_or_else(|| TargetError::Cpu { found: cpu.into(), target: desc.name, known: known() })
}

/// Applies `+a,-b` to `features`; what depends on a removed feature goes with it.
fn change(desc: &'static TargetDesc, mut features: Features, changes: &str) -> Result<Features, TargetError> {
    for item in changes.split(',').map(str::trim).filter(|s| !s.is_empty()) {
        let (add, name) = match (item.strip_prefix('+'), item.strip_prefix('-')) {
            (Some(name), _) => (true, name),
            (_, Some(name)) => (false, name),
            _ => return Err(TargetError::Sign { found: item.into() }),
        };
        let feature = desc.features.iter().find(|f| f.name == name).ok_or_else(|| TargetError::Feature {
            found: name.into(),
            target: desc.name,
            known: desc.features.iter().map(|f| f.name).collect::<Vec<_>>().join(", "),
        })?;
        if add {
            features = desc.close(features.with(feature.bit));
        } else if desc.baseline.contains(feature.bit) {
            return Err(TargetError::Baseline { feature: name.into(), target: desc.name });
        } else {
            let dependent = desc.features.iter().filter(|f| desc.close(f.bit).contains(feature.bit));
            features = dependent.fold(features, |set, f| set.without(f.bit));
        }
    }
    Ok(features)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuning_is_no_requirement() {
        for desc in BACKENDS.iter().map(|backend| backend.desc()) {
            for feature in desc.features.iter().filter(|feature| desc.tuning.contains(feature.bit)) {
                let target = Some(desc.name.to_owned());
                let features = Some(format!("+{}", feature.name));
                let request = TargetRequest { target: target.clone(), features, ..TargetRequest::default() };
                let found = resolve(&request, Vec::new).map(|target| (target.machine.features, target.runs_here));
                let is_here = desc.name == std::env::consts::ARCH;
                assert_eq!(found.ok(), Some((desc.baseline.with(feature.bit), is_here)));
                let variants = ["baseline", feature.name].map(String::from).to_vec();
                let refused = resolve(&TargetRequest { target, variants, ..TargetRequest::default() }, Vec::new).err();
                assert!(matches!(refused, Some(TargetError::SameVariant { .. })), "{refused:?}");
            }
        }
    }

    #[test]
    fn granted_features_are_for_the_process_that_asked() {
        for desc in BACKENDS.iter().map(|backend| backend.desc()).filter(|desc| desc.name == std::env::consts::ARCH) {
            let names = || desc.features.iter().map(|feature| feature.name).collect();
            let features = |takes_granted, cpu: Option<&str>| {
                let request = TargetRequest { takes_granted, cpu: cpu.map(str::to_owned), ..TargetRequest::default() };
                resolve(&request, names).expect("the host is a target").machine.features
            };
            let all = desc.features.iter().fold(Features::NONE, |set, feature| set.with(feature.bit));
            for cpu in [None, Some("host")] {
                assert_eq!(features(true, cpu), all);
                assert_eq!(features(false, cpu), all.without(desc.granted));
            }
        }
    }
}
