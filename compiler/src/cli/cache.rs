//! `tcc cache`: what `tcc run` keeps, and its removal.

use clap::Args;
use serde_json::json;

use super::Cx;
use crate::cache::{Cache, DEFAULT_LIMIT_BYTES};
use crate::error::Error;
use crate::report::human;

#[derive(Args)]
pub struct CacheArgs {
    /// Remove everything
    #[arg(long)]
    clear: bool,
}

/// The cache, in the folder that the environment names if it does.
pub(super) fn open() -> Result<Cache, Error> {
    Cache::open(std::env::var_os("TCC_CACHE_DIR").map(Into::into), DEFAULT_LIMIT_BYTES)
}

pub(super) fn run(cx: &Cx, args: CacheArgs) -> Result<(), Error> {
    let cache = open()?;
    let freed = if args.clear { Some(cache.clear()?) } else { None };
    let entries = cache.entries()?;
    let bytes: u64 = entries.iter().map(|e| e.bytes).sum();
    if cx.json {
        let folder = cache.folder().display().to_string();
        println!(
            "{}",
            json!({ "folder": folder, "entries": entries.len(), "bytes": bytes, "limit_bytes": DEFAULT_LIMIT_BYTES, "freed_bytes": freed })
        );
        return Ok(());
    }
    if let Some(freed) = freed {
        println!("removed {}", human(freed));
    }
    println!(
        "{}  {} models, {} of {}",
        cache.folder().display(),
        entries.len(),
        human(bytes),
        human(DEFAULT_LIMIT_BYTES)
    );
    Ok(())
}
