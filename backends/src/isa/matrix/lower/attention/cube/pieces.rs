//! Tiles whose positions are cut into pieces: four steps, between which all cores meet (`stage.rs`).
//!
//! The first makes the scores of each piece and its largest. The second folds those of all pieces, and makes weights and the
//! piece's largest. The third folds these, makes codes of weights, and leaves the sums of their products with values: exact
//! in any order, where sums of exponentials are not, so one core adds up those of a tile. The fourth ends each tile on a core.
//! Query codes are every core's own.

use super::super::{Attention, Operands};
use super::cut::{Cut, added_units, largest_bytes, planes_bytes};
use super::items::{self, ADDED, AT, ENDED, GROUP, SUB, UNITS};
use super::plan::{POSITIONS, Plan, Set};
use super::vector::{OUT_AT, SCORES_AT, each_query};
use super::{DONE, Side, begin, flag, own_scratch, products, vector};
use crate::isa::matrix::lower::emit::{Emit, F32, S32, Second, Types, dense, strided};
use crate::isa::matrix::lower::vector::{Place, Tables, behind};
use crate::isa::matrix::program::addr::{Queue, Reg};
use crate::isa::matrix::program::inst::{Count, CrossMode, FixPath, Order, ScalarOp, ScalarOperand};
use crate::isa::matrix::program::vec::VecOp;
use crate::isa::matrix::program::{CoreKind, StartValues, Stream};

/// What pieces leave for each other, one number for a query.
#[derive(Clone, Copy)]
enum Largest {
    Score,
    Weight,
}

/// The streams of the steps.
pub fn pieces(op: u16, a: &Attention, plan: &Plan, operands: Operands, tables: &Tables) -> Vec<Vec<Stream>> {
    let (Some((cut, ends)), Some(set)) = (&plan.cut, plan.sets.first()) else { return vec![] };
    let of = |set| Side { a, plan, set, tables, scratch: operands[5], is_split: plan.cores.per.is_some() };
    let steps = Steps { op, operands, side: of(set), ends: of(ends), cut };
    vec![steps.scores(), steps.weights(), steps.values(), steps.ends()]
}

struct Steps<'a> {
    op: u16,
    operands: Operands,
    side: Side<'a>,
    /// That of the rows that a core ends.
    ends: Side<'a>,
    cut: &'a Cut,
}

/// The units that a stream gives work to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Units {
    Cube,
    Vector,
    Both,
}

impl Steps<'_> {
    /// A stream of the cores with a vector unit, or of cube cores, within its flags.
    fn stream(&self, units: Units, is_product: bool, added: &[StartValues], body: impl FnOnce(&mut Emit)) -> Stream {
        let (side, plan) = (&self.side, self.side.plan);
        let (cube, vector) = (units != Units::Vector, units != Units::Cube);
        let (kind, per) = match (side.is_split, units) {
            (false, _) => (CoreKind::Coupled, 1),
            (true, Units::Cube) => (CoreKind::Cube, 1),
            (true, Units::Vector | Units::Both) => (CoreKind::Vector, plan.cores.together()),
        };
        let mut e = Emit::default();
        e.op = self.op;
        let mut starts = plan.starts(&mut e, per);
        starts.extend(added.iter().cloned());
        begin(&mut e, self.operands);
        if vector {
            own_scratch(&mut e, plan, per);
        }
        if cube {
            products::begin(&mut e, plan, side.tables, side.is_split);
        }
        self.flags(&mut e, units, is_product, true);
        body(&mut e);
        self.flags(&mut e, units, is_product, false);
        e.stream(kind, plan.groups * per, starts)
    }

    /// Says that all slots are free, or waits until they are.
    fn flags(&self, e: &mut Emit, units: Units, is_product: bool, is_start: bool) {
        let (is_split, cores) = (self.side.is_split, &self.side.plan.cores);
        if units != Units::Vector {
            products::presets(e, is_split, is_start);
        }
        if units != Units::Cube {
            vector::presets(e, cores, is_start);
        }
        match units {
            Units::Cube if is_split => products::credits(e, cores, is_start),
            Units::Vector if is_split && is_product => vector::credits(e, cores, is_start),
            Units::Cube | Units::Vector | Units::Both => (),
        }
    }

    /// All pieces of the core, or of the group.
    fn items(&self, e: &mut Emit, before: impl Fn(&mut Emit), body: impl Fn(&mut Emit)) {
        let plan = self.side.plan;
        let with_steps = |e: &mut Emit, set: &Set| {
            plan.steps(e, set);
            body(e);
        };
        plan.items(e, |e, _| before(e), with_steps);
    }

    /// True if cube cores, which have one piece each, turn its values behind its scores, while the vector cores make weights.
    fn turns_at_once(&self) -> bool {
        let (set, plan) = (self.side.set, self.side.plan);
        self.side.is_split && set.placed.turns_ahead && set.pairs <= plan.groups
    }

    /// Scores, and their largest.
    fn scores(&self) -> Vec<Stream> {
        let side = &self.side;
        let begin = |e: &mut Emit| {
            // Loads wait for other cores; the vector unit must not be so far ahead that it sets a flag twice.
            e.after(Queue::Mte2, Queue::V);
            side.begin_passes(e);
            side.begin_codes(e);
        };
        let end = |e: &mut Emit| {
            side.store_largest(e, self.cut, Largest::Score);
            side.code_next_queries(e);
        };
        if side.is_split {
            let cube = |e: &mut Emit| {
                self.items(
                    e,
                    |e| side.begin_cube(e),
                    |e| {
                        side.load_codes(e);
                        side.cube_pass(e, items::K, |e, step| side.scores(e, step));
                        if self.turns_at_once() {
                            // Scores are through with L0C.
                            e.after(Queue::Fix, Queue::M);
                            side.turn_ahead(e);
                        }
                    },
                );
            };
            let vector = |e: &mut Emit| {
                self.items(e, begin, |e| {
                    side.addresses(e);
                    side.pass(e, items::K, |e, step| side.score(e, step));
                    end(e);
                });
            };
            return vec![self.stream(Units::Cube, true, &[], cube), self.stream(Units::Vector, true, &[], vector)];
        }
        let both = |e: &mut Emit| {
            let before = |e: &mut Emit| {
                side.begin_cube(e);
                begin(e);
            };
            self.items(e, before, |e| {
                side.addresses(e);
                side.load_codes(e);
                side.pass_with_rows(e, items::K, |e, step| {
                    side.scores(e, step);
                    side.score(e, step);
                });
                end(e);
            });
        };
        vec![self.stream(Units::Both, true, &[], both)]
    }

    /// Weights, their exponentials, and the largest weight.
    fn weights(&self) -> Vec<Stream> {
        let (side, ub) = (&self.side, &self.side.set.placed.ub);
        let vector = |e: &mut Emit| {
            self.items(
                e,
                |e| side.begin_passes(e),
                |e| {
                    side.addresses(e);
                    side.fold_largest(e, self.cut, Largest::Score);
                    e.spread(ub.blocks, ub.a, side.queries());
                    e.fill(ub.largest, 0, 8 * side.queries());
                    side.pass(e, items::V, |e, step| side.weigh(e, step));
                    side.store_largest(e, self.cut, Largest::Weight);
                },
            );
        };
        vec![self.stream(Units::Vector, false, &[], vector)]
    }

    /// Codes of weights, sums of their products with values, and the sums of exponentials.
    fn values(&self) -> Vec<Stream> {
        let side = &self.side;
        let added = [self.added()];
        if side.is_split {
            let cube = |e: &mut Emit| {
                self.items(
                    e,
                    |e| side.begin_cube(e),
                    |e| {
                        side.clear_sums(e);
                        if self.turns_at_once() {
                            side.add_turned(e);
                        } else {
                            side.values(e);
                        }
                        side.piece_out(e, self.cut);
                        e.push(Order::XSet { queue: Queue::Fix, mode: CrossMode::Group, id: DONE });
                    },
                );
            };
            let vector = |e: &mut Emit| {
                self.items(
                    e,
                    |_| (),
                    |e| {
                        side.addresses(e);
                        side.weights_to_codes(e, self.cut);
                        side.pass(e, items::V, |e, step| side.code_weights(e, step));
                    },
                );
                side.add_up(e, self.cut);
                // Sums are in global memory before cores meet.
                side.plan.each(e, |e| e.push(Order::XWait { queue: Queue::Mte2, mode: CrossMode::Group, id: DONE }));
            };
            return vec![self.stream(Units::Cube, true, &[], cube), self.stream(Units::Vector, true, &added, vector)];
        }
        let both = |e: &mut Emit| {
            self.items(
                e,
                |e| side.begin_cube(e),
                |e| {
                    side.addresses(e);
                    side.weights_to_codes(e, self.cut);
                    side.clear_sums(e);
                    side.pass_with_rows(e, items::V, |e, step| {
                        side.code_weights(e, step);
                        side.turn_step(e, step);
                        side.add_step(e, step);
                    });
                    side.piece_out(e, self.cut);
                },
            );
            side.add_up(e, self.cut);
        };
        vec![self.stream(Units::Both, true, &added, both)]
    }

    /// Which core adds up the exponentials of which tile: those that have the fewest pieces, the last ones first.
    fn added(&self) -> StartValues {
        let (plan, per) = (self.side.plan, self.side.plan.cores.together());
        let mut cores: Vec<usize> = (0..plan.groups * per).rev().collect();
        cores.sort_by_key(|core| plan.dealt(core / per).count());
        let mut values = vec![0; cores.len()];
        for (tile, core) in (1..=plan.parts as i64).zip(cores) {
            values[core] = tile;
        }
        StartValues { reg: ADDED, values }
    }

    /// Results.
    fn ends(&self) -> Vec<Stream> {
        let (side, cores) = (&self.ends, self.side.plan.parts * self.cut.ends());
        let mut e = Emit::default();
        e.op = self.op;
        let starts = match cores {
            1 => {
                e.add(GROUP, Reg::ZERO, 0);
                vec![]
            }
            cores => vec![StartValues { reg: GROUP, values: (0..cores as i64).collect() }],
        };
        begin(&mut e, self.operands);
        self.cut.rows_of_tile(&mut e);
        side.addresses(&mut e);
        side.end_rows(&mut e, self.cut, self.side.queries());
        let kind = if side.is_split { CoreKind::Vector } else { CoreKind::Coupled };
        vec![e.stream(kind, cores, starts)]
    }
}

/// `op` of `count` numbers of each piece, which lie behind each other at `at`, put at `to`; what lies there is lost.
fn fold(e: &mut Emit, (op, types): (VecOp, Types), [to, at]: [usize; 2], pieces: usize, count: usize) {
    let mut left = pieces;
    while left > 2 {
        let kept = left.div_ceil(2);
        e.each(op, types, at, at, Second::Vector(dense(at + 4 * count * kept)), count * (left - kept));
        left = kept;
    }
    e.each(op, types, to, at, Second::Vector(dense(at + 4 * count)), count);
}

impl Side<'_> {
    /// What the cores of tiles share, behind what is each core's own.
    pub fn shared(&self) -> Place {
        (self.scratch.0, self.scratch.1 + self.plan.cores_bytes() as i64)
    }

    /// The cube's sums of its pieces to global memory.
    fn piece_out(&self, e: &mut Emit, cut: &Cut) {
        e.after(Queue::M, Queue::Fix);
        for sub in self.tiles() {
            // Registers of keys and values are free behind a pass.
            cut.piece_at(
                e,
                items::HEADS,
                ScalarOperand::Imm(sub as i64),
                (cut.planes, self.piece_bytes()),
                self.shared(),
            );
            self.planes_out(e, sub, (FixPath::Gm, behind(items::HEADS, 0)));
        }
    }

    fn piece_bytes(&self) -> usize {
        planes_bytes(self.queries(), self.pitch())
    }

    /// Where the largest of each piece lies in what the tile's cores share.
    fn largest_at(&self, cut: &Cut, which: Largest) -> usize {
        let all = cut.pieces() * largest_bytes(self.queries());
        match which {
            Largest::Score => cut.largest,
            Largest::Weight => cut.largest + all,
        }
    }

    /// Stores the piece's largest of each query.
    fn store_largest(&self, e: &mut Emit, cut: &Cut, which: Largest) {
        let (ub, queries) = (&self.set.placed.ub, self.queries());
        let at = (self.largest_at(cut, which), largest_bytes(queries));
        cut.piece_at(e, SCORES_AT, ScalarOperand::Reg(SUB), at, self.shared());
        e.wait(Queue::Mte3, Queue::V, flag::STORED);
        let bytes = largest_bytes(queries);
        // Behind the last query of a block, too.
        e.fill(ub.q_largest, 0, if bytes == 4 * queries { 0 } else { bytes / 4 });
        e.block_max(ub.q_largest, ub.largest, 8 * queries);
        e.set(Queue::V, Queue::Mte3, flag::STORED);
        e.wait(Queue::V, Queue::Mte3, flag::STORED);
        e.store(behind(SCORES_AT, 0), ub.q_largest, 1, bytes, 0, 0);
        e.set(Queue::Mte3, Queue::V, flag::STORED);
    }

    /// All of the place that passes use may be loaded: the pass before is through with it.
    fn through(e: &mut Emit) {
        e.after(Queue::V, Queue::Mte2);
        e.after(Queue::Mte3, Queue::Mte2);
    }

    /// The tile's largest of each query.
    fn fold_largest(&self, e: &mut Emit, cut: &Cut, which: Largest) {
        let ub = &self.set.placed.ub;
        cut.tile_at(e, SCORES_AT, self.shared());
        Side::through(e);
        e.wait(Queue::V, Queue::Mte2, flag::LOADED);
        let bytes = largest_bytes(self.queries());
        e.load(ub.big, behind(SCORES_AT, self.largest_at(cut, which)), 1, cut.pieces() * bytes, 0, 0);
        e.set(Queue::Mte2, Queue::V, flag::LOADED);
        e.wait(Queue::Mte2, Queue::V, flag::LOADED);
        fold(e, (VecOp::Max, F32), [ub.a, ub.big], cut.pieces(), bytes / 4);
        e.set(Queue::V, Queue::Mte2, flag::LOADED);
    }

    /// What makes codes of weights in a block of each query.
    fn weights_to_codes(&self, e: &mut Emit, cut: &Cut) {
        self.fold_largest(e, cut, Largest::Weight);
        self.weight_factors(e);
    }

    /// Adds up the exponentials of the core's tile, if it has one: 16 partial sums of each query.
    fn add_up(&self, e: &mut Emit, cut: &Cut) {
        let (ub, tile, queries) = (&self.set.placed.ub, &self.set.placed.tile, self.queries());
        let [left, count] = UNITS;
        e.scalar(ScalarOp::Min, count, ADDED, ScalarOperand::Imm(1));
        e.begin(Count::Reg(count));
        e.add(ADDED, ADDED, -1);
        e.point(AT, self.shared());
        e.index(SCORES_AT, AT, ADDED, cut.tile_bytes);
        Cut::units(e, left, tile);
        Side::through(e);
        e.fill(ub.sums, 0, 16 * queries);
        for units in added_units(queries) {
            e.scalar(ScalarOp::Div, count, left, ScalarOperand::Imm(units as i64));
            e.begin(Count::Reg(count));
            e.wait(Queue::V, Queue::Mte2, flag::LOADED);
            for query in 0..queries {
                let from = behind(SCORES_AT, cut.exps + 4 * POSITIONS * query);
                let to = ub.big + 4 * POSITIONS * units * query;
                e.load(to, from, units, 4 * POSITIONS, 4 * tile.pairs(), 4 * POSITIONS);
            }
            e.set(Queue::Mte2, Queue::V, flag::LOADED);
            e.wait(Queue::Mte2, Queue::V, flag::LOADED);
            self.add_exps(e, units);
            e.set(Queue::V, Queue::Mte2, flag::LOADED);
            e.end(&[(SCORES_AT, (4 * tile.pairs() * units) as i32)]);
            e.scalar(ScalarOp::Rem, left, left, ScalarOperand::Imm(units as i64));
        }
        // Where the tile's begins, again: registers have gone on.
        e.index(SCORES_AT, AT, ADDED, cut.tile_bytes);
        e.after(Queue::V, Queue::Mte3);
        e.store(behind(SCORES_AT, cut.sums), ub.sums, 1, 64 * queries, 0, 0);
        e.end(&[]);
    }

    /// Adds exponentials of each query, which lie behind each other, to its partial sums: with each repeat the next sixteen.
    fn add_exps(&self, e: &mut Emit, units: usize) {
        let (ub, queries) = (&self.set.placed.ub, self.queries());
        for (half, first) in (0..2).flat_map(|half| (0..queries).step_by(8).map(move |first| (half, first))) {
            let to = strided(ub.sums + 32 * (half * queries + first), 1, 0);
            let from = ub.big + 4 * POSITIONS * units * first + 32 * half;
            let from = Second::Vector(strided(from, POSITIONS / 8 * units, 2));
            let lanes = 8 * (queries - first).min(8);
            e.vec(VecOp::Add, F32, to, to, from, POSITIONS / 16 * units, lanes);
        }
    }

    /// The results of some rows of a tile of `all` queries from the sums of its pieces, stored.
    fn end_rows(&self, e: &mut Emit, cut: &Cut, all: usize) {
        let (ub, queries, pitch) = (&self.set.placed.ub, self.queries(), self.pitch());
        let (plane, bytes, pieces) = (4 * queries * pitch, self.piece_bytes(), cut.pieces());
        let largest = ub.big + bytes * pieces;
        cut.tile_at(e, SCORES_AT, self.shared());
        // What belongs to each query is 4 bytes, a block, or a row.
        let [numbers, blocks, rows] = [4, 32, 4 * pitch];
        if !queries.is_multiple_of(8) {
            // Behind the last query of a block, too.
            e.fill(largest, 0, pieces * largest_bytes(queries) / 4);
            e.after(Queue::V, Queue::Mte2);
        }
        let load = |e: &mut Emit, to: usize, at: usize, (count, of_query): (usize, usize), stride: usize| {
            let bytes = of_query * queries;
            e.index(AT, SCORES_AT, ENDED, bytes);
            e.load(to, behind(AT, at), count, bytes, stride, bytes.next_multiple_of(32));
        };
        load(e, ub.sums, cut.sums, (2, blocks), blocks * all);
        let at = cut.largest + pieces * largest_bytes(all);
        load(e, largest, at, (pieces, numbers), largest_bytes(all));
        self.load_transpose(e);
        e.loaded();
        load(e, ub.big, cut.planes, (2 * pieces, rows), rows * all);
        e.index(AT, OUT_AT, ENDED, 4 * cut.ended * self.a.heads * self.a.cache.d);
        e.add(OUT_AT, AT, 0);
        fold(e, (VecOp::Max, F32), [ub.a, largest], pieces, largest_bytes(queries) / 4);
        self.result_scales(e);
        e.loaded();
        fold(e, (VecOp::Add, S32), [ub.big, ub.big], pieces, bytes / 4);
        // In the place of the second piece's.
        let carried = dense(ub.big + bytes);
        for (column, lanes) in self.columns() {
            let [high, low] = [0, plane].map(|plane| strided(ub.big + plane + column, 1, pitch / 8));
            self.total(e, low, [low, high, carried], lanes);
            e.vec(VecOp::Mul, F32, low, low, Second::Vector(each_query(ub.blocks)), queries, lanes);
        }
        e.after(Queue::V, Queue::Mte3);
        self.store_rows(e, ub.big + plane);
    }
}
