//! `KvWrite`: valid rows of keys or values go to their positions in the cache.

use cranelift_codegen::ir::Value;
use tcc_ir::ty::DType;

use super::func::FunctionCx;
use super::kernel::Kernel;
use super::lanes::Lanes;
use super::math::to_f16_bits;
use super::rows::for_elements;

/// A cache `[heads, ctx, d]` of f32 or f16.
pub(super) struct Cache {
    /// KV heads.
    pub heads: usize,
    pub d: usize,
    pub ctx: usize,
    pub dtype: DType,
}

impl Cache {
    fn element_bytes(&self) -> usize {
        self.dtype.size_bytes().expect("type rules admit floats")
    }

    /// Bytes of one position of one head.
    pub fn row_bytes(&self) -> usize {
        self.d * self.element_bytes()
    }

    /// Address of position 0 of `head`.
    pub fn head(&self, f: &mut FunctionCx, base: Value, head: Value) -> Value {
        f.index(base, head, self.ctx * self.row_bytes())
    }
}

pub(super) fn build(f: &mut FunctionCx, kernel: &Kernel, cache: &Cache) {
    let (x, base) = (kernel.operand(f, 0), kernel.operand(f, 1));
    let (pos, valid) = (kernel.pos(f), kernel.valid(f));
    f.for_range(kernel.begin, kernel.end, 1, |f, head| {
        let to = cache.head(f, base, head);
        let to = f.index(to, pos, cache.row_bytes());
        let from = f.index(x, head, 4 * cache.d);
        let first = f.i64(0);
        f.for_range(first, valid, 1, |f, row| {
            let from = f.index(from, row, 4 * cache.heads * cache.d);
            let to = f.index(to, row, cache.row_bytes());
            write_row(f, cache, from, to);
        });
    });
}

fn write_row(f: &mut FunctionCx, cache: &Cache, from: Value, to: Value) {
    for_elements(f, cache.d, |f, shape, i| {
        let from = f.index(from, i, 4);
        let x = Lanes::load(f, shape, from);
        let to = f.index(to, i, cache.element_bytes());
        match cache.dtype {
            DType::F32 => x.store(f, to),
            DType::F16 => to_f16_bits(f, &x).store_u16(f, to),
            DType::Bf16 | DType::I8 | DType::I32 | DType::U32 | DType::Trit => {
                unreachable!("type rules admit f32 and f16 caches, found {}", cache.dtype)
            }
        }
    });
}
