//! Renders errors: a diagnostic for people, an object for machines.

use std::fmt;

use miette::Diagnostic;

use super::Cx;
use crate::error::Error;

/// An [`Error`] as miette wants it.
struct Report<'a>(&'a Error);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Report<'_> {}

impl Diagnostic for Report<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.0.code()))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.0.help().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }
}

/// Writes `error` to standard error, or with `--json` as an object to standard output.
pub fn error(cx: &Cx, error: &Error) {
    if cx.json {
        let details = serde_json::json!({
            "code": error.code(), "message": error.to_string(), "help": error.help(), "exit": error.exit_code()
        });
        if let Error::Comparison { result, .. } = error {
            let mut value = result.clone();
            value["error"] = details;
            println!("{value:#}");
        } else {
            println!("{}", serde_json::json!({ "error": details }));
        }
        return;
    }
    let mut text = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(theme()).with_width(110).with_links(false);
    match handler.render_report(&mut text, &Report(error)) {
        Ok(()) => eprint!("{text}"),
        Err(_) => eprintln!("error[{}]: {error}", error.code()),
    }
    eprintln!("  see: tcc explain {}", error.code());
}

/// Colors only on a terminal, and never against the user's wish.
fn theme() -> miette::GraphicalTheme {
    let plain = !std::io::IsTerminal::is_terminal(&std::io::stderr()) || std::env::var_os("NO_COLOR").is_some();
    if plain { miette::GraphicalTheme::unicode_nocolor() } else { miette::GraphicalTheme::unicode() }
}
