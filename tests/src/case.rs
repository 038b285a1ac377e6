//! Text cases: files under `tests/cases/` that hold a directive, a program or graphs, and what must come of them
//! (`docs/testing.md`).

use std::fmt::Write;

use crate::directive::Outcome;

/// A case as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What stands behind `; test:` in the first line.
    pub directive: String,
    /// The whole text; directives and expectations are comments of the text form.
    pub text: String,
    /// What stands behind `; error:`, with its line.
    pub error: Option<(usize, String)>,
    /// The lines below `; expect:`.
    pub expect: Option<String>,
}

const TEST: &str = "; test: ";
const ERROR: &str = "; error: ";
const EXPECT: &str = "; expect:";

impl Case {
    /// Reads a case. Errors are sentences for its author.
    pub fn read(text: &str) -> Result<Case, String> {
        let mut lines = text.lines();
        let directive = lines.next().and_then(|l| l.strip_prefix(TEST)).ok_or("the first line is not '; test: ...'")?;
        let why = lines.next().unwrap_or_default();
        if !why.starts_with("; ") || why.starts_with(EXPECT) || why.starts_with(ERROR) {
            return Err("the second line is not a comment that says what the case shows".into());
        }
        let (input, expect) = split_expect(text);
        let error = input.lines().zip(1..).find_map(|(line, n)| Some((n, line.split_once(ERROR)?.1.to_owned())));
        Ok(Case { directive: directive.into(), text: text.into(), error, expect })
    }

    /// Compares `outcome` with what the case states; the error says what differs.
    pub fn check(&self, outcome: &Outcome) -> Result<(), String> {
        match (outcome, &self.error) {
            (Outcome::Refused { line, message }, Some((expected_line, expected))) => {
                let is_there = line.is_none_or(|line| line == *expected_line);
                if is_there && message.contains(expected.as_str()) {
                    return Ok(());
                }
                Err(format!("expected on line {expected_line}: {expected}\nfound: {message}"))
            }
            (Outcome::Refused { message, .. }, None) => Err(format!("refused: {message}")),
            (Outcome::Text(_), Some((line, expected))) => Err(format!("accepted; line {line} says error: {expected}")),
            (Outcome::Text(found), None) => match &self.expect {
                None => Err("no '; expect:' (UPDATE_EXPECT=1 writes it)".into()),
                Some(expected) if expected == found => Ok(()),
                Some(expected) => Err(format!("expected:\n{expected}found:\n{found}")),
            },
        }
    }

    /// The case's text with `found` as its expectation.
    pub fn with_expect(&self, found: &str) -> String {
        let (input, _) = split_expect(&self.text);
        let mut text = format!("{}\n{EXPECT}\n", input.trim_end());
        for line in found.lines() {
            writeln!(text, "{}", format!("; {line}").trim_end()).expect("writing to a string succeeds");
        }
        text
    }
}

/// The text above `; expect:`, and the lines below without their `; `.
fn split_expect(text: &str) -> (String, Option<String>) {
    let mut lines = text.lines();
    let input: String = lines.by_ref().take_while(|l| *l != EXPECT).map(|l| format!("{l}\n")).collect();
    if input.lines().count() == text.lines().count() {
        return (input, None);
    }
    let uncomment = |l: &str| format!("{}\n", l.strip_prefix("; ").or(l.strip_prefix(';')).unwrap_or(l));
    (input, Some(lines.map(uncomment).collect()))
}
