//! Runs every text case under `tests/cases/`. `UPDATE_EXPECT=1` rewrites the expectations that differ.

use std::fs;
use std::path::{Path, PathBuf};

use tcc_tests::case::Case;
use tcc_tests::directive::{self, Outcome};

/// Every `.tir` file under `folder`, in order of name.
fn case_files(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> =
        fs::read_dir(folder).expect("the folder of cases").map(|e| e.expect("an entry").path()).collect();
    entries.sort();
    let (folders, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(|p| p.is_dir());
    let nested = folders.iter().flat_map(|f| case_files(f));
    files.into_iter().filter(|p| p.extension().is_some_and(|e| e == "tir")).chain(nested).collect()
}

/// Runs one case; the error says what is wrong with it.
fn run(path: &Path, update: bool) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let case = Case::read(&text)?;
    let outcome = directive::run(&case.directive, &case.text).map_err(|e| e.to_string())?;
    match (case.check(&outcome), outcome) {
        (Err(_), Outcome::Text(found)) if update && case.error.is_none() => {
            fs::write(path, case.with_expect(&found)).map_err(|e| e.to_string())
        }
        (checked, _) => checked,
    }
}

#[test]
fn text_cases() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1");
    let files = case_files(&root);
    assert!(files.len() > 10, "only {} cases under {}", files.len(), root.display());
    let failures: Vec<_> = files
        .iter()
        .filter_map(|path| {
            let name = path.strip_prefix(&root).expect("files lie under the root").display();
            run(path, update).err().map(|what| format!("{name}: {what}"))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {} cases failed\n{}", failures.len(), files.len(), failures.join("\n\n"));
}

/// Each way a case can fail is seen: a harness that accepts everything would pass the test above.
#[test]
fn the_harness_can_fail() {
    let graph = "graph g {\n  %x: f32[1, 4] = input \"hidden\"\n  return %x\n}\n";
    let judge = |text: &str| {
        let case = Case::read(text)?;
        case.check(&directive::run(&case.directive, &case.text).map_err(|e| e.to_string())?)
    };
    let head = "; test: parse\n; Shows the harness.\n";
    let good = "; expect:\n; graph g {\n;   %0: f32[1, 4] = input \"hidden\"\n;   return %0\n; }\n";
    assert_eq!(judge(&format!("{head}{graph}{good}")), Ok(()));
    assert!(judge(&format!("{head}{graph}{}", good.replace("%0", "%1"))).is_err(), "another expectation");
    assert!(judge(&format!("{head}{graph}")).is_err(), "no expectation");
    assert!(judge(&format!("; test: parse\n{graph}{good}")).is_err(), "no sentence");
    assert!(judge(&format!("{head}; error: odd\n{graph}{good}")).is_err(), "an error that does not come");
    assert!(judge(&format!("; test: pass no-such\n; Why.\n{graph}{good}")).is_err(), "an unknown pass");
    assert!(judge(&format!("; test: fly\n; Why.\n{graph}{good}")).is_err(), "an unknown directive");
    let wrong = graph.replace("%x\n", "%y ; error: expected a value defined above, found %y\n");
    assert_eq!(judge(&format!("{head}{wrong}")), Ok(()));
    assert!(judge(&format!("{head}; error: expected a value defined above\n{graph}")).is_err(), "on another line");
}

/// Cases shown in `docs/` do what they say; those without an expectation are accepted.
#[test]
fn cases_in_documents() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut count = 0;
    for entry in fs::read_dir(docs).expect("the documents") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a document");
        for block in text.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            if !block.starts_with("; test: ") {
                continue;
            }
            let case = Case::read(block).unwrap_or_else(|e| panic!("{}: {e}\n{block}", path.display()));
            let outcome = directive::run(&case.directive, block).expect("a known directive");
            let is_accepted = matches!(outcome, Outcome::Text(_)) && case.error.is_none() && case.expect.is_none();
            let checked = if is_accepted { Ok(()) } else { case.check(&outcome) };
            assert_eq!(checked, Ok(()), "{}:\n{block}", path.display());
            count += 1;
        }
    }
    assert!(count >= 5, "only {count} cases in the documents");
}
