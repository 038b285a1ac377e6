//! `input`, `weight`, `state`: values that come from outside the graph; their types are declared, not inferred.

use super::{Operands, TypeError};
use crate::ty::ValueType;

pub(super) fn infer(cx: &Operands) -> Result<Vec<ValueType>, TypeError> {
    cx.count(0)?;
    cx.fail("a leaf's type is declared, not inferred")
}
