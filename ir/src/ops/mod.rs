//! The closed set of ops: names, attributes, type rules and meaning, one file per op.
//!
//! **Invariant:** `Op` is matched without a wildcard everywhere, so a new op is a list of compile errors.

pub mod add;
pub mod attention;
pub mod attr;
pub mod coded;
pub mod embed;
pub mod glu;
pub mod kv_write;
pub mod leaf;
pub mod linear;
pub mod quantize_act;
pub mod rms_norm;
pub mod rope;

use thiserror::Error;

use crate::coded::RowCode;
use crate::program::{StateId, WeightId};
use crate::tensor::Tensor;
use crate::ty::{DType, ValueType};

/// Gate of the feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Act {
    /// `max(g, 0)² · u` (BitNet b1.58 2B-4T).
    Relu2,
    /// `g / (1 + e^-g) · u`.
    Silu,
}

/// What a run-time input carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// `u32[m]`, the token ids; rows at `valid` and above are ignored.
    Tokens,
    /// `u32[1]`, the absolute position of row 0.
    Pos,
    /// `u32[1]`, the number of rows that carry a token, 1..=m.
    Valid,
    /// `f32[m, hidden]`, rows of the residual stream (the head's input).
    Hidden,
}

/// One operation. Attributes are compile-time constants; operands are listed with each file's type rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    Input(InputKind),
    Weight(WeightId),
    State(StateId),
    Embed {
        scale: f32,
    },
    /// Rows of a coded table.
    CodedEmbed {
        scale: f32,
        code: RowCode,
    },
    RmsNorm {
        eps: f32,
    },
    QuantizeAct,
    TernaryLinear {
        bias: bool,
        residual: bool,
    },
    FloatTernaryLinear {
        bias: bool,
        residual: bool,
    },
    DenseLinear {
        scale: f32,
        bias: bool,
        residual: bool,
    },
    /// A product with a coded table.
    CodedLinear {
        code: RowCode,
    },
    Rope,
    KvWrite,
    Attention {
        heads: usize,
        scale: f32,
    },
    Glu {
        act: Act,
    },
    Add,
    /// Fused: `quantize_act(rms_norm(x, w))`.
    NormQuant {
        eps: f32,
    },
    /// Fused: `quantize_act(glu(g, u))`.
    GluQuant {
        act: Act,
    },
    /// Fused: `quantize_act(rms_norm(glu(g, u), w))`.
    GluNormQuant {
        act: Act,
        eps: f32,
    },
}

/// Why a set of operands does not fit an op.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{op}: {what}")]
pub struct TypeError {
    pub op: &'static str,
    pub what: String,
}

impl Op {
    /// The op's name in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "input",
            Op::Weight(_) => "weight",
            Op::State(_) => "state",
            Op::Embed { .. } => "embed",
            Op::CodedEmbed { .. } => "coded_embed",
            Op::RmsNorm { .. } => "rms_norm",
            Op::QuantizeAct => "quantize_act",
            Op::TernaryLinear { .. } => "ternary_linear",
            Op::FloatTernaryLinear { .. } => "float_ternary_linear",
            Op::DenseLinear { .. } => "dense_linear",
            Op::CodedLinear { .. } => "coded_linear",
            Op::Rope => "rope",
            Op::KvWrite => "kv_write",
            Op::Attention { .. } => "attention",
            Op::Glu { .. } => "glu",
            Op::Add => "add",
            Op::NormQuant { .. } => "norm_quant",
            Op::GluQuant { .. } => "glu_quant",
            Op::GluNormQuant { .. } => "glu_norm_quant",
        }
    }

    /// True for the ops that read nothing from the graph.
    pub fn is_leaf(&self) -> bool {
        matches!(self, Op::Input(_) | Op::Weight(_) | Op::State(_))
    }

    /// Types of the results, from the types of the operands. Leaves carry their type themselves.
    pub fn infer(&self, operands: &[ValueType]) -> Result<Vec<ValueType>, TypeError> {
        let cx = Operands { op: self.name(), types: operands };
        match self {
            Op::Input(_) | Op::Weight(_) | Op::State(_) => leaf::infer(&cx),
            Op::Embed { .. } | Op::CodedEmbed { .. } => embed::infer(&cx),
            Op::RmsNorm { .. } => rms_norm::infer(&cx),
            Op::QuantizeAct => quantize_act::infer(&cx),
            Op::TernaryLinear { bias, residual } => linear::infer_ternary(&cx, *bias, *residual),
            Op::FloatTernaryLinear { bias, residual } => linear::infer_float_ternary(&cx, *bias, *residual),
            Op::DenseLinear { bias, residual, .. } => linear::infer_dense(&cx, *bias, *residual),
            Op::CodedLinear { .. } => linear::infer_dense(&cx, false, false),
            Op::Rope => rope::infer(&cx),
            Op::KvWrite => kv_write::infer(&cx),
            Op::Attention { heads, .. } => attention::infer(&cx, *heads),
            Op::Glu { .. } => glu::infer(&cx),
            Op::Add => add::infer(&cx),
            Op::NormQuant { .. } => quantize_act::results(&cx, rms_norm::infer(&cx)?),
            Op::GluQuant { .. } => quantize_act::results(&cx, glu::infer(&cx)?),
            Op::GluNormQuant { .. } => {
                let rows = glu::infer(&cx.first(2)?)?;
                let norm = [rows[0].clone(), cx.get(2)?.clone()];
                let rows = rms_norm::infer(&Operands { op: cx.op, types: &norm })?;
                quantize_act::results(&cx, rows)
            }
        }
    }

    /// The op's meaning. Operands have passed [`Op::infer`]; leaves are supplied by the interpreter.
    pub fn eval<'a>(&self, operands: &[&Tensor<'a>]) -> Vec<Tensor<'a>> {
        match self {
            Op::Input(_) | Op::Weight(_) | Op::State(_) => unreachable!("the interpreter supplies leaves"),
            Op::Embed { scale } => vec![embed::eval(operands, *scale)],
            Op::CodedEmbed { scale, code } => vec![coded::eval_embed(operands, *scale, *code)],
            Op::RmsNorm { eps } => vec![rms_norm::eval(operands, *eps)],
            Op::QuantizeAct => quantize_act::eval(operands[0]),
            Op::TernaryLinear { bias, residual } => vec![linear::eval_ternary(operands, *bias, *residual)],
            Op::FloatTernaryLinear { bias, residual } => {
                vec![linear::eval_float_ternary(operands, *bias, *residual)]
            }
            Op::DenseLinear { scale, bias, residual } => {
                vec![linear::eval_dense(operands, *scale, *bias, *residual)]
            }
            Op::CodedLinear { code } => vec![coded::eval_linear(operands, *code)],
            Op::Rope => vec![rope::eval(operands)],
            Op::KvWrite => vec![kv_write::eval(operands)],
            Op::Attention { heads, scale } => vec![attention::eval(operands, *heads, *scale)],
            Op::Glu { act } => vec![glu::eval(operands, *act)],
            Op::Add => vec![add::eval(operands)],
            Op::NormQuant { eps } => quantize_act::eval(&rms_norm::eval(operands, *eps)),
            Op::GluQuant { act } => quantize_act::eval(&glu::eval(operands, *act)),
            Op::GluNormQuant { act, eps } => {
                let rows = glu::eval(&operands[..2], *act);
                quantize_act::eval(&rms_norm::eval(&[&rows, operands[2]], *eps))
            }
        }
    }
}

/// Operand types of one op, with the checks that type rules share.
pub struct Operands<'a> {
    pub op: &'static str,
    pub types: &'a [ValueType],
}

impl<'a> Operands<'a> {
    pub fn fail<T>(&self, what: impl Into<String>) -> Result<T, TypeError> {
        Err(TypeError { op: self.op, what: what.into() })
    }

    pub fn count(&self, want: usize) -> Result<(), TypeError> {
        if self.types.len() == want {
            Ok(())
        } else {
            self.fail(format!("takes {want} operands, found {}", self.types.len()))
        }
    }

    pub fn get(&self, i: usize) -> Result<&'a ValueType, TypeError> {
        match self.types.get(i) {
            Some(ty) => Ok(ty),
            None => self.fail(format!("operand {i} is missing")),
        }
    }

    pub fn first(&self, n: usize) -> Result<Operands<'a>, TypeError> {
        match self.types.get(..n) {
            Some(types) => Ok(Operands { op: self.op, types }),
            None => self.fail(format!("takes at least {n} operands, found {}", self.types.len())),
        }
    }

    /// Operand `i` must be exactly `dtype[shape]`.
    pub fn expect(&self, i: usize, dtype: DType, shape: &[usize]) -> Result<(), TypeError> {
        let found = self.get(i)?;
        let want = ValueType::new(dtype, shape);
        if *found == want { Ok(()) } else { self.fail(format!("operand {i} is {found}, expected {want}")) }
    }

    /// Operand `i` must be a matrix of `dtype`; returns its two extents.
    pub fn matrix(&self, i: usize, dtype: DType) -> Result<(usize, usize), TypeError> {
        let found = self.get(i)?;
        match found.shape[..] {
            [rows, columns] if found.dtype == dtype => Ok((rows, columns)),
            _ => self.fail(format!("operand {i} is {found}, expected a matrix of {dtype}")),
        }
    }

    /// Operand `i` must be a matrix of any float type; returns its two extents.
    pub fn float_matrix(&self, i: usize) -> Result<(usize, usize), TypeError> {
        let found = self.get(i)?;
        match found.shape[..] {
            [rows, columns] if found.dtype.is_float() => Ok((rows, columns)),
            _ => self.fail(format!("operand {i} is {found}, expected a matrix of floats")),
        }
    }

    /// Operand `i` must be a vector of `dtype`; returns its extent.
    pub fn vector(&self, i: usize, dtype: DType) -> Result<usize, TypeError> {
        let found = self.get(i)?;
        match found.shape[..] {
            [n] if found.dtype == dtype => Ok(n),
            _ => self.fail(format!("operand {i} is {found}, expected a vector of {dtype}")),
        }
    }
}
