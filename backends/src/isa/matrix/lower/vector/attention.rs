//! Causal attention over a cache, one token row and head at a time, positions in blocks of 64.
//!
//! Blocks are read whole: what lies behind the last position is hidden by adding a constant to its score, so that its
//! weight is exactly zero; of a cache of int8, the scale of such a position is taken as zero, for anything may lie there.

use tcc_ir::cache::{BLOCK, CacheLayout};

use super::cache::pitch;
use super::rows::{divide_up, element, step, widen, widen_rows};
use super::{Place, ROWS, Space, Tables, UbTooSmall, behind, reg};
use crate::isa::matrix::lower::emit::{Emit, F32, Second, block, dense, strided};
use crate::isa::matrix::program::addr::Reg;
use crate::isa::matrix::program::inst::{Count, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::vec::VecOp;

const Q: Reg = reg(1);
const OUT: Reg = reg(2);
const K: Reg = reg(3);
const V: Reg = reg(4);
const SEEN: Reg = reg(5);
const BLOCKS: Reg = reg(6);
const AT: Reg = reg(7);
const SCORES: Reg = reg(8);
const MASK: Reg = reg(9);
const LEFT: Reg = reg(10);
const MASK_AT: Reg = reg(11);
const K_SCALES: Reg = reg(12);
const V_SCALES: Reg = reg(13);
const SCALES_AT: Reg = reg(14);

/// Shape of the op.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub m: usize,
    pub heads: usize,
    pub cache: CacheLayout,
    pub scale: f32,
}

/// Memory of one head's work.
struct At {
    q: usize,
    raw: usize,
    wide: usize,
    lo: usize,
    hi: usize,
    transpose: usize,
    sums: usize,
    mask: usize,
    scores: usize,
    max: usize,
    spread: usize,
    p: usize,
    /// Each element of the query in a block.
    query: usize,
    acc: usize,
    exp: usize,
    /// Scales of a block of an int8 cache, weights times them, and bits of the positions that count.
    cache_scale: usize,
    scaled: usize,
    bits: usize,
}

/// `q, k cache, v cache, out, pos`.
pub fn attention(
    e: &mut Emit,
    ub: usize,
    a: Attention,
    [q, k, v, out, pos]: [Place; 5],
    tables: &Tables,
) -> Result<(), UbTooSmall> {
    let at = space(ub, &a)?;
    let d = a.cache.d;
    e.point(AT, tables.transpose);
    e.load(at.transpose, behind(AT, 0), 1, 2048, 0, 0);
    e.point(MASK, tables.mask);
    e.point(AT, pos);
    e.scalar_load(SEEN, behind(AT, 0));
    e.point(Q, q);
    e.point(OUT, out);
    e.begin(Count::Fixed(a.m as u32));
    e.add(SEEN, SEEN, 1);
    divide_up(e, BLOCKS, SEEN, ROWS);
    e.point(K, k);
    e.point(V, v);
    if a.cache.has_scales() {
        let behind = |place: Place| (place.0, place.1 + a.cache.scales_offset_bytes() as i64);
        e.point(K_SCALES, behind(k));
        e.point(V_SCALES, behind(v));
    }
    e.begin(Count::Fixed(a.cache.heads as u32));
    e.begin(Count::Fixed((a.heads / a.cache.heads) as u32));
    head(e, &a, &at);
    e.end(&[(Q, step(4 * d)), (OUT, step(4 * d))]);
    let bytes = step(a.cache.head_bytes());
    let scales = step(4 * a.cache.positions());
    e.end(&[(K, bytes), (V, bytes), (K_SCALES, scales), (V_SCALES, scales)]);
    e.end(&[]);
    Ok(())
}

fn space(ub: usize, a: &Attention) -> Result<At, UbTooSmall> {
    let mut space = Space::new(ub);
    let pitch = pitch(&a.cache);
    let [q, raw, wide] = [pitch, ROWS * pitch, ROWS * pitch].map(|n| space.floats(n));
    let [lo, hi, transpose, sums] = [8 * ROWS; 4].map(|n| space.floats(n));
    let [mask, scores, max, p, acc] =
        [ROWS, a.cache.ctx.next_multiple_of(ROWS), ROWS, BLOCK * ROWS, pitch].map(|n| space.floats(n));
    Ok(At {
        q: q?,
        raw: raw?,
        wide: wide?,
        lo: lo?,
        hi: hi?,
        transpose: transpose?,
        sums: sums?,
        mask: mask?,
        scores: scores?,
        max: max?,
        spread: space.floats(8 * ROWS)?,
        p: p?,
        query: space.floats(8 * a.cache.d)?,
        acc: acc?,
        exp: space.take(Emit::exp_bytes(ROWS))?,
        cache_scale: space.floats(ROWS)?,
        scaled: space.floats(ROWS)?,
        bits: space.take(ROWS / 8)?,
    })
}

/// One head of one token row.
fn head(e: &mut Emit, a: &Attention, at: &At) {
    let d = a.cache.d;
    e.load(at.q, behind(Q, 0), 1, 4 * d, 0, 0);
    e.loaded();
    e.spread(at.query, at.q, d);
    e.fill(at.max, f32::MIN.to_bits(), ROWS);
    blocks(e, a, (K, K_SCALES), |e| scores(e, a, at));
    // The largest score, in every lane of a block.
    e.vec(VecOp::BlockMax, F32, dense(at.p), dense(at.max), Second::None, 1, 64);
    e.vec(VecOp::BlockMax, F32, dense(at.p + 32), dense(at.p), Second::None, 1, 8);
    e.spread(at.spread, at.p + 32, 1);
    e.fill(at.p, 0, 16);
    e.add(SCORES, Reg::ZERO, at.scores as i64);
    e.begin(Count::Reg(BLOCKS));
    let row = dense(0).behind(SCORES);
    e.vec(VecOp::Sub, F32, dense(at.sums), row, Second::Vector(block(at.spread)), 1, ROWS);
    e.exp(at.sums, at.exp, ROWS);
    e.vec(VecOp::Mov, F32, row, dense(at.sums), Second::None, 1, ROWS);
    // Position mod 16 is the partial.
    let p = strided(at.p, 1, 0);
    e.vec(VecOp::Add, F32, p, strided(at.sums, 1, 2), Second::Vector(p), ROWS / 16, 16);
    e.end(&[(SCORES, 4 * ROWS as i32)]);
    e.fill(at.acc, 0, pitch(&a.cache));
    blocks(e, a, (V, V_SCALES), |e| values(e, a, at));
    e.each(VecOp::Mov, F32, at.lo, at.p, Second::None, 8);
    e.each(VecOp::Mov, F32, at.hi, at.p + 32, Second::None, 8);
    let l = e.reduce(at.lo, at.hi, at.transpose, at.sums, 1);
    e.spread(at.spread, l, 1);
    e.each(VecOp::Div, F32, at.acc, at.acc, Second::Vector(block(at.spread)), d);
    e.computed();
    e.store(behind(OUT, 0), at.acc, 1, 4 * d, 0, 0);
    e.stored();
}

/// Runs `body` on each block of positions; before it, registers point at the block's cache rows and scores.
fn blocks(e: &mut Emit, a: &Attention, (base, scales): (Reg, Reg), body: impl Fn(&mut Emit)) {
    let (_, size) = element(a.cache.dtype);
    e.add(AT, base, 0);
    e.add(SCALES_AT, scales, 0);
    e.add(LEFT, SEEN, 0);
    e.add(SCORES, Reg::ZERO, 0);
    e.begin(Count::Reg(BLOCKS));
    body(e);
    e.add(LEFT, LEFT, -(ROWS as i64));
    e.end(&[(AT, step(ROWS * size * a.cache.d)), (SCORES, 4 * ROWS as i32), (SCALES_AT, 4 * ROWS as i32)]);
}

/// Loads 64 rows of the cache and widens them.
fn load_rows(e: &mut Emit, a: &Attention, at: &At) {
    let (ty, size) = element(a.cache.dtype);
    let (d, pitch) = (a.cache.d, pitch(&a.cache));
    e.load(at.raw, behind(AT, 0), ROWS, size * d, size * d, size * pitch);
    load_scales(e, a, at);
    e.loaded();
    widen_rows(e, at.wide, at.raw, ty, (ROWS, d, pitch));
}

/// Loads the scales of 64 positions, if the cache has some.
fn load_scales(e: &mut Emit, a: &Attention, at: &At) {
    if a.cache.has_scales() {
        e.load(at.cache_scale, behind(SCALES_AT, 0), 1, 4 * ROWS, 0, 0);
    }
}

/// Loads 64 keys, which lie element by element for 16 positions each; returns where they are, element by element for all.
fn load_keys(e: &mut Emit, a: &Attention, at: &At) -> usize {
    let (ty, size) = element(a.cache.dtype);
    let (d, parts) = (a.cache.d, ROWS / BLOCK);
    let run = BLOCK * size;
    if run.is_multiple_of(32) {
        for part in 0..parts {
            e.load(at.raw + part * run, behind(AT, part * run * d), d, run, run, ROWS * size);
        }
        e.loaded();
        widen(e, at.wide, at.raw, ty, ROWS * d);
        return at.wide;
    }
    // Shorter than a block: widened first, then blocks of 8 positions move.
    e.load(at.raw, behind(AT, 0), 1, ROWS * size * d, 0, 0);
    e.loaded();
    widen(e, at.wide, at.raw, ty, ROWS * d);
    for eighth in 0..ROWS / 8 {
        let (from, to) = (at.wide + 4 * (eighth / 2 * BLOCK * d + eighth % 2 * 8), at.raw + 32 * eighth);
        let (full, tail) = (d / 8, d % 8);
        let mut moves = |first: usize, repeats: usize, lanes: usize| {
            let (dst, src) = (strided(to + 4 * ROWS * first, 8, 64), strided(from + 4 * BLOCK * first, 2, 16));
            e.vec(VecOp::Mov, F32, dst, src, Second::None, repeats, lanes);
        };
        if full > 0 {
            moves(0, full, 64);
        }
        if tail > 0 {
            moves(8 * full, 1, 8 * tail);
        }
    }
    at.raw
}

fn scores(e: &mut Emit, a: &Attention, at: &At) {
    // MASK + 4 · (64 - min(left, 64)).
    e.scalar(ScalarOp::Min, MASK_AT, LEFT, ScalarOperand::Imm(ROWS as i64));
    e.scalar(ScalarOp::Mul, MASK_AT, MASK_AT, ScalarOperand::Imm(-4));
    e.add(MASK_AT, MASK_AT, 4 * ROWS as i64);
    e.scalar(ScalarOp::Add, MASK_AT, MASK_AT, ScalarOperand::Reg(MASK));
    e.load(at.mask, behind(MASK_AT, 0), 1, 4 * ROWS, 0, 0);
    load_scales(e, a, at);
    let keys = load_keys(e, a, at);
    let s = at.sums;
    // Partial i mod 16 of all positions.
    e.fill(at.p, 0, BLOCK * ROWS);
    for first in (0..a.cache.d).step_by(BLOCK) {
        let keys = Second::Vector(dense(keys + 4 * ROWS * first));
        let query = strided(at.query + 32 * first, 0, 1);
        e.vec(VecOp::Mla, F32, dense(at.p), query, keys, (a.cache.d - first).min(BLOCK), ROWS);
    }
    for half in [8, 4, 2] {
        e.each2(VecOp::Add, at.p, at.p, at.p + 4 * ROWS * half, ROWS * half);
    }
    e.each2(VecOp::Add, s, at.p, at.p + 4 * ROWS, ROWS);
    if a.cache.has_scales() {
        e.compare(VecOp::CmpEq, at.bits, at.mask, 0.0, ROWS);
        e.fill(at.scaled, 0, ROWS);
        e.select(at.scaled, at.cache_scale, at.bits, ROWS);
        e.each2(VecOp::Mul, s, s, at.scaled, ROWS);
    }
    e.each(VecOp::Mul, F32, s, s, Second::f32(a.scale), ROWS);
    e.each2(VecOp::Add, s, s, at.mask, ROWS);
    e.each2(VecOp::Max, at.max, at.max, s, ROWS);
    let row = dense(at.scores).behind(SCORES);
    e.vec(VecOp::Mov, F32, row, dense(s), Second::None, 1, ROWS);
    e.computed();
}

fn values(e: &mut Emit, a: &Attention, at: &At) {
    load_rows(e, a, at);
    // One block for each position's weight.
    let row = if a.cache.has_scales() {
        scale_weights(e, at);
        strided(at.scaled, 1, 1)
    } else {
        strided(at.scores, 1, 1).behind(SCORES)
    };
    e.vec(VecOp::BlockFill, F32, dense(at.spread), row, Second::None, ROWS / 8, 64);
    for first in (0..a.cache.d).step_by(64) {
        let lanes = (a.cache.d - first).min(64);
        let rows = Second::Vector(strided(at.wide + 4 * first, 1, pitch(&a.cache) / 8));
        e.vec(VecOp::Mla, F32, strided(at.acc + 4 * first, 1, 0), strided(at.spread, 0, 1), rows, ROWS, lanes);
    }
    e.computed();
}

/// Weights times the scales of their positions; zero where the weight is.
fn scale_weights(e: &mut Emit, at: &At) {
    let weights = dense(at.scores).behind(SCORES);
    e.vec(VecOp::CmpGt, F32, dense(at.bits), weights, Second::f32(0.0), 1, ROWS);
    let scales = Second::Vector(dense(at.cache_scale));
    e.vec(VecOp::Mul, F32, dense(at.cache_scale), weights, scales, 1, ROWS);
    e.fill(at.scaled, 0, ROWS);
    e.select(at.scaled, at.cache_scale, at.bits, ROWS);
}
