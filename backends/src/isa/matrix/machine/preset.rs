//! The machines that tcc knows.

use crate::isa::matrix::machine::Machine;
use crate::isa::matrix::machine::parse::{MachineError, parse};

/// Name and text of each preset.
pub const PRESETS: &[(&str, &str)] = &[
    ("ascend910b", include_str!("presets/ascend910b.toml")),
    ("ascend950pr", include_str!("presets/ascend950pr.toml")),
    ("ascend310p", include_str!("presets/ascend310p.toml")),
    ("ascend310b", include_str!("presets/ascend310b.toml")),
    ("kirinx90", include_str!("presets/kirinx90.toml")),
    ("kirin9030", include_str!("presets/kirin9030.toml")),
    ("lite-generic", include_str!("presets/lite-generic.toml")),
];

/// The preset called `name`, if there is one.
pub fn preset(name: &str) -> Option<Result<Machine, MachineError>> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_parse_and_their_canonical_form_is_the_same_machine() {
        for (name, text) in PRESETS {
            let machine = parse(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(&machine.name, name);
            assert_eq!(parse(&machine.canonical()).as_ref(), Ok(&machine));
        }
    }

    #[test]
    fn peaks_are_those_that_the_vendor_sells() {
        let tops = |name: &str| {
            let machine = preset(name).expect("a preset").expect("it parses");
            let mode = &machine.cube["s8"];
            let macs = f64::from(mode.mkn[0] * mode.mkn[2] * mode.k_per_cycle * machine.cube_cores());
            macs * 2.0 * machine.clock_ghz.expect("published").value / 1000.0
        };
        assert!((tops("ascend910b") - 727.4).abs() < 0.1);
        assert!((tops("ascend310b") - 20.05).abs() < 0.01);
    }

    #[test]
    fn mistakes_are_named() {
        let text = PRESETS[0].1;
        let message = |from: &str, to: &str| {
            assert!(text.contains(from));
            parse(&text.replacen(from, to, 1)).expect_err("a mistake").to_string()
        };
        assert!(message("arch = 2201", "arch = 2201\ncolour = 3").contains("unknown field `colour`"));
        assert!(message("[1.85, \"doc\"]", "[1.85, \"guess\"]").contains("unknown variant `guess`"));
        assert_eq!(message("format = 1", "format = 7"), "format 7: this version reads format 1");
        assert!(message("rate = [110.0", "rate = [-1.0").contains("'path.gm_l1.rate': -1 is no rate"));
        assert!(message("costs = \"measured\"", "costs = \"best\"").contains("there are documented, measured"));
        assert!(message("[cube.s4]", "[cube.s3]").contains("known are s4, s8"));
    }
}
