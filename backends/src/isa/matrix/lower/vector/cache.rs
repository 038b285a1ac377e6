//! Cache writes: rows of keys and values, in the cache's type, up to eight token rows together. They are whole rows
//! here, neither turned nor cut in parts as on CPUs.

use tcc_ir::cache::{CacheLayout, CacheOrder};

use super::quantize::{Codes, code_rows};
use super::rows::{AT, INDEX, POS, Rows, TOGETHER, W, X, element, first_run, in_groups, most, step};
use super::{
    ORDER_COUNT, Place, RUNS, Sharing, Space, Tables, UbTooSmall, behind, in_runs, reg, run_cores, share_rows,
};
use crate::isa::matrix::lower::emit::{Emit, Second, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::program::addr::Reg;
use crate::isa::matrix::program::inst::{ScalarOp, ScalarOperand};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

/// Address of the scale of the position in head 0.
const SCALE: Reg = reg(9);

/// Elements from one row of a cache to the next in UB: whole blocks of its type.
pub fn pitch(cache: &CacheLayout) -> usize {
    cache.d.next_multiple_of(32 / cache.element_bytes().min(2))
}

/// True if keys are stored with the elements of each block in the order of [`order_offsets`](super::order_offsets).
pub fn is_ordered(cache: &CacheLayout) -> bool {
    cache.d.is_multiple_of(8)
}

/// UB of a run of token rows.
struct At {
    /// Rows of all heads as loaded, in order, and narrowed.
    loaded: usize,
    ordered: usize,
    packed: usize,
    table: usize,
    codes: Option<Codes>,
}

impl At {
    fn take(ub: usize, rows: usize, c: &CacheLayout, orders: bool) -> Result<At, UbTooSmall> {
        let mut space = Space::new(ub);
        let count = rows * c.heads * pitch(c);
        let (loaded, packed) = (space.floats(count)?, space.floats(count)?);
        let (table, ordered) = if orders { (space.floats(ORDER_COUNT)?, space.floats(count)?) } else { (0, loaded) };
        let codes = if c.has_scales() { Some(Codes::take(&mut space, c.d, Mode::I8)?) } else { None };
        Ok(At { loaded, ordered, packed, table, codes })
    }
}

/// Stores rows `x: f32[m, heads · d]` at positions `pos ..` of the cache. Keys are rows too, whatever their order is on
/// CPUs: nothing but [`attention`](super::attention) reads them.
pub fn kv_write(
    e: &mut Emit,
    ub: usize,
    m: usize,
    (c, order): (CacheLayout, CacheOrder),
    [x, cache, pos]: [Place; 3],
    (tables, cores): (&Tables, usize),
) -> Result<Sharing, UbTooSmall> {
    let orders = order == CacheOrder::Keys && is_ordered(&c);
    let fit = |rows: usize| Ok((rows, At::take(ub, rows, &c, orders)?));
    // Scales of a position are 4 bytes in as many blocks as there are heads.
    let (together, at) = if c.has_scales() { fit(1)? } else { most(m, fit)? };
    // Blocks of 32 bytes have one writer, wherever `pos` is.
    let cores = if c.has_scales() || !c.row_bytes().is_multiple_of(32) { 1 } else { run_cores(m, TOGETHER, cores) };
    let starts = share_rows(e, (m, TOGETHER), cores, RUNS);
    if orders {
        e.point(POS, tables.order);
        e.load(at.table, behind(POS, 0), 1, 4 * ORDER_COUNT, 0, 0);
        e.fill(at.loaded, 0, together * c.heads * pitch(&c));
        e.computed();
    }
    e.point(POS, pos);
    e.scalar_load(INDEX, behind(POS, 0));
    e.scalar(ScalarOp::Mul, AT, RUNS[0], ScalarOperand::Imm(TOGETHER as i64));
    e.scalar(ScalarOp::Add, INDEX, INDEX, ScalarOperand::Reg(AT));
    e.point(W, cache);
    first_run(e, &[(X, x, 4 * c.heads * c.d)], TOGETHER);
    in_runs(e, (m, TOGETHER), |e, rows| {
        in_groups(e, rows, together, |e, rows| at.write(e, rows, &c, orders));
        vec![]
    });
    Ok((cores, starts))
}

impl At {
    /// The next `rows` rows; how far the registers are to move.
    fn write(&self, e: &mut Emit, rows: usize, c: &CacheLayout, orders: bool) -> Vec<(Reg, i32)> {
        let (all, pitch) = (rows * c.heads, pitch(c));
        e.index(AT, W, INDEX, c.row_bytes());
        e.load(self.loaded, behind(X, 0), all, 4 * c.d, 4 * c.d, 4 * pitch);
        e.loaded();
        if orders {
            e.in_order(self.ordered, self.loaded, self.table, all * pitch);
        }
        match &self.codes {
            Some(codes) => quantized(e, c, self.ordered, codes),
            None => self.values(e, rows, c),
        }
        e.stored();
        // At most eight rows.
        e.add(INDEX, INDEX, rows as i64);
        vec![(X, step(4 * all * c.d))]
    }

    /// Rows of all heads, as they are or narrowed.
    fn values(&self, e: &mut Emit, rows: usize, c: &CacheLayout) {
        let (ty, size) = element(c.dtype);
        let pitch = pitch(c);
        let op = if ty == ElemType::F32 { VecOp::Mov } else { VecOp::CastSat };
        for first in (0..c.d).step_by(64) {
            let to = strided(self.packed + size * first, 1, pitch * size / 32);
            let x = strided(self.ordered + 4 * first, 1, pitch / 8);
            e.vec(op, (ty, ElemType::F32), to, x, Second::None, rows * c.heads, (c.d - first).min(64));
        }
        e.computed();
        for head in 0..c.heads {
            let (to, from) = (behind(AT, head * c.head_bytes()), self.packed + size * pitch * head);
            e.store(to, from, rows, c.row_bytes(), size * pitch * c.heads, c.row_bytes());
        }
    }
}

/// Codes and scales of all heads.
fn quantized(e: &mut Emit, c: &CacheLayout, from: usize, codes: &Codes) {
    e.index(SCALE, W, INDEX, 4);
    let pitch = 4 * pitch(c);
    for first in (0..c.heads).step_by(TOGETHER) {
        let x = Rows { at: from + first * pitch, rows: TOGETHER.min(c.heads - first), pitch };
        code_rows(e, codes, x, c.d);
        let scales = codes.spread_scales(e, x.rows);
        e.computed();
        for row in 0..x.rows {
            let head = first + row;
            e.store(behind(AT, head * c.head_bytes()), codes.plane(x.row(row), 0), 1, c.d, 0, 0);
        }
        let to = behind(SCALE, c.scales_offset_bytes() + 4 * first * c.positions());
        e.store(to, scales, x.rows, 4, 32, 4 * c.positions());
        e.stored();
    }
}
