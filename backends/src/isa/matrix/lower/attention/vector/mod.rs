//! Attention on the vector unit alone: a tile of queries (token rows times the query heads of one KV head) against all
//! positions before its last row.
//!
//! Scores need the largest of all before any weight is known, so each tile passes over its positions twice. The first
//! pass loads keys and leaves scores in global memory, the second takes them back as weights and loads values; what
//! lies in the future of the first row of the tile is hidden position by position, what lies in the future of the last
//! one is not visited. Rows that see none of some positions are left out of most of the work, a third of them at a time.
//! A core takes every n-th pair of tile and KV head.
//!
//! Over int8 caches queries and weights are codes ([`codes`]), and weights are a pass of their own between the two.
//!
//! Keys and queries lie with the elements of each block in the order of [`order_offsets`](crate::isa::matrix::lower::vector::order_offsets), so that the sum over a
//! block is the end of `numerics::reduce`. The first product of a partial is not added to +0, which only loses the sign
//! of a zero score; adding it to the mask, or exp, does that anyway.

mod codes;
mod space;
mod step;

use self::space::At;
use super::{Attention, Operands};
use crate::isa::matrix::lower::cores::reg;
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::vector::rows::{divide_up, step as bytes_step};
use crate::isa::matrix::lower::vector::{Sharing, Tables, UbTooSmall, behind};
use crate::isa::matrix::program::StartValues;
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{Count, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::vec::MAX_REPEATS;

// Operands.
const Q: Reg = reg(1);
const OUT: Reg = reg(2);
const K: Reg = reg(3);
const V: Reg = reg(4);
const POS: Reg = reg(5);
const SCORES: Reg = reg(6);
const MASK: Reg = reg(7);
// Of the core: its number, its whole tiles, and its shorter ones.
const CORE: Reg = reg(8);
const WHOLE: Reg = reg(9);
const SHORT: Reg = reg(10);
// Of the tile: its number, its query heads, the position of its first row.
const ITEM: Reg = reg(11);
const HEADS: Reg = reg(12);
const FIRST: Reg = reg(13);
const Q_AT: Reg = reg(14);
const OUT_AT: Reg = reg(15);
const K_AT: Reg = reg(16);
const V_AT: Reg = reg(17);
// Of the positions at hand: cache rows, their scales, scores; how far the first row of the tile is ahead of them.
const AT: Reg = reg(18);
const SCALES_AT: Reg = reg(19);
const SCORES_AT: Reg = reg(20);
const AHEAD: Reg = reg(21);
const MASK_AT: Reg = reg(22);
const COUNT: Reg = reg(23);

/// Flags of the slot of cache rows, of loaded scores and of scores to store; 0 is [`Emit::after`]'s.
mod flag {
    pub const ROWS: u8 = 1;
    pub const LOADED: u8 = 2;
    pub const STORED: u8 = 1;
}

/// Most elements of a head, whole blocks of the cache's type filled: keys follow each other in the blocks of a repeat, which are at most 255 blocks apart.
pub const MOST_ELEMENTS: usize = 8 * MAX_REPEATS as usize;

/// Token rows of a tile at most: what the table of masks holds.
const MOST_ROWS: usize = 96;

/// Queries from which on an instruction has a repeat for each of them.
const MANY: usize = 24;

impl Attention {
    /// The best tile of `rows` token rows that fits UB, and where its parts lie.
    fn tile(&self, ub: usize, rows: usize) -> Result<(Tile, At), UbTooSmall> {
        let mut refused = UbTooSmall { needed: ub + 1, limit: ub };
        let heads = self.heads_together();
        for &(way, unit, batch) in Tile::ways(rows * heads, self.cache.element_bytes()) {
            let tile = Tile { way, rows, heads, unit, batch };
            match At::take(ub, self, &tile) {
                Ok(at) => return Ok((tile, at)),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// The largest tiles that fit UB and leave none of `cores` cores without one, if there are enough rows.
    fn tiles(&self, ub: usize, cores: usize) -> Result<Tiles, UbTooSmall> {
        // Cores would share blocks of 32 bytes: one does it.
        let cores = if self.cache.d.is_multiple_of(8) { cores } else { 1 };
        let along_rows = cores.div_ceil(self.parts());
        let most = (self.m / along_rows).clamp(1, MOST_ROWS);
        let of = |rows: usize| {
            let whole = self.tile(ub, rows)?;
            let rest = self.m % rows;
            let short = if rest > 0 { Some(self.tile(ub, rest)?) } else { None };
            Ok(Tiles { cores: cores.min(self.parts() * self.m.div_ceil(rows)), whole, short })
        };
        let mut found = of(most);
        for rows in (1..most).rev() {
            if found.is_ok() {
                break;
            }
            found = of(rows);
        }
        found
    }
}

/// How an op is cut.
struct Tiles {
    /// Cores that share it.
    cores: usize,
    whole: (Tile, At),
    /// The token rows that are left, if any.
    short: Option<(Tile, At)>,
}

impl Tiles {
    /// Bytes of the scores of one core.
    fn core_bytes(&self, a: &Attention) -> usize {
        let of = |tile: &Tile| 4 * tile.queries() * a.cache.ctx.next_multiple_of(tile.diagonal() * tile.unit);
        of(&self.whole.0).max(self.short.as_ref().map_or(0, |(tile, _)| of(tile)))
    }
}

/// Bytes of global memory that scores wait in, on `cores` cores.
pub fn scores_bytes(a: &Attention, ub: usize, cores: usize) -> usize {
    a.tiles(ub, cores).map_or(0, |tiles| tiles.cores * tiles.core_bytes(a))
}

/// How instructions cover pairs of a query and a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A repeat for each query, a block for each of eight positions.
    Queries,
    /// An instruction for each query, a block for each position.
    Positions,
}

/// What is done together.
#[derive(Clone, Copy, Debug)]
struct Tile {
    way: Way,
    /// Token rows, and query heads of each; query `r · heads + h`.
    rows: usize,
    heads: usize,
    /// Positions of a unit: scores lie as `[unit][query][position]`.
    unit: usize,
    /// Units whose weights are computed together.
    batch: usize,
}

impl Tile {
    /// Ways, units and batches to try, for `queries` queries and elements of the cache of `size` bytes.
    fn ways(queries: usize, size: usize) -> &'static [(Way, usize, usize)] {
        use Way::{Positions, Queries};
        if queries >= MANY {
            return &[(Queries, 8, 4), (Queries, 8, 2)];
        }
        let all = &[(Positions, 128, 1), (Positions, 64, 1), (Positions, 32, 1), (Positions, 16, 1)];
        // Behind the cache there is room for 64 rows of f32.
        if size > 2 { &all[1..] } else { all }
    }

    fn queries(&self) -> usize {
        self.rows * self.heads
    }

    /// Units between which a step stops where some of its positions are hidden: whole rounds of partial sums.
    fn diagonal(&self) -> usize {
        match self.way {
            Way::Queries => 2,
            Way::Positions => 1,
        }
    }

    /// Token rows that are left out together where they see none of some positions: a third of them, in eights.
    fn left_out(&self) -> usize {
        match self.way {
            Way::Queries => (self.rows / 3).next_multiple_of(8).max(8),
            Way::Positions => self.rows,
        }
    }
}

/// Positions of a step that some row of the tile sees.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// By every row.
    All,
    /// By some rows only, and by none of the first so many.
    From(usize),
}

/// Writes `q, k cache, v cache, out, pos` for `cores` cores, with `scores` for scores; returns how many share it, and
/// the registers that differ between them.
pub fn attention(
    e: &mut Emit,
    a: &Attention,
    [q, k, v, out, pos, scores]: Operands,
    tables: &Tables,
    (ub, cores): (usize, usize),
) -> Result<Sharing, UbTooSmall> {
    let tiles = a.tiles(ub, cores)?;
    let cores = tiles.cores;
    let wholes = a.parts() * (a.m / tiles.whole.0.rows);
    // Short tiles take longer for a row: they are the first rows, which see the fewest positions.
    let shorter = tiles.short.as_ref().map_or(0, |(tile, _)| tile.rows);
    let starts = split(e, a, wholes, cores);
    e.point(MASK, pos);
    e.scalar_load(POS, behind(MASK, 0));
    for (reg, place) in [(Q, q), (OUT, out), (K, k), (V, v)] {
        e.point(reg, place);
    }
    e.point(AT, scores);
    e.index(SCORES, AT, CORE, tiles.core_bytes(a));
    presets(e, true);
    items(e, a, (&tiles.whole, WHOLE, shorter), tables, (0, cores));
    if let Some(short) = &tiles.short {
        items(e, a, (short, SHORT, 0), tables, (wholes, cores));
    }
    presets(e, false);
    Ok((cores, starts))
}

/// Sets, or takes, the flags that say that slots are free.
fn presets(e: &mut Emit, is_start: bool) {
    for (src, dst, id) in [
        (Queue::V, Queue::Mte2, flag::ROWS),
        (Queue::V, Queue::Mte2, flag::LOADED),
        (Queue::Mte3, Queue::V, flag::STORED),
    ] {
        if is_start { e.set(src, dst, id) } else { e.wait(src, dst, id) }
    }
}

/// Shares `wholes` whole tiles among cores, one after the other, then short ones: later ones take longer.
fn split(e: &mut Emit, a: &Attention, wholes: usize, cores: usize) -> Vec<StartValues> {
    let count = |all: usize, first: usize| all.saturating_sub(first).div_ceil(cores) as i64;
    let values = |core: usize| {
        let first_short = (core + first_offset(wholes, cores)) % cores;
        [core as i64, count(wholes, core), count(a.parts(), first_short)]
    };
    let regs = [CORE, WHOLE, SHORT];
    if cores == 1 {
        for (reg, value) in regs.into_iter().zip(values(0)) {
            e.add(reg, Reg::ZERO, value);
        }
        return vec![];
    }
    let start = |(i, reg)| StartValues { reg, values: (0..cores).map(|core| values(core)[i]).collect() };
    regs.into_iter().enumerate().map(start).collect()
}

/// What to add to a core's number, modulo `cores`, for its first tile behind `dealt` tiles dealt before.
fn first_offset(dealt: usize, cores: usize) -> usize {
    cores - dealt % cores
}

/// The core's tiles of one size, which begin at token row `first_row`, behind `dealt` tiles of another.
fn items(
    e: &mut Emit,
    a: &Attention,
    ((tile, at), count, first_row): (&(Tile, At), Reg, usize),
    tables: &Tables,
    (dealt, cores): (usize, usize),
) {
    at.prepare(e, a, tile, tables);
    e.add(ITEM, CORE, first_offset(dealt, cores) as i64);
    e.scalar(ScalarOp::Rem, ITEM, ITEM, ScalarOperand::Imm(cores as i64));
    e.begin(Count::Reg(count));
    addresses(e, a, tile, first_row);
    let step = step::Step { a, tile, at };
    step.load_queries(e);
    pass(e, a, tile, (K_AT, tile.diagonal()), |e, units, seen| step.scores(e, units, seen, tables));
    step.between(e);
    match &at.codes {
        Some(codes) => {
            pass(e, a, tile, (V_AT, tile.batch), |e, units, seen| step.weights(e, codes, units, seen));
            step.between_codes(e, codes);
            pass(e, a, tile, (V_AT, tile.batch), |e, units, seen| step.coded_values(e, codes, units, seen));
        }
        None => pass(e, a, tile, (V_AT, tile.batch), |e, units, seen| step.values(e, units, seen)),
    }
    step.finish(e);
    // At most the machine's cores.
    e.add(ITEM, ITEM, cores as i64);
    e.end(&[]);
}

/// Registers of the tile `ITEM`.
fn addresses(e: &mut Emit, a: &Attention, tile: &Tile, first_row: usize) {
    let imm = |value: usize| ScalarOperand::Imm(value as i64);
    let row_bytes = 4 * a.heads * a.cache.d;
    e.scalar(ScalarOp::Rem, HEADS, ITEM, imm(a.parts()));
    e.scalar(ScalarOp::Div, FIRST, ITEM, imm(a.parts()));
    e.scalar(ScalarOp::Mul, FIRST, FIRST, imm(tile.rows));
    e.add(FIRST, FIRST, first_row as i64);
    for (to, from) in [(Q_AT, Q), (OUT_AT, OUT)] {
        e.index(to, from, FIRST, row_bytes);
        e.index(AT, to, HEADS, 4 * tile.heads * a.cache.d);
        e.add(to, AT, 0);
    }
    e.scalar(ScalarOp::Add, FIRST, FIRST, ScalarOperand::Reg(POS));
    // From here on the KV head.
    e.scalar(ScalarOp::Div, HEADS, HEADS, imm(a.parts() / a.cache.heads));
    e.index(K_AT, K, HEADS, a.cache.head_bytes());
    e.index(V_AT, V, HEADS, a.cache.head_bytes());
}

/// Runs `body` on all positions that the tile sees, first in steps of `units` units that every row sees.
fn pass(e: &mut Emit, a: &Attention, tile: &Tile, (rows, units): (Reg, usize), body: impl Fn(&mut Emit, usize, Seen)) {
    let imm = |value: usize| ScalarOperand::Imm(value as i64);
    let positions = units * tile.unit;
    let advance = |units: usize| {
        let positions = units * tile.unit;
        [
            (AT, bytes_step(positions * a.cache.row_bytes())),
            (SCALES_AT, bytes_step(4 * positions)),
            (SCORES_AT, bytes_step(4 * positions * tile.queries())),
            (AHEAD, -bytes_step(positions)),
        ]
    };
    e.add(AT, rows, 0);
    if a.cache.has_scales() {
        let base = if rows == K_AT { K } else { V };
        e.index(SCALES_AT, base, HEADS, 4 * a.cache.positions());
        e.add(SCALES_AT, SCALES_AT, a.cache.scales_offset_bytes() as i64);
    }
    e.add(SCORES_AT, SCORES, 0);
    e.add(AHEAD, FIRST, 0);
    e.add(COUNT, FIRST, 1);
    e.scalar(ScalarOp::Div, COUNT, COUNT, imm(positions));
    e.begin(Count::Reg(COUNT));
    body(e, units, Seen::All);
    e.end(&advance(units));
    for first in (0..tile.rows).step_by(tile.left_out()) {
        // Steps that begin ahead of fewer rows than those that are left out next.
        e.add(COUNT, AHEAD, tile.rows.min(first + tile.left_out()) as i64);
        divide_up(e, COUNT, COUNT, tile.diagonal() * tile.unit);
        e.begin(Count::Reg(COUNT));
        body(e, tile.diagonal(), Seen::From(first));
        e.end(&advance(tile.diagonal()));
    }
}

#[cfg(test)]
mod tests {
    use tcc_ir::cache::CacheLayout;
    use tcc_ir::ty::DType;

    use super::*;

    #[test]
    fn tiles_cover_every_row_and_their_scores_fit() {
        // Large heads leave room for few rows: what is left of the rows may need another way, with longer units.
        let shapes = [
            (512, 5, 1, DType::Q8, 64, 128),
            (448, 1, 1, DType::F32, 100, 128),
            (480, 1, 1, DType::F32, 49, 128),
            (128, 21, 2, DType::Q8, 8, 192),
            (256, 11, 2, DType::F16, 9, 192),
            (128, 4, 5, DType::F16, 64, 192),
            (100, 3, 1, DType::F16, 7, 128),
        ];
        for (d, group, kv_heads, dtype, m, kib) in shapes {
            for cores in [1, 8, 48] {
                let cache = CacheLayout { heads: kv_heads, ctx: m, d, dtype };
                let a = Attention { m, heads: group * kv_heads, cache, scale: 1.0 };
                let tiles = a.tiles(kib << 10, cores).expect("it fits");
                let rows = tiles.whole.0.rows;
                let short = tiles.short.as_ref().map_or(0, |(tile, _)| tile.rows);
                assert_eq!(m, m / rows * rows + short, "{d} {group} {m}");
                for (tile, _) in [Some(&tiles.whole), tiles.short.as_ref()].into_iter().flatten() {
                    let positions = m.next_multiple_of(tile.diagonal() * tile.unit);
                    assert!(tiles.core_bytes(&a) >= 4 * tile.queries() * positions, "{d} {group} {m}");
                }
                let most = if d % 8 == 0 { cores.min(a.parts() * m) } else { 1 };
                assert!(2 * tiles.cores > most, "{d} {group} {m}: {} of {cores} cores", tiles.cores);
            }
        }
    }
}
