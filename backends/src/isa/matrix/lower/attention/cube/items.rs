//! Which tiles a core works on, and its way over their positions: the same for both sides of a group, so that they meet.

use super::super::Attention;
use super::cut::Cut;
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
/// In the place of a second set's: the first unit of the group's pieces.
const START: Reg = COUNTS[1];
/// And which rows of a tile the core ends.
pub const ENDED: Reg = START;
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
/// In the place of the one that says so of results: 1 more than the tile whose exponentials the core adds up, 0 if none.
pub const ADDED: Reg = STORES;
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

    /// Runs `body` once for each tile of the first set.
    pub fn each(&self, e: &mut Emit, body: impl Fn(&mut Emit)) {
        e.begin(Count::Reg(COUNTS[0]));
        body(e);
        e.end(&[]);
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
        if let Some((cut, _)) = &self.cut {
            e.scalar(ScalarOp::Div, HEADS, PAIR, imm(cut.groups));
            return e.add(FIRST, Reg::ZERO, 0);
        }
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
        if let Some((cut, _)) = &self.cut {
            return cut.steps(e, tile);
        }
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

/// Two registers that are free behind passes.
pub const UNITS: [Reg; 2] = [LONG, SHORT];

impl Cut {
    /// `reg` becomes the number of units that the rows of a tile see.
    pub fn units(e: &mut Emit, reg: Reg, tile: &Tile) {
        e.add(reg, POS, (tile.rows + POSITIONS - 1) as i64);
        e.scalar(ScalarOp::Div, reg, reg, imm(POSITIONS));
    }

    /// The steps of a pass over the pieces of a group, each core's.
    fn steps(&self, e: &mut Emit, tile: &Tile) {
        let (per, all) = (self.per as i64, LONG);
        Cut::units(e, all, tile);
        e.add(SHORT, all, self.pieces() as i64 - 1);
        e.scalar(ScalarOp::Div, SHORT, SHORT, imm(self.pieces()));
        e.scalar(ScalarOp::Mul, SHORT, SHORT, ScalarOperand::Imm(per));
        e.scalar(ScalarOp::Rem, START, PAIR, imm(self.groups));
        e.scalar(ScalarOp::Mul, START, START, ScalarOperand::Reg(SHORT));
        // The group's, then each core's.
        e.scalar(ScalarOp::Sub, all, all, ScalarOperand::Reg(START));
        e.scalar(ScalarOp::Max, all, all, imm(0));
        e.scalar(ScalarOp::Min, SHORT, SHORT, ScalarOperand::Reg(all));
        e.add(SHORT, SHORT, per - 1);
        e.scalar(ScalarOp::Div, SHORT, SHORT, ScalarOperand::Imm(per));
        // Those of the last core that every row sees.
        e.scalar(ScalarOp::Div, LONG, POS, imm(POSITIONS));
        e.scalar(ScalarOp::Mul, AT, SHORT, ScalarOperand::Imm(per - 1));
        e.scalar(ScalarOp::Add, AT, AT, ScalarOperand::Reg(START));
        e.scalar(ScalarOp::Sub, LONG, LONG, ScalarOperand::Reg(AT));
        e.scalar(ScalarOp::Max, LONG, LONG, imm(0));
        e.scalar(ScalarOp::Min, LONG, LONG, ScalarOperand::Reg(SHORT));
        e.scalar(ScalarOp::Div, LONG, LONG, imm(tile.units));
        e.scalar(ScalarOp::Mul, AT, LONG, imm(tile.units));
        e.scalar(ScalarOp::Sub, SHORT, SHORT, ScalarOperand::Reg(AT));
    }

    /// `reg` becomes the first unit of the piece of core `sub` of the group, behind [`Plan::steps`].
    pub fn first_unit(&self, e: &mut Emit, reg: Reg, tile: &Tile, sub: ScalarOperand) {
        e.scalar(ScalarOp::Mul, reg, LONG, imm(tile.units));
        e.scalar(ScalarOp::Add, reg, reg, ScalarOperand::Reg(SHORT));
        e.scalar(ScalarOp::Mul, reg, reg, sub);
        e.scalar(ScalarOp::Add, reg, reg, ScalarOperand::Reg(START));
    }

    /// `reg` becomes the address of what the cores of the tile share, whose first is at `shared`; [`AT`] is lost.
    pub fn tile_at(&self, e: &mut Emit, reg: Reg, shared: Place) {
        e.scalar(ScalarOp::Div, reg, PAIR, imm(self.groups));
        e.point(AT, shared);
        e.index(reg, AT, reg, self.tile_bytes);
    }

    /// `reg` becomes the address of the piece of core `sub` of the group, `offset` behind where the tile's begins, where each
    /// piece has `bytes`; [`AT`] is lost.
    pub fn piece_at(&self, e: &mut Emit, reg: Reg, sub: ScalarOperand, (offset, bytes): (usize, usize), shared: Place) {
        self.tile_at(e, reg, shared);
        e.add(reg, reg, offset as i64);
        e.scalar(ScalarOp::Rem, AT, PAIR, imm(self.groups));
        e.scalar(ScalarOp::Mul, AT, AT, imm(self.per));
        e.scalar(ScalarOp::Add, AT, AT, sub);
        e.index(AT, reg, AT, bytes);
        e.add(reg, AT, 0);
    }

    /// The core ends rows of a tile: which ones of which, its number says. [`ENDED`] is for the rows.
    pub fn rows_of_tile(&self, e: &mut Emit) {
        e.scalar(ScalarOp::Rem, ENDED, GROUP, imm(self.ends()));
        e.scalar(ScalarOp::Div, PAIR, GROUP, imm(self.ends()));
        e.scalar(ScalarOp::Mul, PAIR, PAIR, imm(self.groups));
        e.add(STORES, Reg::ZERO, 1);
    }
}
