//! The text form of whole models: what is printed of every fixture, before and after the passes, reads back.

use std::fs;

use tcc::arch::{self, BuildOptions};
use tcc::passes::{self, PassCx};
use tcc_ir::program::Program;
use tcc_ir::text::{parse, print};
use tcc_tests::oracle;

fn check(program: &Program, what: &str) {
    let text = print::program(program);
    let back = parse::program(&text).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(back.facts, program.facts, "{what}");
    assert_eq!(back.weights, program.weights, "{what}");
    assert_eq!(back.states, program.states, "{what}");
    assert!(print::program(&back) == text, "{what}: another text after reading back");
}

#[test]
fn programs_of_all_fixtures_read_back() {
    let folder = oracle::fixture("");
    let mut names: Vec<_> =
        fs::read_dir(&folder).expect("the fixtures").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    assert!(names.len() >= 20, "only {} fixtures", names.len());
    for name in names {
        let what = name.to_string_lossy();
        let model = oracle::open(&folder.join(&name));
        let (mut program, weights) =
            arch::build(&model, &BuildOptions::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
        check(&program, &what);
        let mut cx = PassCx { store: &weights, folded: vec![] };
        passes::run(&mut program, &mut cx, None, |_, _| {}).unwrap_or_else(|e| panic!("{what}: {e}"));
        check(&program, &what);
    }
}
