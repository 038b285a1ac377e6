//! `tcc explain`: what an error code or a pass means.

use clap::Args;
use serde_json::json;

use super::Cx;
use crate::error::Error;
use crate::{explain, passes};

#[derive(Args)]
pub struct ExplainArgs {
    /// An error code (TCC-E0217), the name of a pass, or nothing for a list
    topic: Option<String>,
}

pub(super) fn run(cx: &Cx, args: ExplainArgs) -> Result<(), Error> {
    let topics: Vec<(&str, &str)> = explain::EXPLANATIONS
        .iter()
        .map(|t| (t.code, t.text))
        .chain(passes::PIPELINE.iter().map(|p| (p.name, p.about)))
        .collect();
    let Some(topic) = args.topic else {
        for (name, text) in &topics {
            println!("{name:<16} {}", text.lines().next().unwrap_or(""));
        }
        return Ok(());
    };
    let found = topics.iter().find(|(name, _)| name.eq_ignore_ascii_case(&topic));
    let (name, text) = found.ok_or_else(|| {
        Error::usage(format!("there is nothing to explain under '{topic}'"), "`tcc explain` lists every code and pass")
    })?;
    if cx.json {
        println!("{}", json!({ "topic": name, "text": text }));
    } else {
        println!("{name}\n\n{text}");
    }
    Ok(())
}
