//! Text from a prompt: prefill, then token after token through a streaming detokenizer.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use tcc_runtime::abi::{Sampler, Status};
use tcc_runtime::detok::Detokenizer;
use tcc_runtime::draft::{self, Pace};
use tcc_runtime::session::Session;

use super::tokenizer::Tokenizer;
use crate::error::Error;

/// How long a run took, and over how many tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub prompt_tokens: usize,
    pub generated_tokens: usize,
    /// Tokens guessed and evaluated ahead, and how many of them were right.
    pub guessed_tokens: usize,
    pub right_tokens: usize,
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

/// How to generate.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    pub sampler: Sampler,
    /// Most tokens to generate.
    pub limit: usize,
    /// Tokens that end the text.
    pub stop: &'a [u32],
    /// Most tokens to guess and evaluate together with a chosen one; 0 = none.
    pub speculate: usize,
}

/// Evaluates `prompt` and streams generated tokens to `out`, until a token that ends the text, the limit, or the end of
/// the context. The text does not depend on `speculate`.
pub fn generate(
    session: &mut Session,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    settings: Settings,
    out: &mut dyn Write,
) -> Result<Stats, Error> {
    let status = |status| Error::Status { status };
    let mut stats = Stats { prompt_tokens: prompt.len(), ..Stats::default() };
    let begin = Instant::now();
    session.eval(prompt).map_err(status)?;
    stats.prefill = begin.elapsed();
    let begin = Instant::now();
    let mut tokens = Tokens::new(session, prompt, settings);
    let mut text = Detokenizer::new();
    while stats.generated_tokens < settings.limit {
        let token = match tokens.next() {
            Ok(token) => token,
            Err(Status::CTX_FULL) => break,
            Err(error) => return Err(status(error)),
        };
        stats.generated_tokens += 1;
        if settings.stop.contains(&token) {
            break;
        }
        let mut written = Ok(());
        text.push(&tokenizer.piece(token), |piece| collect(&mut written, out.write_all(piece.as_bytes())));
        written.and_then(|()| out.flush()).map_err(Error::io("written", "standard output"))?;
    }
    (stats.guessed_tokens, stats.right_tokens) = (tokens.guessed, tokens.right);
    stats.decode = begin.elapsed();
    let mut written = Ok(());
    text.finish(|piece| collect(&mut written, out.write_all(piece.as_bytes())));
    written.map_err(Error::io("written", "standard output"))?;
    Ok(stats)
}

/// Tokens one after another; guesses are evaluated with the token they follow.
struct Tokens<'s, 'a> {
    session: &'s mut Session<'a>,
    sampler: Sampler,
    /// Prompt and every token chosen so far. All but the last are evaluated.
    text: Vec<u32>,
    /// Tokens of `text` that were handed out or belong to the prompt.
    taken: usize,
    pace: Pace,
    guessed: usize,
    right: usize,
}

impl<'s, 'a> Tokens<'s, 'a> {
    fn new(session: &'s mut Session<'a>, prompt: &[u32], settings: Settings) -> Self {
        let most = settings.speculate.min((session.model().info().prefill as usize).saturating_sub(1));
        let (text, sampler) = (prompt.to_vec(), settings.sampler);
        Tokens { session, sampler, taken: text.len(), text, pace: Pace::new(most), guessed: 0, right: 0 }
    }

    fn next(&mut self) -> Result<u32, Status> {
        if self.taken == self.text.len() {
            self.extend()?;
        }
        self.taken += 1;
        Ok(self.text[self.taken - 1])
    }

    /// Chooses at least one token more.
    fn extend(&mut self) -> Result<(), Status> {
        let pos = self.session.pos() as usize;
        if pos == self.text.len() {
            // Right behind the prompt every token is evaluated.
            self.text.push(self.session.sample(&mut self.sampler)?);
            return Ok(());
        }
        let room = (self.session.model().info().ctx as usize).saturating_sub(pos + 1);
        let mut batch = vec![0; 1 + self.pace.length().min(room)];
        batch[0] = self.text[pos];
        let guessed = draft::lookup(&self.text, &mut batch[1..]);
        let found = self.session.eval_draft(&batch[..1 + guessed], &mut self.sampler)?;
        self.text.extend(&batch[1..found.kept]);
        self.text.push(found.next);
        self.pace.learn(guessed, found.kept - 1);
        self.guessed += guessed;
        self.right += found.kept - 1;
        Ok(())
    }
}

/// Keeps the first error.
fn collect(written: &mut io::Result<()>, now: io::Result<()>) {
    if written.is_ok() {
        *written = now;
    }
}
