//! Text from a prompt: prefill, then token after token through a streaming detokenizer.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use tcc_runtime::abi::{Sampler, Status};
use tcc_runtime::detok::Detokenizer;
use tcc_runtime::session::Session;

use super::tokenizer::Tokenizer;
use crate::error::Error;

/// How long a run took, and over how many tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub prompt_tokens: usize,
    pub generated_tokens: usize,
    pub prefill: Duration,
    pub decode: Duration,
}

impl Stats {
    /// Prompt tokens per second.
    pub fn prefill_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prefill.as_secs_f64().max(1e-9)
    }

    /// Generated tokens per second.
    pub fn decode_rate(&self) -> f64 {
        self.generated_tokens as f64 / self.decode.as_secs_f64().max(1e-9)
    }
}

/// Evaluates `prompt` and streams at most `limit` generated tokens to `out`, until a token of `stop` or the end of
/// the context.
pub fn generate(
    session: &mut Session,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    limit: usize,
    sampler: Sampler,
    stop: &[u32],
    out: &mut dyn Write,
) -> Result<Stats, Error> {
    let status = |status| Error::Status { status };
    let mut stats = Stats { prompt_tokens: prompt.len(), ..Stats::default() };
    let begin = Instant::now();
    let mut tokens = session.generate(prompt, sampler).map_err(status)?;
    stats.prefill = begin.elapsed();
    let begin = Instant::now();
    let mut text = Detokenizer::new();
    while stats.generated_tokens < limit {
        let token = match tokens.next() {
            Some(Ok(token)) => token,
            Some(Err(Status::CTX_FULL)) | None => break,
            Some(Err(error)) => return Err(status(error)),
        };
        stats.generated_tokens += 1;
        if stop.contains(&token) {
            break;
        }
        let mut written = Ok(());
        text.push(&tokenizer.piece(token), |piece| collect(&mut written, out.write_all(piece.as_bytes())));
        written.and_then(|()| out.flush()).map_err(Error::io("written", "standard output"))?;
    }
    stats.decode = begin.elapsed();
    let mut written = Ok(());
    text.finish(|piece| collect(&mut written, out.write_all(piece.as_bytes())));
    written.map_err(Error::io("written", "standard output"))?;
    Ok(stats)
}

/// Keeps the first error.
fn collect(written: &mut io::Result<()>, now: io::Result<()>) {
    if written.is_ok() {
        *written = now;
    }
}
