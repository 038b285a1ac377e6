//! The golden run: a few tokens evaluated at compile time, whose logits' hash the object carries and `self_test`
//! compares. Every exact engine gives the same hash.

use sha2::{Digest, Sha256};
use tcc_ir::interp::Interpreter;
use tcc_ir::program::ModelFacts;

use crate::driver::Front;
use crate::error::Error;

/// Most tokens of the golden prompt: enough for attention over several positions.
const TOKENS: usize = 4;

/// The golden prompt.
pub fn tokens(facts: &ModelFacts) -> Vec<u32> {
    prompt(facts, TOKENS)
}

/// `count` ids, fewer if the context is shorter, spread over the vocabulary.
pub fn prompt(facts: &ModelFacts, count: usize) -> Vec<u32> {
    // A vocabulary fits u32; the product cannot overflow u64.
    (0..count.min(facts.ctx) as u64).map(|i| ((i * 7919 + 1) % facts.vocab as u64) as u32).collect()
}

/// SHA-256 of logits as f32 little-endian bytes, `[tokens, vocab]`.
pub fn hash(logits: &[f32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for run in logits.chunks(4096) {
        let bytes: Vec<u8> = run.iter().flat_map(|v| v.to_le_bytes()).collect();
        hash.update(&bytes);
    }
    hash.finalize().into()
}

/// Hexadecimal digits of a hash.
pub fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// Logits of every position by the reference interpreter, `[tokens, vocab]`.
pub fn interpret(front: &Front, tokens: &[u32]) -> Result<Vec<f32>, Error> {
    let mut interpreter = Interpreter::new(&front.program, &front.store);
    let hidden = interpreter.eval(tokens)?;
    let mut logits = Vec::with_capacity(tokens.len() * front.program.facts.vocab);
    for row in hidden.chunks_exact(front.program.facts.hidden) {
        logits.extend(interpreter.logits(row)?);
    }
    Ok(logits)
}
