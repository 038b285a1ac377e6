//! Cache writes: rows of keys and values, in the cache's type, up to eight token rows together. They are whole rows
//! here, neither turned nor cut in parts as on CPUs. Int8 caches have [`codes`].

mod codes;

use tcc_ir::cache::{CacheLayout, CacheOrder};

use super::rows::{AT, INDEX, POS, TOGETHER, W, X, element, first_run, in_groups, most, step};
use super::{ORDER_COUNT, Place, RUNS, Sharing, Space, Tables, UbTooSmall, behind, in_runs, run_cores, share_rows};
use crate::isa::matrix::lower::emit::{Emit, Second, strided};
use crate::isa::matrix::program::addr::Reg;
use crate::isa::matrix::program::inst::{ScalarOp, ScalarOperand};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

/// Elements from one row of a cache to the next in UB: whole blocks of its type.
pub fn pitch(cache: &CacheLayout) -> usize {
    cache.d.next_multiple_of(32 / cache.element_bytes().min(2))
}

/// True if keys are stored with the elements of each block in the order of [`order_offsets`](super::order_offsets). Sums of
/// codes are exact in any order.
pub fn is_ordered(cache: &CacheLayout) -> bool {
    cache.d.is_multiple_of(8) && !cache.has_scales()
}

/// UB of a run of token rows.
struct At {
    /// Rows of all heads as loaded, in order, and narrowed.
    loaded: usize,
    ordered: usize,
    packed: usize,
    table: usize,
}

impl At {
    fn take(ub: usize, rows: usize, c: &CacheLayout, orders: bool) -> Result<At, UbTooSmall> {
        let mut space = Space::new(ub);
        let count = rows * c.heads * pitch(c);
        let (loaded, packed) = (space.floats(count)?, space.floats(count)?);
        let (table, ordered) = if orders { (space.floats(ORDER_COUNT)?, space.floats(count)?) } else { (0, loaded) };
        Ok(At { loaded, ordered, packed, table })
    }
}

/// Stores rows `x: f32[m, heads · d]` at positions `pos ..` of the cache. Keys are rows too, whatever their order is on
/// CPUs: nothing but [`attention`](crate::isa::matrix::lower::attention) reads them.
pub fn kv_write(
    e: &mut Emit,
    ub: usize,
    m: usize,
    (c, order): (CacheLayout, CacheOrder),
    [x, cache, pos]: [Place; 3],
    (tables, cores): (&Tables, usize),
) -> Result<Sharing, UbTooSmall> {
    // Blocks of 32 bytes have one writer, wherever `pos` is.
    let cores = if c.row_bytes().is_multiple_of(32) { cores } else { 1 };
    if c.has_scales() {
        return codes::write(e, ub, m, c, [x, cache, pos], cores);
    }
    let orders = order == CacheOrder::Keys && is_ordered(&c);
    let (together, at) = most(m, |rows| Ok((rows, At::take(ub, rows, &c, orders)?)))?;
    let cores = run_cores(m, TOGETHER, cores);
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
        self.values(e, rows, c);
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
