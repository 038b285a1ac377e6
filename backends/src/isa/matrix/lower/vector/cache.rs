//! Cache writes: rows of keys and values, in the cache's type and order. Values are whole rows here, not parts: one
//! core reads all of a head.

use tcc_ir::cache::{BLOCK, CacheLayout, CacheOrder};

use super::quantize::{Codes, code_row};
use super::rows::{AT, AT2, INDEX, POS, W, X, count, element, step};
use super::{Place, Space, UbTooSmall, behind, reg};
use crate::isa::matrix::lower::emit::{Emit, Second, strided};
use crate::isa::matrix::lower::matmul::tile::Mode;
use crate::isa::matrix::program::addr::Reg;
use crate::isa::matrix::program::inst::{ScalarOp, ScalarOperand};
use crate::isa::matrix::program::ty::ElemType;
use crate::isa::matrix::program::vec::VecOp;

/// Address of the scale of the position in head 0.
const SCALE: Reg = reg(9);

/// UB of a token row's elements.
struct At {
    rows: usize,
    packed: usize,
    // Elements of keys are stored one by one, so each has a block of its own.
    wide: usize,
    narrow: usize,
}

/// Elements from one row of a cache to the next in UB: whole blocks of its type.
pub fn pitch(cache: &CacheLayout) -> usize {
    cache.d.next_multiple_of(32 / cache.element_bytes().min(2))
}

/// Stores rows `x: f32[m, heads · d]` at positions `pos ..` of the cache.
pub fn kv_write(
    e: &mut Emit,
    ub: usize,
    m: usize,
    (c, order): (CacheLayout, CacheOrder),
    [x, cache, pos]: [Place; 3],
) -> Result<(), UbTooSmall> {
    let mut space = Space::new(ub);
    let floats = [c.heads * pitch(&c), c.heads * pitch(&c), 8 * c.d, 8 * c.d].map(|n| space.floats(n));
    let [rows, packed, wide, narrow] = floats;
    let at = At { rows: rows?, packed: packed?, wide: wide?, narrow: narrow? };
    let codes = if c.has_scales() { Some(Codes::take(&mut space, c.d, Mode::I8)?) } else { None };
    e.point(POS, pos);
    e.scalar_load(INDEX, behind(POS, 0));
    e.point(W, cache);
    e.point(X, x);
    e.begin(count(m));
    position(e, &c, order);
    e.load(at.rows, behind(X, 0), c.heads, 4 * c.d, 4 * c.d, 4 * pitch(&c));
    e.loaded();
    match (&codes, order) {
        (Some(codes), _) => quantized(e, &c, order, &at, codes),
        (None, CacheOrder::Values) => values(e, &c, &at),
        (None, CacheOrder::Keys) => {
            for head in 0..c.heads {
                let (ty, _) = element(c.dtype);
                let op = if ty == ElemType::F32 { VecOp::Mov } else { VecOp::CastSat };
                key(e, &c, head, &at, at.rows + 4 * head * pitch(&c), op);
            }
        }
    }
    e.stored();
    e.add(INDEX, INDEX, 1);
    e.end(&[(X, step(4 * c.heads * c.d))]);
    Ok(())
}

/// Rows of values of all heads, as they are or narrowed.
fn values(e: &mut Emit, c: &CacheLayout, at: &At) {
    let (ty, size) = element(c.dtype);
    let pitch = pitch(c);
    let op = if ty == ElemType::F32 { VecOp::Mov } else { VecOp::CastSat };
    for first in (0..c.d).step_by(64) {
        let to = strided(at.packed + size * first, 1, pitch * size / 32);
        let x = strided(at.rows + 4 * first, 1, pitch / 8);
        e.vec(op, (ty, ElemType::F32), to, x, Second::None, c.heads, (c.d - first).min(64));
    }
    e.computed();
    e.store(behind(AT, 0), at.packed, c.heads, c.row_bytes(), size * pitch, c.head_bytes());
}

/// The key of one head: the `d` elements at `from`, turned.
fn key(e: &mut Emit, c: &CacheLayout, head: usize, at: &At, from: usize, op: VecOp) {
    let (ty, size) = element(c.dtype);
    e.spread(at.wide, from, c.d);
    let (to, x) = (strided(at.narrow, 1, 1), strided(at.wide, 1, 1));
    e.vec(op, (ty, ElemType::F32), to, x, Second::None, c.d, 8);
    e.computed();
    e.store(behind(AT, head * c.head_bytes()), at.narrow, c.d, size, 32, size * BLOCK);
    e.stored();
}

/// Codes and scales of all heads.
fn quantized(e: &mut Emit, c: &CacheLayout, order: CacheOrder, at: &At, codes: &Codes) {
    e.index(SCALE, W, INDEX, 4);
    for head in 0..c.heads {
        code_row(e, codes, at.rows + 4 * head * pitch(c), c.d);
        match order {
            CacheOrder::Keys => key(e, c, head, at, codes.t, VecOp::Cast),
            CacheOrder::Values => {
                e.computed();
                e.store(behind(AT, head * c.head_bytes()), codes.codes, 1, c.d, 0, 0);
            }
        }
        let scale = behind(SCALE, c.scales_offset_bytes() + 4 * head * c.positions());
        e.store(scale, codes.a, 1, 4, 0, 0);
        e.stored();
    }
}

/// `AT` = address of element 0 of position `INDEX` in head 0 of the cache at `W`.
fn position(e: &mut Emit, c: &CacheLayout, order: CacheOrder) {
    let imm = |value: usize| ScalarOperand::Imm(value as i64);
    e.scalar(ScalarOp::Div, AT, INDEX, imm(BLOCK));
    e.scalar(ScalarOp::Mul, AT, AT, imm(BLOCK * c.row_bytes()));
    e.scalar(ScalarOp::Rem, AT2, INDEX, imm(BLOCK));
    let within = match order {
        CacheOrder::Keys => c.element_bytes(),
        CacheOrder::Values => c.row_bytes(),
    };
    e.scalar(ScalarOp::Mul, AT2, AT2, imm(within));
    e.scalar(ScalarOp::Add, AT, AT, ScalarOperand::Reg(AT2));
    e.scalar(ScalarOp::Add, AT, AT, ScalarOperand::Reg(W));
}
