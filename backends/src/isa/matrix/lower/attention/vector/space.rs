//! UB of attention: what both passes keep, and what each has for itself.

use super::codes::{self, CodesAt};
use super::{AT, Attention, Q_AT, Tile, Way};
use crate::isa::matrix::lower::emit::Emit;
use crate::isa::matrix::lower::vector::cache::{is_ordered, pitch};
use crate::isa::matrix::lower::vector::{HIDDEN, ORDER_COUNT, ROWS, Space, Tables, UbTooSmall, behind};
use crate::isa::matrix::program::addr::Queue;

/// Offsets in UB.
pub struct At {
    /// Rows of a unit as loaded, widened, and (floats of keys that
    /// are stored in plain order) in order.
    pub raw: usize,
    pub wide: usize,
    pub ordered: usize,
    /// Scales of a unit of an int8 cache, or of all whose weights are computed together, as loaded and kept.
    pub raw_scales: usize,
    pub scales: usize,
    /// The largest score so far of each query in lanes of a unit, then the largest in every lane.
    pub max: usize,
    pub order: usize,
    pub transpose: usize,
    /// A block of the score that hides, and one of zeros.
    pub hidden: usize,
    pub zeros: usize,
    /// Bits of a comparison.
    pub bits: usize,
    // First pass.
    pub q: usize,
    /// Partial sums: low eight and high eight of each pair. Queries are loaded here.
    pub lo: usize,
    pub hi: usize,
    pub s: usize,
    pub mask: usize,
    // Second pass.
    pub out: usize,
    pub loaded: usize,
    pub x: usize,
    /// Of exp, then one block for each weight.
    pub scratch: usize,
    /// Sums of weights: low eight partials of each query, then high eight.
    pub sums: usize,
    /// Of an int8 cache.
    pub codes: Option<CodesAt>,
}

impl At {
    pub fn take(ub: usize, a: &Attention, tile: &Tile) -> Result<At, UbTooSmall> {
        let mut space = Space::new(ub);
        let (pitch, queries) = (pitch(&a.cache), tile.queries());
        let pairs = queries * tile.unit;
        let partials = match tile.way {
            Way::Queries => 64 * queries,
            Way::Positions => 8 * tile.unit,
        };
        let units = tile.batch.max(tile.diagonal());
        let (scales, batch) = (if a.cache.has_scales() { units * tile.unit } else { 0 }, units * pairs);
        let raw = space.take(tile.unit * pitch * a.cache.element_bytes())?;
        let wide = space.floats(tile.unit * pitch)?;
        let is_gathered = !is_ordered(&a.cache) && !a.cache.has_scales();
        let ordered = if is_gathered { space.floats(tile.unit * pitch)? } else { wide };
        let [raw_scales, scales, max, order, transpose, hidden, zeros] =
            [scales, scales, pairs, ORDER_COUNT, 8 * ROWS, 8, 8].map(|n| space.floats(n));
        let bits = space.take(pairs / 8 + 64)?;
        let mut first = space.clone();
        // Partial sums hold the queries as they are loaded.
        let [q, lo] = [queries * pitch, partials.max(queries * pitch / 2)].map(|n| first.floats(n));
        let [hi, s, mask] = [partials.max(queries * pitch / 2), pairs, pairs].map(|n| first.floats(n));
        let [out, loaded, x] = [queries * pitch, batch, batch].map(|n| space.floats(n));
        let spread = match tile.way {
            Way::Queries => 8 * pairs,
            Way::Positions => 8 * tile.unit,
        };
        let last = 8 * ROWS + 8 * queries;
        let planes = match a.cache.has_scales() && !codes::is_whole(a, tile) {
            true => 4 * batch,
            false => 0,
        };
        let scratch = space.take(Emit::exp_bytes(batch).max(4 * spread + planes).max(4 * last))?;
        let sums = space.floats(16 * queries)?;
        let codes = match a.cache.has_scales() {
            true => Some(CodesAt::take(a, tile, (&mut first, &mut space), scratch + 4 * spread)?),
            false => None,
        };
        Ok(At {
            raw,
            wide,
            ordered,
            raw_scales: raw_scales?,
            scales: scales?,
            max: max?,
            order: order?,
            transpose: transpose?,
            hidden: hidden?,
            zeros: zeros?,
            bits,
            q: q?,
            lo: lo?,
            hi: hi?,
            s: s?,
            mask: mask?,
            out: out?,
            loaded: loaded?,
            x: x?,
            scratch,
            sums,
            codes,
        })
    }

    /// What stays over all tiles. Elements of rows behind the last one stay zero.
    pub fn prepare(&self, e: &mut Emit, a: &Attention, tile: &Tile, tables: &Tables) {
        for (to, place, bytes) in
            [(self.order, tables.order, 4 * ORDER_COUNT), (self.transpose, tables.transpose, 32 * ROWS)]
        {
            e.point(AT, place);
            e.load(to, behind(AT, 0), 1, bytes, 0, 0);
        }
        e.fill(self.hidden, HIDDEN.to_bits(), 8);
        e.fill(self.zeros, 0, 8);
        e.fill(self.wide, 0, tile.unit * pitch(&a.cache));
        e.loaded();
    }

    /// Loads the tile's queries to [`At::lo`] and behind.
    pub fn load_queries(&self, e: &mut Emit, a: &Attention, tile: &Tile) {
        let (d, pitch) = (a.cache.d, pitch(&a.cache));
        let count = tile.queries() * pitch;
        if pitch != d {
            e.fill(self.lo, 0, count);
            e.after(Queue::V, Queue::Mte2);
        }
        for head in 0..tile.heads {
            let (to, from) = (self.lo + 4 * head * pitch, behind(Q_AT, 4 * head * d));
            e.load(to, from, tile.rows, 4 * d, 4 * a.heads * d, 4 * tile.heads * pitch);
        }
        e.loaded();
    }
}
