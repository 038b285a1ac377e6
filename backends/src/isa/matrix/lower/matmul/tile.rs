//! What is decided about one ternary product on a core with a cube: mode, tiles, and how the local memories are shared.
//!
//! A block of token rows (`block_m`) meets one panel of output rows (`nr`, the encoding's) after another; along k a step
//! multiplies `kc` columns. Where a block of activations does not fit L1 whole, it is cut along k (`block_k`) and the
//! sums of one cut wait in global memory for the next.

use std::fmt;
use std::str::FromStr;

use tcc_ir::encoding::w2nz::{KR, Panel};

use crate::isa::matrix::program::ty::CubeType;

/// How activations and weights meet in the cube.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// s8 × s8: weights unpacked to 64 w in a byte.
    I8,
    /// s4 × s4: weights unpacked to 4 w in a nibble, activations split in a row of high and a row of low nibbles:
    /// `a = 16 hi + lo + 8`, so `4 Σ a w = 16 H + L + 32 Σ w`.
    I4,
}

impl Mode {
    pub const ALL: [Mode; 2] = [Mode::I8, Mode::I4];

    /// Parts that the vector unit unpacks from one packed byte.
    pub const fn parts(self) -> usize {
        match self {
            Mode::I8 => 4,
            Mode::I4 => 2,
        }
    }

    /// The mode that weights of `panel` are packed for.
    pub fn of(panel: Panel) -> Mode {
        if panel.parts == Mode::I8.parts() { Mode::I8 } else { Mode::I4 }
    }

    /// True if weights of `panel` can be unpacked for it: those packed for nibbles give bytes, too.
    pub fn reads(self, panel: Panel) -> bool {
        self.parts() >= panel.parts
    }

    /// Rows of the cube that a token takes.
    pub const fn rows(self) -> usize {
        match self {
            Mode::I8 => 1,
            Mode::I4 => 2,
        }
    }

    /// Columns that 32 bytes of an operand row hold.
    pub const fn strip(self) -> usize {
        128 / self.parts()
    }

    /// Bits of a 16-bit lane that one part's weights stand in.
    pub const fn mask(self) -> u16 {
        match self {
            Mode::I8 => 0xc0c0,
            Mode::I4 => 0xcccc,
        }
    }

    /// What a sum out of the cube is divided by: a power of two.
    pub const fn unit(self) -> f32 {
        match self {
            Mode::I8 => 64.0,
            Mode::I4 => 4.0,
        }
    }

    pub const fn cube(self) -> CubeType {
        match self {
            Mode::I8 => CubeType::S8,
            Mode::I4 => CubeType::S4,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Mode::I8 => "i8",
            Mode::I4 => "i4hl",
        }
    }

    /// Bytes of `columns` columns of one row of an operand.
    pub const fn row_bytes(self, columns: usize) -> usize {
        columns / self.strip() * 32
    }
}

/// Columns that a span has at least: a repeat of the vector unit.
const SPAN: usize = 64;

/// Tile sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// Token rows whose activations stay in L1.
    pub block_m: usize,
    /// Token rows of one accumulator tile in L0C; divides `block_m`.
    pub tile_m: usize,
    /// Columns whose activations stay in L1, whole panels; the padded k unless k is cut.
    pub block_k: usize,
    /// Columns of weights in L0B at a time; above a part, whole parts.
    pub kb: usize,
    /// Columns of activations in L0A at a time; divides `kb`.
    pub kc: usize,
    /// Panels that one instruction of the vector unit unpacks.
    pub group: usize,
    /// Units of unpacked weights in L1: 2 to 5.
    pub units: usize,
    /// Rows of the cube that the vector unit finishes together.
    pub slice: usize,
    /// Activations of a whole tile stay in L0A.
    pub a_stays: bool,
    /// Spans of a panel's columns whose sums leave L0C each by itself: 1 or 2.
    pub spans: usize,
}

impl Tile {
    /// Group parts whose products queues of `entries` and L0 hold while the cube waits for its accumulators.
    fn parts_ahead(&self, shape: &Shape, entries: usize) -> usize {
        // Entries of a step: operands of MTE1 with their flags. The scalar unit must get past them to lend what sums wait
        // for. Two steps are loaded besides.
        const STEP: usize = 7;
        let part = shape.part(shape.panel.kp.min(shape.padded_k())) * self.group;
        (entries / STEP + 2) / (part.div_ceil(self.kc) * self.block_m.div_ceil(self.tile_m))
    }

    /// Group parts that L1 and L0B hold.
    pub fn parts_held(&self, shape: &Shape) -> usize {
        let part = shape.part(shape.panel.kp.min(shape.padded_k()));
        (self.units * self.parts_per_unit(shape) + 2 * self.kb / part) / self.group
    }

    /// True if its sizes agree with each other and with the product, as the loops of the lowering take for granted.
    fn is_consistent(&self, shape: &Shape) -> bool {
        // Far above any local memory, so that products of sizes stay in range.
        const MOST: usize = 1 << 20;
        let sizes = [self.block_m, self.tile_m, self.block_k, self.kb, self.kc, self.group, self.slice];
        let kp = shape.panel.kp.min(shape.padded_k());
        sizes.iter().all(|size| (1..=MOST).contains(size))
            && self.slice.is_multiple_of(16)
            && self.block_m.is_multiple_of(self.tile_m)
            && (self.block_m == self.tile_m || self.tile_m.is_multiple_of(16))
            && (self.block_k >= shape.padded_k() || self.block_k.is_multiple_of(kp))
            && shape.mode.reads(shape.panel)
            && shape.has_step(self.kb)
            && self.kb.is_multiple_of(self.kc)
            && self.kc.is_multiple_of(shape.mode.strip())
            && (shape.strip_step() == 1 || !self.a_stays && shape.run(kp).is_multiple_of(self.kc))
            && (self.spans == 1 || self.spans == 2 && shape.panel.nr.is_multiple_of(2 * SPAN))
    }

    /// Accumulators of a block: tiles of rows times spans of columns.
    pub fn accumulators(&self) -> usize {
        self.block_m / self.tile_m * self.spans
    }

    /// Columns of one accumulator.
    pub fn columns(&self, shape: &Shape) -> usize {
        shape.panel.nr / self.spans
    }

    /// True if the local memories hold what it needs.
    pub fn fits(&self, shape: &Shape, memories: &Memories) -> bool {
        Rings::fit(shape, self, memories).is_some()
    }

    /// Parts that go from L1 to L0B together.
    pub fn parts_per_unit(&self, shape: &Shape) -> usize {
        let part = shape.part(shape.panel.kp.min(shape.padded_k()));
        (self.kb / part).clamp(1, shape.mode.parts())
    }
}

/// The product to be tiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub panel: Panel,
    pub mode: Mode,
    /// A residual is added.
    pub residual: bool,
}

impl Shape {
    pub fn padded_k(&self) -> usize {
        self.k.next_multiple_of(KR)
    }

    /// Panels of output rows.
    pub fn panels(&self) -> usize {
        self.n.div_ceil(self.panel.nr)
    }

    /// Rows of the activation strips in global memory.
    pub fn strip_rows(&self) -> usize {
        (self.m * self.mode.rows()).next_multiple_of(16)
    }

    /// True if a step of `kb` columns is whole parts, or divides one.
    pub fn has_step(&self, kb: usize) -> bool {
        let part = self.part(self.panel.kp.min(self.padded_k()));
        part.is_multiple_of(kb) || kb.is_multiple_of(part) && self.mode.parts().is_multiple_of(kb / part)
    }

    /// Columns of the part that one panel of `columns` gives at once.
    pub fn part(&self, columns: usize) -> usize {
        columns / self.mode.parts()
    }

    /// Strips of activations that the cube meets one after the other, as strips of a panel: 1 apart, or 2 where nibbles
    /// give bytes. Then the first half of what is unpacked, high nibbles, has the odd strips, and the second half the
    /// even ones.
    pub fn strip_step(&self) -> usize {
        self.mode.parts() / self.panel.parts
    }

    /// Columns of a panel of `columns` whose strips lie [`Shape::strip_step`] apart.
    pub fn run(&self, columns: usize) -> usize {
        columns / self.strip_step()
    }

    /// The strip of the block's activations that meets unpacked column `column` of the block: it is of a panel of
    /// `columns` columns, `within` columns into it.
    pub fn strip(&self, column: usize, (within, columns): (usize, usize)) -> usize {
        let strip = self.mode.strip();
        if self.strip_step() == 1 {
            return column / strip;
        }
        let first = (column - within) / strip;
        let run = self.run(columns);
        if within < run { first + 2 * (within / strip) + 1 } else { first + 2 * ((within - run) / strip) }
    }
}

/// Usable bytes of the local memories, and entries of the queues of the cube and its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memories {
    pub l1: usize,
    pub l0a: usize,
    pub l0b: usize,
    pub l0c: usize,
    pub ub: usize,
    pub entries: usize,
}

/// How a tile shares the local memories: offsets follow from these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rings {
    /// Groups of packed panels in UB.
    pub packed: usize,
    /// Unpacked parts of groups in UB.
    pub unpacked: usize,
    /// Units of unpacked weights in L1.
    pub b: usize,
    /// Segments of activations in L1, and how many make a block.
    pub a: usize,
    pub segments: usize,
    /// Accumulator tiles in L0C.
    pub c: usize,
    /// Group parts that may wait in the queues for accumulators.
    pub ahead: usize,
    /// Rows of one slice of the epilogue, and slices in UB that lie beside everything else.
    pub slice_rows: usize,
    pub slices: usize,
    /// Slices that lie where unpacked parts do at other times.
    pub lent: usize,
    /// Slots of residual rows in UB, 0 without a residual; and token rows of one.
    pub residual: usize,
    pub residual_tokens: usize,
}

impl Rings {
    /// The most generous rings that fit, or `None`.
    pub fn fit(shape: &Shape, tile: &Tile, memories: &Memories) -> Option<Rings> {
        let (mode, nr) = (shape.mode, shape.panel.nr);
        if !tile.is_consistent(shape) {
            return None;
        }
        let rows = (tile.tile_m * mode.rows()).next_multiple_of(16);
        if tile.a_stays && (tile.kc != tile.kb || tile.tile_m != tile.block_m || tile.block_m < shape.m) {
            return None;
        }
        let a_step = rows * mode.row_bytes(tile.kc);
        let a_bytes = if tile.a_stays { rows * mode.row_bytes(shape.padded_k()) } else { 2 * a_step };
        let b_step = nr * mode.row_bytes(tile.kb);
        if a_bytes > memories.l0a || 2 * b_step > memories.l0b {
            return None;
        }
        // Two panels of accumulators, one being finished while the next one grows, or one alone.
        let tiles = tile.accumulators();
        let fits = |c: &usize| c * rows * tile.columns(shape) * 4 <= memories.l0c && *c <= 4;
        let c = [2 * tiles, tiles].into_iter().find(fits)?;
        let ahead = tile.parts_ahead(shape, memories.entries);
        if c == tiles && ahead == 0 || c > tiles && tile.spans > 1 {
            return None;
        }
        let kp = shape.panel.kp.min(shape.padded_k());
        let part_bytes = nr * mode.row_bytes(shape.part(kp));
        let unit_bytes = part_bytes * tile.parts_per_unit(shape);
        // A group fills one unit for each of its panels.
        if tile.units < tile.group.max(2) || tile.units > 5 {
            return None;
        }
        let panels = tile.block_k.div_ceil(shape.panel.kp);
        let segments = panels.div_ceil(panels.div_ceil(6));
        let room = memories.l1.checked_sub(tile.units * unit_bytes)?;
        let a = (segments..=6).rev().find(|a| Rings::a_bytes(shape, tile, segments, *a) <= room)?;
        let slice_rows = tile.slice.min(rows);
        let b = tile.units;
        let rings = Rings {
            packed: 0,
            unpacked: 0,
            b,
            a,
            segments,
            c,
            ahead,
            slice_rows,
            slices: 2,
            lent: 0,
            residual: if shape.residual || tile.block_k < shape.padded_k() { 2 } else { 0 },
            residual_tokens: slice_rows / mode.rows(),
        };
        rings.ub(shape, tile, memories.ub, tile.group * part_bytes)
    }

    /// Columns of one segment of activations: whole panels.
    pub fn segment(shape: &Shape, tile: &Tile, segments: usize) -> usize {
        let panels = tile.block_k.div_ceil(shape.panel.kp);
        panels.div_ceil(segments) * shape.panel.kp.min(tile.block_k)
    }

    /// Bytes of `a` segments of activations in L1. As many as a block has keep their places, and the last one is as
    /// long as it must be; with more of them a block may begin in any.
    pub fn a_bytes(shape: &Shape, tile: &Tile, segments: usize, a: usize) -> usize {
        let mode = shape.mode;
        let rows = (tile.block_m * mode.rows()).next_multiple_of(16);
        let columns = if a == segments { tile.block_k } else { a * Rings::segment(shape, tile, segments) };
        rows * mode.row_bytes(columns)
    }

    /// Shares UB between groups of packed panels and of unpacked parts (as many bytes each), tables and slices of the
    /// epilogue.
    fn ub(self, shape: &Shape, tile: &Tile, ub: usize, group_bytes: usize) -> Option<Rings> {
        let tables = Rings::table_bytes(shape, tile);
        let row_bytes = tile.columns(shape) * 4;
        let slice_bytes = self.slice_rows * row_bytes;
        let fits = |r: &Rings| {
            let groups = (r.packed + r.unpacked) * group_bytes;
            groups + tables + r.slices * slice_bytes + r.residual * r.residual_tokens * row_bytes <= ub
        };
        let groups = [(3, 4), (3, 3), (2, 4), (2, 3), (3, 2), (2, 2)];
        let groups = groups.map(|(packed, unpacked)| Rings { packed, unpacked, ..self });
        if self.c > tile.accumulators() {
            return groups.into_iter().find(fits);
        }
        // The cube waits for its only sums: all of them leave at once if UB holds them, some in place of unpacked parts.
        let rows = (tile.tile_m * shape.mode.rows()).next_multiple_of(16);
        let all = rows.div_ceil(self.slice_rows) * tile.accumulators();
        let lent = (0..=2).filter(|lent| *lent < all && (*lent == 0 || slice_bytes <= group_bytes));
        let whole = lent.flat_map(|lent| groups.map(|r| Rings { slices: all - lent, lent, ..r }));
        // V has a flag to MTE3 for each part and for each slice.
        let before = self.ahead.min(tile.parts_held(shape));
        let whole = whole.filter(|r| r.unpacked + all <= 6 && r.lent <= r.unpacked.min(before));
        let halves = |r: Rings| {
            let tokens = r.residual_tokens;
            [r, Rings { residual_tokens: if tokens.is_multiple_of(2) { tokens / 2 } else { tokens }, ..r }]
        };
        whole.chain(groups).flat_map(halves).find(fits)
    }

    /// Blocks that a token's act_scale fills: one for each repeat of a row where rows follow each other in one operation.
    pub fn act_blocks(shape: &Shape, tile: &Tile) -> usize {
        if shape.mode.rows() == 1 { tile.columns(shape).div_ceil(SPAN) } else { 1 }
    }

    /// Bytes of tables in UB: act_scale of two blocks, spread, and as loaded; scale, bias and sums of a
    /// panel's columns; zeros.
    pub fn table_bytes(shape: &Shape, tile: &Tile) -> usize {
        let rows = tile.block_m.next_multiple_of(8);
        2 * 32 * Rings::act_blocks(shape, tile) * rows + 4 * rows + 3 * 4 * shape.panel.nr + 512
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}/{} k{}/{}/{}", self.block_m, self.tile_m, self.block_k, self.kb, self.kc)?;
        write!(f, " g{} u{} s{}", self.group, self.units, self.slice)?;
        f.write_str(if self.spans > 1 { " n2" } else { "" })?;
        f.write_str(if self.a_stays { " stay" } else { "" })
    }
}

/// A forced tile that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "tile '{found}', expected the form 'm256/128 k2560/512/256 g2 u4 s64', perhaps with ' n2' and ' stay' behind it"
)]
pub struct TileError {
    pub found: String,
}

impl FromStr for Tile {
    type Err = TileError;

    fn from_str(text: &str) -> Result<Tile, TileError> {
        let error = || TileError { found: text.into() };
        let numbers = |word: Option<&str>, letter: char| -> Option<Vec<usize>> {
            word?.strip_prefix(letter)?.split('/').map(|n| n.parse().ok()).collect()
        };
        let mut words = text.split(' ');
        let [m, k, g, u, s] = ['m', 'k', 'g', 'u', 's'].map(|letter| numbers(words.next(), letter));
        let (Some(&[block_m, tile_m]), Some(&[block_k, kb, kc])) = (m.as_deref(), k.as_deref()) else {
            return Err(error());
        };
        let (Some(&[group]), Some(&[units]), Some(&[slice])) = (g.as_deref(), u.as_deref(), s.as_deref()) else {
            return Err(error());
        };
        let mut tile = Tile { block_m, tile_m, block_k, kb, kc, group, units, slice, a_stays: false, spans: 1 };
        for word in words {
            match (word, tile.spans, tile.a_stays) {
                ("n2", 1, false) => tile.spans = 2,
                ("stay", _, false) => tile.a_stays = true,
                _ => return Err(error()),
            }
        }
        Ok(tile)
    }
}
