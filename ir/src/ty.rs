//! Types of values: an element type and a static shape.

use std::fmt;

/// Element type of a value, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    F32,
    F16,
    Bf16,
    I8,
    I32,
    U32,
    /// Caches only: int8 codes with one f32 scale per run along the last axis, `x ≈ code · scale`.
    Q8,
    /// A ternary weight in {-1, 0, 1}; its bytes are decided by an encoding, in the plan.
    Trit,
}

impl DType {
    /// Every element type with its name in the text form.
    pub const ALL: [(DType, &'static str); 8] = [
        (DType::F32, "f32"),
        (DType::F16, "f16"),
        (DType::Bf16, "bf16"),
        (DType::I8, "i8"),
        (DType::I32, "i32"),
        (DType::U32, "u32"),
        (DType::Q8, "q8"),
        (DType::Trit, "trit"),
    ];

    /// Bytes of one stored element; `None` for [`DType::Trit`], whose size depends on the encoding, and for
    /// [`DType::Q8`], whose elements share scales.
    pub fn size_bytes(self) -> Option<usize> {
        match self {
            DType::F32 | DType::I32 | DType::U32 => Some(4),
            DType::F16 | DType::Bf16 => Some(2),
            DType::I8 => Some(1),
            DType::Q8 | DType::Trit => None,
        }
    }

    /// True for the three float types.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::Bf16)
    }

    /// The type named `name` in the text form.
    pub fn from_name(name: &str) -> Option<DType> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(t, _)| *t)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(t, _)| t == self).map(|(_, n)| *n);
        f.write_str(name.expect("ALL lists every element type"))
    }
}

/// Element type and shape of a value; every extent is a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ValueType {
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl ValueType {
    pub fn new(dtype: DType, shape: &[usize]) -> Self {
        ValueType { dtype, shape: shape.to_vec() }
    }

    pub fn f32(shape: &[usize]) -> Self {
        Self::new(DType::F32, shape)
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of the row-major stored form; `None` where elements have no size of their own.
    pub fn size_bytes(&self) -> Option<usize> {
        self.dtype.size_bytes().map(|b| b * self.elements())
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, extent) in self.shape.iter().enumerate() {
            write!(f, "{}{extent}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("]")
    }
}
