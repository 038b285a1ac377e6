//! Measured rates of one machine: `tcc tune` writes them, `--profile` reads them, and the scheduler uses them instead
//! of the estimates in the target's description. Without a profile nothing is measured and nothing changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tcc_ir::target::{Memory, MicroKernel, TargetDesc};
use thiserror::Error;

/// Version of the file's layout.
pub const VERSION: u32 = 1;

/// A profile as its file holds it: names in order, no dates, no paths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// [`VERSION`].
    pub tcc_profile: u32,
    /// Short name of the target, as in its description.
    pub target: String,
    /// The processor's own name; for people.
    pub cpu: String,
    /// Read bandwidth of one core by memory; those left out stay as described.
    pub bytes_per_cycle: BTreeMap<String, f32>,
    /// Rate by menu row, fed from the nearest memory; those left out stay as described.
    pub macs_per_cycle: BTreeMap<String, f32>,
}

/// Why a profile cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProfileError {
    #[error("the profile is not one: {reason}")]
    Syntax { reason: String },
    #[error("the profile has version {found}, expected {VERSION}")]
    Version { found: u32 },
    #[error("the profile is of target '{found}', expected '{expected}'")]
    Target { found: String, expected: &'static str },
    #[error("the profile names the {what} '{found}', which target '{target}' does not have; known: {known}")]
    Name { what: &'static str, found: String, target: &'static str, known: String },
    #[error("the profile gives '{name}' the rate {found}, expected a positive number")]
    Rate { name: String, found: String },
}

impl Profile {
    /// Reads the text of a profile.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        let profile: Profile =
            serde_json::from_str(text).map_err(|e| ProfileError::Syntax { reason: e.to_string() })?;
        if profile.tcc_profile != VERSION {
            return Err(ProfileError::Version { found: profile.tcc_profile });
        }
        for (name, rate) in profile.bytes_per_cycle.iter().chain(&profile.macs_per_cycle) {
            if !(rate.is_finite() && *rate > 0.0) {
                return Err(ProfileError::Rate { name: name.clone(), found: rate.to_string() });
            }
        }
        Ok(profile)
    }

    /// The text that [`Profile::parse`] reads: the same rates, the same bytes.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("names and finite numbers") + "\n"
    }

    /// `desc` with these rates. It is never freed: a process reads one profile for each of a few targets.
    ///
    /// Errors: a profile of another target; names that the target does not have.
    pub fn apply(&self, desc: &'static TargetDesc) -> Result<&'static TargetDesc, ProfileError> {
        if self.target != desc.name {
            return Err(ProfileError::Target { found: self.target.clone(), expected: desc.name });
        }
        let memories: Vec<&str> = desc.memories.iter().map(|memory| memory.name).collect();
        let rows: Vec<&str> = desc.menu.iter().map(|row| row.name).collect();
        for (what, known, rates) in
            [("memory", memories, &self.bytes_per_cycle), ("kernel", rows, &self.macs_per_cycle)]
        {
            if let Some(found) = rates.keys().find(|name| !known.contains(&name.as_str())) {
                let (found, known) = (found.clone(), known.join(", "));
                return Err(ProfileError::Name { what, found, target: desc.name, known });
            }
        }
        let memory = |memory: &Memory| Memory {
            bytes_per_cycle: self.bytes_per_cycle.get(memory.name).copied().unwrap_or(memory.bytes_per_cycle),
            ..*memory
        };
        let row = |row: &MicroKernel| MicroKernel {
            macs_per_cycle: self.macs_per_cycle.get(row.name).copied().unwrap_or(row.macs_per_cycle),
            ..*row
        };
        let memories = Vec::leak(desc.memories.iter().map(memory).collect());
        let menu = Vec::leak(desc.menu.iter().map(row).collect());
        Ok(Box::leak(Box::new(TargetDesc { memories, menu, ..*desc })))
    }
}

#[cfg(test)]
mod tests {
    use tcc_ir::target::Features;

    use super::*;
    use crate::schedule::{Machine, Shape, choose_encoding};
    use crate::target::{TargetRequest, resolve};

    /// A machine that has every kernel of its target.
    fn machine() -> Machine {
        let request = TargetRequest { target: Some("x86_64".into()), ..TargetRequest::default() };
        let desc = resolve(&request, Vec::new).expect("a known target").machine.desc;
        let features = desc.features.iter().fold(Features::NONE, |set, feature| set.with(feature.bit));
        Machine { desc, features, vlen: 0 }
    }

    fn profile(change: impl FnOnce(&mut Profile)) -> Profile {
        let mut profile = Profile {
            tcc_profile: VERSION,
            target: "x86_64".into(),
            cpu: "a test".into(),
            bytes_per_cycle: BTreeMap::from([("DRAM".into(), 8.0)]),
            macs_per_cycle: BTreeMap::new(),
        };
        change(&mut profile);
        profile
    }

    #[test]
    fn text_is_read_again() {
        let profile = profile(|p| _ = p.macs_per_cycle.insert("avx2-m1".into(), 33.5));
        assert_eq!(Profile::parse(&profile.text()), Ok(profile));
    }

    #[test]
    fn wrong_profiles_say_what_is_wrong() {
        let parse = |p: Profile| Profile::parse(&p.text());
        assert_eq!(parse(profile(|p| p.tcc_profile = 2)), Err(ProfileError::Version { found: 2 }));
        let zero = profile(|p| _ = p.macs_per_cycle.insert("avx2-m1".into(), 0.0));
        assert_eq!(parse(zero), Err(ProfileError::Rate { name: "avx2-m1".into(), found: "0".into() }));
        let syntax = |text: &str| matches!(Profile::parse(text), Err(ProfileError::Syntax { .. }));
        assert!(syntax(""));
        assert!(syntax(&profile(|_| {}).text().replace("cpu", "gpu")), "unknown fields are refused");
        let apply = |p: Profile| p.apply(machine().desc).map(|desc| desc.name);
        let other = apply(profile(|p| p.target = "riscv64".into()));
        assert_eq!(other, Err(ProfileError::Target { found: "riscv64".into(), expected: "x86_64" }));
        let unknown = apply(profile(|p| _ = p.macs_per_cycle.insert("morse-m1".into(), 1.0)));
        assert!(matches!(unknown, Err(ProfileError::Name { what: "kernel", .. })), "{unknown:?}");
        let unknown = apply(profile(|p| _ = p.bytes_per_cycle.insert("drum".into(), 1.0)));
        assert!(matches!(unknown, Err(ProfileError::Name { what: "memory", .. })), "{unknown:?}");
    }

    /// Slow memory asks for few bytes, fast memory for little arithmetic.
    #[test]
    fn bandwidth_decides_the_encoding() {
        let family = |bandwidth| {
            let profile = profile(|p| _ = p.bytes_per_cycle.insert("DRAM".into(), bandwidth));
            let machine = Machine { desc: profile.apply(machine().desc).expect("known names"), ..machine() };
            let shape = Shape { n: 2560, k: 2560, group: None };
            choose_encoding(&[machine], shape, None).expect("a kernel").family()
        };
        assert_eq!((family(2.0), family(64.0)), ("base3", "i2"));
    }
}
