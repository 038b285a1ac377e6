//! Which tiles a core works on, and its way over their positions: the same for both sides of a group, so that they meet.

use super::super::Attention;
use super::plan::{POSITIONS, Plan, Set, Tile};
use crate::isa::matrix::lower::cores::reg;
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::vector::{Place, behind};
use crate::isa::matrix::program::StartValues;
use crate::isa::matrix::program::addr::Reg;
use crate::isa::matrix::program::inst::{Count, ScalarOp, ScalarOperand};

// Operands.
pub const Q: Reg = reg(1);
pub const OUT: Reg = reg(2);
pub const K: Reg = reg(3);
pub const V: Reg = reg(4);
pub const POS: Reg = reg(5);
// Of the core: its scratch, its group, its number in it, the group's tiles of each set.
pub const SCRATCH: Reg = reg(6);
pub const GROUP: Reg = reg(7);
pub const SUB: Reg = reg(8);
const COUNTS: [Reg; 2] = [reg(9), reg(10)];
// What the group works on, how far the next is from it, and how many are left in the set.
const PAIR: Reg = reg(11);
const STRIDE: Reg = reg(12);
const LEFT: Reg = reg(21);
// Of a tile: its number, its query heads and later its KV head, the position of its first row, 1 if its results are stored.
const ITEM: Reg = reg(13);
pub const HEADS: Reg = reg(14);
pub const FIRST: Reg = reg(15);
pub const STORES: Reg = reg(16);
// Steps of all units, and of one.
const LONG: Reg = reg(17);
const SHORT: Reg = reg(18);
pub const AT: Reg = reg(19);
/// 1 if another tile follows in the set.
const HAS_NEXT: Reg = reg(20);
/// Free for the sides.
pub const FREE: u8 = 22;

fn imm(value: usize) -> ScalarOperand {
    ScalarOperand::Imm(value as i64)
}

impl Plan {
    /// The registers that differ between cores of a stream, which has `per` cores for each group.
    pub fn starts(&self, e: &mut Emit, per: usize) -> Vec<StartValues> {
        let cores = self.groups * per;
        // Numbers of tiles and of cores.
        let count = |group: usize, set: &Set| {
            self.dealt(group).filter(|pair| (set.dealt..set.dealt + set.pairs).contains(pair)).count() as i64
        };
        let mut starts = vec![
            StartValues { reg: GROUP, values: (0..cores).map(|core| (core / per) as i64).collect() },
            StartValues { reg: SUB, values: (0..cores).map(|core| (core % per) as i64).collect() },
        ];
        for (reg, set) in COUNTS.into_iter().zip(&self.sets) {
            starts.push(StartValues { reg, values: (0..cores).map(|core| count(core / per, set)).collect() });
        }
        if cores > 1 {
            return starts;
        }
        for StartValues { reg, values } in starts {
            e.add(reg, Reg::ZERO, values.first().copied().unwrap_or(0));
        }
        vec![]
    }

    /// All tiles of the core: `before` stands in front of those of a set, `body` is for one (or those of a group that are
    /// multiplied at the same time).
    pub fn items<'p>(&'p self, e: &mut Emit, before: impl Fn(&mut Emit, &'p Set), body: impl Fn(&mut Emit, &'p Set)) {
        let groups = self.groups as i64;
        e.add(PAIR, GROUP, 0);
        // 2 (groups - group) - 1.
        e.scalar(ScalarOp::Mul, STRIDE, GROUP, ScalarOperand::Imm(-2));
        e.add(STRIDE, STRIDE, 2 * groups - 1);
        for (count, set) in COUNTS.into_iter().zip(&self.sets) {
            e.add(LEFT, count, 0);
            before(e, set);
            e.begin(Count::Reg(count));
            body(e, set);
            e.scalar(ScalarOp::Add, PAIR, PAIR, ScalarOperand::Reg(STRIDE));
            // There and back.
            e.scalar(ScalarOp::Mul, STRIDE, STRIDE, ScalarOperand::Imm(-1));
            e.add(STRIDE, STRIDE, 2 * groups);
            e.end(&[]);
        }
    }

    /// Runs `body` once where a tile is left in the set: [`PAIR`] is its.
    pub fn first(&self, e: &mut Emit, body: impl Fn(&mut Emit)) {
        e.scalar(ScalarOp::Min, HAS_NEXT, LEFT, imm(1));
        e.begin(Count::Reg(HAS_NEXT));
        body(e);
        e.end(&[]);
    }

    /// The same for the tile that follows the one at hand, once for each.
    pub fn next(&self, e: &mut Emit, body: impl Fn(&mut Emit)) {
        e.add(LEFT, LEFT, -1);
        e.scalar(ScalarOp::Add, PAIR, PAIR, ScalarOperand::Reg(STRIDE));
        self.first(e, body);
        e.scalar(ScalarOp::Sub, PAIR, PAIR, ScalarOperand::Reg(STRIDE));
    }

    /// Sets [`HEADS`], [`FIRST`] and [`STORES`] to those of a tile of the pair.
    pub fn tile(&self, e: &mut Emit, set: &Set, sub: ScalarOperand) {
        let items = set.along * self.parts;
        e.add(ITEM, PAIR, -(set.dealt as i64));
        e.scalar(ScalarOp::Mul, ITEM, ITEM, imm(self.apart));
        match sub {
            ScalarOperand::Imm(sub) => e.add(ITEM, ITEM, sub.min(self.apart as i64 - 1)),
            ScalarOperand::Reg(sub) if self.apart > 1 => {
                e.scalar(ScalarOp::Add, ITEM, ITEM, ScalarOperand::Reg(sub));
            }
            ScalarOperand::Reg(_) => {}
        }
        // One item is there twice where they are odd.
        e.scalar(ScalarOp::Sub, STORES, ITEM, imm(items - 1));
        e.scalar(ScalarOp::Max, STORES, STORES, imm(0));
        e.scalar(ScalarOp::Min, STORES, STORES, imm(1));
        e.scalar(ScalarOp::Xor, STORES, STORES, imm(1));
        e.scalar(ScalarOp::Min, ITEM, ITEM, imm(items - 1));
        e.scalar(ScalarOp::Rem, HEADS, ITEM, imm(self.parts));
        e.scalar(ScalarOp::Div, FIRST, ITEM, imm(self.parts));
        // Those that see most come first.
        let rows = set.placed.tile.rows;
        e.scalar(ScalarOp::Mul, FIRST, FIRST, ScalarOperand::Imm(-(rows as i64)));
        e.add(FIRST, FIRST, (set.first_row + (set.along - 1) * rows) as i64);
        if self.apart < self.cores.together() {
            // The first core of the group stores.
            if let ScalarOperand::Reg(sub) = sub {
                e.scalar(ScalarOp::Min, STORES, sub, imm(1));
                e.scalar(ScalarOp::Xor, STORES, STORES, imm(1));
            }
        }
    }

    /// The steps of a pass over the positions that the group's tiles see.
    pub fn steps(&self, e: &mut Emit, set: &Set) {
        let tile = &set.placed.tile;
        // The last tile is the one that sees least.
        self.tile(e, set, imm(self.apart - 1));
        e.scalar(ScalarOp::Add, LONG, FIRST, ScalarOperand::Reg(POS));
        e.scalar(ScalarOp::Div, LONG, LONG, imm(POSITIONS * tile.units));
        self.tile(e, set, imm(0));
        e.scalar(ScalarOp::Add, SHORT, FIRST, ScalarOperand::Reg(POS));
        e.add(SHORT, SHORT, (tile.rows + POSITIONS - 1) as i64);
        e.scalar(ScalarOp::Div, SHORT, SHORT, imm(POSITIONS));
        e.scalar(ScalarOp::Mul, AT, LONG, imm(tile.units));
        e.scalar(ScalarOp::Sub, SHORT, SHORT, ScalarOperand::Reg(AT));
    }
}

/// Runs `body` on all positions: first in steps that every query sees, then, behind `between`, unit by unit, once at least.
/// Registers advance by so many bytes for each unit.
pub fn pass(
    e: &mut Emit,
    tile: &Tile,
    registers: &[(Reg, i32)],
    between: impl Fn(&mut Emit),
    body: impl Fn(&mut Emit, Step),
) {
    let mut steps = |count: Reg, step: Step| {
        // Units of a step are few.
        let advance: Vec<(Reg, i32)> = registers.iter().map(|(reg, by)| (*reg, by * step.units as i32)).collect();
        e.begin(Count::Reg(count));
        body(e, step);
        e.end(&advance);
        if !step.is_masked {
            between(e);
        }
    };
    steps(LONG, Step { units: tile.units, is_masked: false });
    steps(SHORT, Step { units: 1, is_masked: true });
}

/// Some units of positions that are worked on together.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub units: usize,
    /// Some positions are hidden from some queries.
    pub is_masked: bool,
}

/// Sets operands' registers, and [`POS`].
pub fn operands(e: &mut Emit, places: &[(Reg, Place)], pos: Place) {
    e.point(AT, pos);
    e.scalar_load(POS, behind(AT, 0));
    for (reg, place) in places {
        e.point(*reg, *place);
    }
}

impl Plan {
    /// [`HEADS`] becomes the KV head.
    pub fn kv_head(&self, e: &mut Emit, a: &Attention) {
        e.scalar(ScalarOp::Div, HEADS, HEADS, imm(self.parts / a.cache.heads));
    }
}
