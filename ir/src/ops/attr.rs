//! Attributes of ops as named slots: what the text form, the DOT export and the op table share.

use super::{Act, InputKind, Op};
use crate::coded::RowCode;
use crate::program::{StateId, WeightId};

/// One attribute's place in an op.
#[derive(Debug, PartialEq)]
pub enum Slot<'a> {
    F32(&'a mut f32),
    Count(&'a mut usize),
    Act(&'a mut Act),
    Code(&'a mut RowCode),
    /// Present or absent; absent unless written.
    Flag(&'a mut bool),
}

/// A named attribute of an op.
#[derive(Debug, PartialEq)]
pub struct Attr<'a> {
    pub name: &'static str,
    pub slot: Slot<'a>,
    /// False where the value in [`OPS`] stands when the attribute is not written.
    pub is_required: bool,
}

/// One op of each kind, attributes at their defaults, in the order of the op table (`docs/ir.md`).
pub const OPS: [Op; 19] = [
    Op::Input(InputKind::Tokens),
    Op::Weight(WeightId(0)),
    Op::State(StateId(0)),
    Op::Embed { scale: 1.0 },
    Op::CodedEmbed { scale: 1.0, code: RowCode::Int8 },
    Op::RmsNorm { eps: 0.0 },
    Op::QuantizeAct,
    Op::TernaryLinear { bias: false, residual: false },
    Op::FloatTernaryLinear { bias: false, residual: false },
    Op::DenseLinear { scale: 1.0, bias: false, residual: false },
    Op::CodedLinear { code: RowCode::Int8 },
    Op::Rope,
    Op::KvWrite,
    Op::Attention { heads: 1, scale: 1.0 },
    Op::Glu { act: Act::Relu2 },
    Op::Add,
    Op::NormQuant { eps: 0.0 },
    Op::GluQuant { act: Act::Relu2 },
    Op::GluNormQuant { act: Act::Relu2, eps: 0.0 },
];

impl Op {
    /// The op named `name` with its attributes at their defaults.
    pub fn from_name(name: &str) -> Option<Op> {
        OPS.into_iter().find(|op| op.name() == name)
    }

    /// The attributes in printed order. What a leaf names (an input, a weight, a state) is not an attribute.
    pub fn attrs(&mut self) -> Vec<Attr<'_>> {
        let required = |name, slot| Attr { name, slot, is_required: true };
        let optional = |name, slot| Attr { name, slot, is_required: false };
        match self {
            Op::Input(_) | Op::Weight(_) | Op::State(_) | Op::QuantizeAct | Op::Rope | Op::KvWrite | Op::Add => {
                vec![]
            }
            Op::Embed { scale } => vec![optional("scale", Slot::F32(scale))],
            Op::CodedEmbed { scale, code } => {
                vec![optional("scale", Slot::F32(scale)), required("code", Slot::Code(code))]
            }
            Op::CodedLinear { code } => vec![required("code", Slot::Code(code))],
            Op::RmsNorm { eps } | Op::NormQuant { eps } => vec![required("eps", Slot::F32(eps))],
            Op::TernaryLinear { bias, residual } | Op::FloatTernaryLinear { bias, residual } => {
                vec![optional("bias", Slot::Flag(bias)), optional("residual", Slot::Flag(residual))]
            }
            Op::DenseLinear { scale, bias, residual } => vec![
                optional("scale", Slot::F32(scale)),
                optional("bias", Slot::Flag(bias)),
                optional("residual", Slot::Flag(residual)),
            ],
            Op::Attention { heads, scale } => {
                vec![required("heads", Slot::Count(heads)), required("scale", Slot::F32(scale))]
            }
            Op::Glu { act } | Op::GluQuant { act } => vec![required("act", Slot::Act(act))],
            Op::GluNormQuant { act, eps } => {
                vec![required("act", Slot::Act(act)), required("eps", Slot::F32(eps))]
            }
        }
    }
}

impl Act {
    pub const ALL: [Act; 2] = [Act::Relu2, Act::Silu];

    /// The gate's name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            Act::Relu2 => "relu2",
            Act::Silu => "silu",
        }
    }
}

impl InputKind {
    pub const ALL: [InputKind; 4] = [InputKind::Tokens, InputKind::Pos, InputKind::Valid, InputKind::Hidden];

    /// The input's name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            InputKind::Tokens => "tokens",
            InputKind::Pos => "pos",
            InputKind::Valid => "valid",
            InputKind::Hidden => "hidden",
        }
    }
}
