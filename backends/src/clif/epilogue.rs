//! The end of every matrix product: scale addressing, `+ bias`, `+ residual`, and loops over output rows.

use cranelift_codegen::ir::types::F32;
use cranelift_codegen::ir::{InstBuilder, Value};
use tcc_ir::kernel::ScaleKind;

use super::func::FunctionCx;
use super::kernel::Kernel;
use super::lanes::{Lanes, Shape};

/// Which optional operands a product has.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub bias: bool,
    pub residual: bool,
}

/// Outputs from one token row to the next.
#[derive(Clone, Copy)]
pub(super) enum Stride {
    Fixed(usize),
    /// Known at run time.
    Value(Value),
}

/// Addresses of the operands after the product: bias `[n]`, residual `[m, n]`, result `[m, n]`.
#[derive(Clone, Copy)]
pub(super) struct Epilogue {
    stride: Stride,
    bias: Option<Value>,
    residual: Option<Value>,
    out: Value,
}

impl Epilogue {
    /// The operands from `first` on.
    pub fn new(f: &mut FunctionCx, kernel: &Kernel, first: usize, n: usize, has: Operands) -> Epilogue {
        let bias = has.bias.then(|| kernel.operand(f, first));
        let residual = has.residual.then(|| kernel.operand(f, first + usize::from(has.bias)));
        let out = kernel.operand(f, first + usize::from(has.bias) + usize::from(has.residual));
        Epilogue { stride: Stride::Fixed(n), bias, residual, out }
    }

    /// Nothing is added to the outputs at `out`.
    pub fn plain(stride: Stride, out: Value) -> Epilogue {
        Epilogue { stride, bias: None, residual: None, out }
    }

    /// The number of output `column` of token row `row` among all.
    fn number(&self, f: &mut FunctionCx, row: Value, column: Value) -> Value {
        let first = match self.stride {
            Stride::Fixed(n) => f.scaled(row, n),
            Stride::Value(n) => f.ins().imul(row, n),
        };
        f.ins().iadd(first, column)
    }

    /// Bytes from one token row of outputs to the next.
    pub fn row_bytes(&self, f: &mut FunctionCx) -> Value {
        match self.stride {
            Stride::Fixed(n) => f.size(4 * n),
            Stride::Value(n) => f.scaled(n, 4),
        }
    }

    pub fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// Addresses of the result and of the residual, which is null where there is none, of the output `column` of token
    /// row `row`.
    pub fn addresses(&self, f: &mut FunctionCx, row: Value, column: Value) -> [Value; 2] {
        let at = self.number(f, row, column);
        let residual = self.residual.map(|residual| f.index(residual, at, 4));
        [f.index(self.out, at, 4), residual.unwrap_or_else(|| f.i64(0))]
    }

    /// Finishes `y`, the outputs from `column` on of token row `row`, and stores them.
    pub fn store(&self, f: &mut FunctionCx, y: Lanes, row: Value, column: Value) {
        let mut y = y;
        if let Some(bias) = self.bias {
            let bias = f.index(bias, column, 4);
            let bias = Lanes::load(f, y.shape(), bias);
            y = y.add(f, &bias);
        }
        let at = self.number(f, row, column);
        if let Some(residual) = self.residual {
            let residual = f.index(residual, at, 4);
            let residual = Lanes::load(f, y.shape(), residual);
            y = y.add(f, &residual);
        }
        let out = f.index(self.out, at, 4);
        y.store(f, out);
    }
}

/// The scales of a ternary matrix `[n, k]` in memory.
#[derive(Clone, Copy)]
pub(super) struct Scales {
    pub kind: ScaleKind,
    pub k: usize,
    pub base: Value,
}

impl Scales {
    /// Runs of columns with a scale of their own.
    pub fn groups(kind: ScaleKind, k: usize) -> usize {
        match kind {
            ScaleKind::PerTensor | ScaleKind::PerRow => 1,
            ScaleKind::PerGroup { group } => k / group,
        }
    }

    /// Scales of the outputs from `column` on, in group `group`.
    pub fn load(&self, f: &mut FunctionCx, shape: Shape, column: Value, group: Value) -> Lanes {
        match self.kind {
            ScaleKind::PerTensor => {
                let scale = f.load(F32, self.base, 0);
                Lanes::splat(f, shape, scale)
            }
            ScaleKind::PerRow => {
                let at = f.index(self.base, column, 4);
                Lanes::load(f, shape, at)
            }
            ScaleKind::PerGroup { .. } => {
                let row_bytes = 4 * Scales::groups(self.kind, self.k);
                let at = f.index(self.base, column, row_bytes);
                let at = f.index(at, group, 4);
                Lanes::gather(f, shape, at, row_bytes)
            }
        }
    }
}

/// Runs `body` over rows `begin..end`: `at_once` together while they last, then one by one. The number given is how
/// many.
pub(super) fn for_row_groups(
    f: &mut FunctionCx,
    begin: Value,
    end: Value,
    at_once: usize,
    body: impl Fn(&mut FunctionCx, Value, usize),
) {
    let step = f.size(at_once);
    let count = f.ins().isub(end, begin);
    let left = f.ins().urem(count, step);
    let whole_end = f.ins().isub(end, left);
    f.for_range(begin, whole_end, at_once, |f, row| body(f, row, at_once));
    f.for_range(whole_end, end, 1, |f, row| body(f, row, 1));
}

/// The output rows of `task`: `task · task_rows` up to the next task or `n`.
pub(super) fn task_range(f: &mut FunctionCx, task: Value, task_rows: usize, n: usize) -> (Value, Value) {
    let begin = f.scaled(task, task_rows);
    let (next, n) = (f.offset(begin, task_rows), f.size(n));
    (begin, f.min(next, n))
}
