//! SHA-256 (FIPS 180-4) over 32-bit words of memory, as loops.
//!
//! The context is a block of [`CONTEXT_BYTES`] bytes: eight state words, the 64-byte input block, the number of bytes
//! taken in, and the 64 words of the message schedule.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I32, I64};
use cranelift_codegen::ir::{InstBuilder, Value};

use super::{Api, copy, data};
use crate::clif::func::{FunctionCx, signature};
use crate::code::{EmitError, Function};

/// Symbol of `(context)`: begins a hash.
pub const INIT: &str = "sha256_init";
/// Symbol of `(context, words, n)`: takes in `n` 32-bit words as they lie in memory.
pub const WORDS: &str = "sha256_words";
/// Symbol of `(context)`: ends the hash; the context then begins with its 32 bytes.
pub const FINISH: &str = "sha256_finish";
/// Symbol of `(context)`: takes in the input block.
const BLOCK: &str = "sha256_block";
/// Round constants, then the initial state.
const CONSTANTS: &str = "sha256_constants";

const BUFFER: i32 = 32;
const LENGTH: i32 = 96;
const SCHEDULE: i32 = 104;
/// Bytes of a context.
pub const CONTEXT_BYTES: usize = 104 + 4 * ROUNDS;

const ROUNDS: usize = 64;
const STATE_WORDS: usize = 8;
const BLOCK_BYTES: i64 = 64;
/// Where the message's length begins in its last block.
const LENGTH_AT: i64 = 56;

pub(super) fn functions(api: &Api<'_>) -> Result<Vec<Function>, EmitError> {
    Ok(vec![init(api)?, words(api)?, finish(api)?, block(api)?, data(CONSTANTS, constants())])
}

/// First 32 bits of the fractional parts of the `root`-th roots of the first `n` primes, `root` 2 or 3.
fn prime_roots(n: usize, root: u32) -> Vec<u32> {
    let is_prime = |p: &u128| (2..*p).all(|d| !p.is_multiple_of(d));
    let fraction = |p: u128| {
        // The largest x with x^root <= p · 2^(32 root): the root times 2^32, whose low word is the fraction.
        let mut x = 0u128;
        for bit in (0..37).rev() {
            let candidate = x | 1 << bit;
            if candidate.pow(root) <= p << (32 * root) {
                x = candidate;
            }
        }
        // Truncation drops the integer part.
        x as u32
    };
    (2u128..).filter(is_prime).take(n).map(fraction).collect()
}

fn constants() -> Vec<u8> {
    let words = prime_roots(ROUNDS, 3).into_iter().chain(prime_roots(STATE_WORDS, 2));
    words.flat_map(u32::to_le_bytes).collect()
}

fn init(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(INIT, &signature(&[I64], &[]), |f| {
        let context = f.param(0);
        let table = f.symbol_address(CONSTANTS);
        let first = f.offset(table, 4 * ROUNDS);
        copy(f, I32, context, first, STATE_WORDS);
        let zero = f.i64(0);
        f.store(zero, context, LENGTH);
        f.return_(&[]);
    })
}

/// Appends one word, as it lies in memory, and takes in the block if it is full.
fn push(f: &mut FunctionCx, context: Value, word: Value) {
    let length = f.load(I64, context, LENGTH);
    let within = f.ins().band_imm_u(length, BLOCK_BYTES - 1);
    let at = f.ins().iadd(context, within);
    f.store(word, at, BUFFER);
    let after = f.offset(length, 4);
    f.store(after, context, LENGTH);
    let full = f.ins().icmp_imm_u(IntCC::Equal, within, BLOCK_BYTES - 4);
    f.if_then(full, |f| {
        f.call(BLOCK, &signature(&[I64], &[]), &[context]);
    });
}

fn words(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(WORDS, &signature(&[I64, I64, I64], &[]), |f| {
        let (context, words, n) = (f.param(0), f.param(1), f.param(2));
        let begin = f.i64(0);
        f.for_range(begin, n, 1, |f, i| {
            let at = f.index(words, i, 4);
            let word = f.load(I32, at, 0);
            push(f, context, word);
        });
        f.return_(&[]);
    })
}

fn finish(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(FINISH, &signature(&[I64], &[]), |f| {
        let context = f.param(0);
        let length = f.load(I64, context, LENGTH);
        let bits = f.scaled(length, 8);
        // One bit set behind the message, in memory order the first of a word.
        let end = f.i32(0x80);
        push(f, context, end);
        f.while_carried(
            &[],
            |f, _| {
                let length = f.load(I64, context, LENGTH);
                let within = f.ins().band_imm_u(length, BLOCK_BYTES - 1);
                f.ins().icmp_imm_u(IntCC::NotEqual, within, LENGTH_AT)
            },
            |f, _| {
                let zero = f.i32(0);
                push(f, context, zero);
                vec![]
            },
        );
        let swapped = f.ins().bswap(bits);
        let low = f.ins().ireduce(I32, swapped);
        let high = f.ins().ushr_imm_u(swapped, 32);
        let high = f.ins().ireduce(I32, high);
        push(f, context, low);
        push(f, context, high);
        for i in 0..8 {
            let word = f.load(I32, context, 4 * i);
            let word = f.ins().bswap(word);
            f.store(word, context, 4 * i);
        }
        f.return_(&[]);
    })
}

/// `rotr(x, a) ^ rotr(x, b) ^ rotr(x, c)`, the last a shift where `shift` says so.
fn sigma(f: &mut FunctionCx, x: Value, [a, b, c]: [i64; 3], shift: bool) -> Value {
    let (a, b) = (f.ins().rotr_imm_u(x, a), f.ins().rotr_imm_u(x, b));
    let c = if shift { f.ins().ushr_imm_u(x, c) } else { f.ins().rotr_imm_u(x, c) };
    let ab = f.ins().bxor(a, b);
    f.ins().bxor(ab, c)
}

fn block(api: &Api<'_>) -> Result<Function, EmitError> {
    api.cx.function(BLOCK, &signature(&[I64], &[]), |f| {
        let context = f.param(0);
        schedule(f, context);
        let state: Vec<_> = (0..8).map(|i| f.load(I32, context, 4 * i)).collect();
        let table = f.symbol_address(CONSTANTS);
        let (begin, end) = (f.i64(0), f.size(ROUNDS));
        let mixed = f.for_carried(begin, end, 1, &state, |f, i, s| {
            let (k_at, w_at) = (f.index(table, i, 4), f.index(context, i, 4));
            let (k, w) = (f.load(I32, k_at, 0), f.load(I32, w_at, SCHEDULE));
            round(f, s, k, w)
        });
        for (i, (before, after)) in state.iter().zip(&mixed).enumerate() {
            let sum = f.ins().iadd(*before, *after);
            f.store(sum, context, 4 * i32::try_from(i).expect("eight words"));
        }
        f.return_(&[]);
    })
}

/// The message schedule of the input block.
fn schedule(f: &mut FunctionCx, context: Value) {
    let (begin, given, end) = (f.i64(0), f.i64(16), f.size(ROUNDS));
    f.for_range(begin, given, 1, |f, i| {
        let at = f.index(context, i, 4);
        let word = f.load(I32, at, BUFFER);
        let word = f.ins().bswap(word);
        f.store(word, at, SCHEDULE);
    });
    f.for_range(given, end, 1, |f, i| {
        let at = f.index(context, i, 4);
        let [w2, w7, w15, w16] = [2, 7, 15, 16].map(|back| f.load(I32, at, SCHEDULE - 4 * back));
        let s1 = sigma(f, w2, [17, 19, 10], true);
        let s0 = sigma(f, w15, [7, 18, 3], true);
        let recent = f.ins().iadd(s1, w7);
        let old = f.ins().iadd(s0, w16);
        let word = f.ins().iadd(recent, old);
        f.store(word, at, SCHEDULE);
    });
}

/// One round on the working variables a..h.
fn round(f: &mut FunctionCx, s: &[Value], k: Value, w: Value) -> Vec<Value> {
    let [a, b, c, d, e, g_f, g, h] = s[..] else { unreachable!("eight working variables") };
    let sum1 = sigma(f, e, [6, 11, 25], false);
    let chosen = f.ins().band(e, g_f);
    let others = f.ins().band_not(g, e);
    let choice = f.ins().bxor(chosen, others);
    let t1 = f.ins().iadd(h, sum1);
    let t1 = f.ins().iadd(t1, choice);
    let kw = f.ins().iadd(k, w);
    let t1 = f.ins().iadd(t1, kw);
    let sum0 = sigma(f, a, [2, 13, 22], false);
    let (ab, ac, bc) = (f.ins().band(a, b), f.ins().band(a, c), f.ins().band(b, c));
    let majority = f.ins().bxor(ab, ac);
    let majority = f.ins().bxor(majority, bc);
    let t2 = f.ins().iadd(sum0, majority);
    let (e, first) = (f.ins().iadd(d, t1), f.ins().iadd(t1, t2));
    vec![first, a, b, c, e, s[4], s[5], s[6]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_those_of_the_standard() {
        let rounds = prime_roots(ROUNDS, 3);
        assert_eq!((rounds[0], rounds[63]), (0x428a2f98, 0xc67178f2));
        let state = prime_roots(STATE_WORDS, 2);
        assert_eq!((state[0], state[7]), (0x6a09e667, 0x5be0cd19));
    }
}
