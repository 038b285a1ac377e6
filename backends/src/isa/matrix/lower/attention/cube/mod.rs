//! Attention over an int8 cache where a cube multiplies: integers meet integers, so both products are the cube's, and all
//! that is between them the vector unit's.
//!
//! A tile is some token rows times the query heads of one KV head. It passes over the positions that it sees three times: the
//! first pass makes scores of sums (`vector.rs`) and finds the largest, the second makes weights of them, the third codes of
//! weights, whose products with values the cube adds up (`products.rs`). Scores and weights wait in global memory, whatever the
//! context's length is.
//!
//! On a coupled core both sides are one stream. On split machines a cube core and its vector cores are a group, in which each
//! vector core has a tile of its own and the cube core multiplies for all of them; sums, planes of codes and results pass
//! through global memory, which L2 holds. Signals of the group's mode order it: GO, codes of queries or of weights may be
//! read; DONE, sums may; READ and TAKEN, a slot of sums or of codes of weights may be written again. Where a path leads from
//! L0C to UB of the vector cores, sums and results take it instead, through one slot.
//!
//! Positions of few tiles are cut into pieces for cores that would have none (`cut.rs`, `pieces.rs`).

mod cut;
mod ends;
mod items;
mod pieces;
mod plan;
mod products;
mod vector;

pub use self::pieces::pieces;
pub use self::plan::Plan;
use self::plan::Set;
use super::{Attention, Operands};
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::vector::cache::pitch;
use crate::isa::matrix::lower::vector::{Place, Sharing, Tables};
use crate::isa::matrix::program::inst::{ScalarOp, ScalarOperand};
use crate::isa::matrix::program::{CoreKind, Stream};

/// Flags: slots of rows and of sums of scores, planes of weights, turned values; sums in UB, scales, scores or weights; query
/// codes in L1; the last scores or weights in global memory.
mod flag {
    pub const ROWS: u8 = 1;
    pub const WEIGHTS: u8 = 3;
    pub const TURNED: u8 = 4;
    pub const SUMS: u8 = 5;
    pub const SCALES: u8 = 1;
    pub const LOADED: u8 = 2;
    pub const STORED: u8 = 1;
    pub const CODES: u8 = 1;
    pub const LAST: u8 = 1;
}

/// The group's signals.
const GO: u8 = 0;
const DONE: u8 = 1;
const READ: u8 = 2;
const TAKEN: u8 = 3;

/// What the sides of a tile look at.
struct Side<'a> {
    a: &'a Attention,
    plan: &'a Plan,
    set: &'a Set,
    tables: &'a Tables,
    /// All scratch in global memory.
    scratch: Place,
    is_split: bool,
}

impl Side<'_> {
    /// Elements from one row to the next: whole strips.
    fn pitch(&self) -> usize {
        pitch(&self.a.cache)
    }
}

/// Writes the op for coupled cores; returns how many share it, and the registers that differ between them.
pub fn coupled(e: &mut Emit, a: &Attention, plan: &Plan, operands: Operands, tables: &Tables) -> Sharing {
    let starts = plan.starts(e, 1);
    begin(e, operands);
    own_scratch(e, plan, 1);
    let side = |set| Side { a, plan, set, tables, scratch: operands[5], is_split: false };
    products::begin(e, plan, tables, false);
    products::presets(e, false, true);
    vector::presets(e, &plan.cores, true);
    plan.items(
        e,
        |e, set| {
            side(set).begin_cube(e);
            side(set).begin_vector(e);
        },
        |e, set| {
            let side = side(set);
            plan.steps(e, set);
            side.addresses(e);
            side.load_codes(e);
            side.pass_with_rows(e, items::K, |e, step| {
                side.scores(e, step);
                side.score(e, step);
            });
            side.between_scores(e);
            side.pass(e, items::V, |e, step| side.weigh(e, step));
            side.between_weights(e);
            side.clear_sums(e);
            side.pass_with_rows(e, items::V, |e, step| {
                side.code_weights(e, step);
                side.turn_step(e, step);
                side.add_step(e, step);
            });
            side.code_next_queries(e);
            side.finish(e);
        },
    );
    vector::presets(e, &plan.cores, false);
    products::presets(e, false, false);
    (plan.groups, starts)
}

/// The two streams of the op on a split machine.
pub fn streams(op: u16, a: &Attention, plan: &Plan, operands: Operands, tables: &Tables) -> [Stream; 2] {
    let side = |set| Side { a, plan, set, tables, scratch: operands[5], is_split: true };
    [cube_stream(op, plan, operands, tables, side), vector_stream(op, plan, operands, side)]
}

fn cube_stream<'a>(
    op: u16,
    plan: &'a Plan,
    operands: Operands,
    tables: &Tables,
    side: impl Fn(&'a Set) -> Side<'a>,
) -> Stream {
    let mut e = Emit::default();
    e.op = op;
    let starts = plan.starts(&mut e, 1);
    begin(&mut e, operands);
    products::begin(&mut e, plan, tables, true);
    products::presets(&mut e, true, true);
    products::credits(&mut e, &plan.cores, true);
    plan.items(
        &mut e,
        |e, set| side(set).begin_cube(e),
        |e, set| {
            let side = side(set);
            plan.steps(e, set);
            side.load_codes(e);
            side.cube_pass(e, items::K, |e, step| side.scores(e, step));
            side.clear_sums(e);
            side.values(e);
            side.results(e);
        },
    );
    products::credits(&mut e, &plan.cores, false);
    products::presets(&mut e, true, false);
    e.stream(CoreKind::Cube, plan.groups, starts)
}

fn vector_stream<'a>(op: u16, plan: &'a Plan, operands: Operands, side: impl Fn(&'a Set) -> Side<'a>) -> Stream {
    let per = plan.cores.together();
    let mut e = Emit::default();
    e.op = op;
    let starts = plan.starts(&mut e, per);
    begin(&mut e, operands);
    own_scratch(&mut e, plan, per);
    vector::presets(&mut e, &plan.cores, true);
    vector::credits(&mut e, &plan.cores, true);
    plan.items(
        &mut e,
        |e, set| side(set).begin_vector(e),
        |e, set| {
            let side = side(set);
            plan.steps(e, set);
            side.addresses(e);
            side.pass(e, items::K, |e, step| side.score(e, step));
            side.between_scores(e);
            side.pass(e, items::V, |e, step| side.weigh(e, step));
            side.between_weights(e);
            side.pass(e, items::V, |e, step| side.code_weights(e, step));
            side.code_next_queries(e);
            side.finish(e);
        },
    );
    vector::credits(&mut e, &plan.cores, false);
    vector::presets(&mut e, &plan.cores, false);
    e.stream(CoreKind::Vector, plan.groups * per, starts)
}

/// Points at the scratch of the core, one of `per` in its group.
fn own_scratch(e: &mut Emit, plan: &Plan, per: usize) {
    use items::{AT, GROUP, SCRATCH, SUB};
    e.scalar(ScalarOp::Mul, AT, GROUP, ScalarOperand::Imm(per as i64));
    e.scalar(ScalarOp::Add, AT, AT, ScalarOperand::Reg(SUB));
    e.scalar(ScalarOp::Mul, AT, AT, ScalarOperand::Imm(plan.core_bytes() as i64));
    e.scalar(ScalarOp::Add, SCRATCH, SCRATCH, ScalarOperand::Reg(AT));
}

/// Registers of all tiles.
fn begin(e: &mut Emit, [q, k, v, out, pos, scratch]: Operands) {
    use items::{K, OUT, Q, SCRATCH, V};
    items::operands(e, &[(Q, q), (OUT, out), (K, k), (V, v), (SCRATCH, scratch)], pos);
}
