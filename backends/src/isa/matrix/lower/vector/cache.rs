//! Cache writes: rows of keys and values, in the cache's type. They are whole rows here, neither turned nor cut in parts
//! as on CPUs.

use tcc_ir::cache::{CacheLayout, CacheOrder};

use super::quantize::{Codes, code_rows};
use super::rows::{AT, INDEX, POS, Rows, TOGETHER, W, X, count as rows, element, step};
use super::{ORDER_COUNT, Place, Space, Tables, UbTooSmall, behind, reg};
use crate::isa::matrix::lower::emit::{Emit, Second, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::program::addr::Reg;
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

/// Stores rows `x: f32[m, heads · d]` at positions `pos ..` of the cache. Keys are rows too, whatever their order is on
/// CPUs: nothing but [`attention`](super::attention) reads them.
pub fn kv_write(
    e: &mut Emit,
    ub: usize,
    m: usize,
    (c, order): (CacheLayout, CacheOrder),
    [x, cache, pos]: [Place; 3],
    tables: &Tables,
) -> Result<(), UbTooSmall> {
    let mut space = Space::new(ub);
    let orders = order == CacheOrder::Keys && is_ordered(&c);
    let count = c.heads * pitch(&c);
    let [loaded, packed] = [count; 2].map(|n| space.floats(n));
    let (loaded, packed) = (loaded?, packed?);
    let (table, ordered) = if orders { (space.floats(ORDER_COUNT)?, space.floats(count)?) } else { (0, loaded) };
    let codes = if c.has_scales() { Some(Codes::take(&mut space, c.d, Mode::I8)?) } else { None };
    if orders {
        e.point(POS, tables.order);
        e.load(table, behind(POS, 0), 1, 4 * ORDER_COUNT, 0, 0);
        e.fill(loaded, 0, count);
        e.computed();
    }
    e.point(POS, pos);
    e.scalar_load(INDEX, behind(POS, 0));
    e.point(W, cache);
    e.point(X, x);
    e.begin(rows(m));
    e.index(AT, W, INDEX, c.row_bytes());
    e.load(loaded, behind(X, 0), c.heads, 4 * c.d, 4 * c.d, 4 * pitch(&c));
    e.loaded();
    if orders {
        e.in_order(ordered, loaded, table, count);
    }
    match &codes {
        Some(codes) => quantized(e, &c, ordered, codes),
        None => values(e, &c, ordered, packed),
    }
    e.stored();
    e.add(INDEX, INDEX, 1);
    e.end(&[(X, step(4 * c.heads * c.d))]);
    Ok(())
}

/// Rows of all heads, as they are or narrowed.
fn values(e: &mut Emit, c: &CacheLayout, from: usize, packed: usize) {
    let (ty, size) = element(c.dtype);
    let pitch = pitch(c);
    let op = if ty == ElemType::F32 { VecOp::Mov } else { VecOp::CastSat };
    for first in (0..c.d).step_by(64) {
        let to = strided(packed + size * first, 1, pitch * size / 32);
        let x = strided(from + 4 * first, 1, pitch / 8);
        e.vec(op, (ty, ElemType::F32), to, x, Second::None, c.heads, (c.d - first).min(64));
    }
    e.computed();
    e.store(behind(AT, 0), packed, c.heads, c.row_bytes(), size * pitch, c.head_bytes());
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
