//! Types of elements in the matrix unit's memories.

/// Type of an element. Four-bit elements lie two to a byte, the even one in the low bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElemType {
    S4,
    S8,
    U8,
    S16,
    U16,
    S32,
    U32,
    F16,
    Bf16,
    F32,
}

impl ElemType {
    /// Every type, in the order of the encoding.
    pub const ALL: [ElemType; 10] = [
        ElemType::S4,
        ElemType::S8,
        ElemType::U8,
        ElemType::S16,
        ElemType::U16,
        ElemType::S32,
        ElemType::U32,
        ElemType::F16,
        ElemType::Bf16,
        ElemType::F32,
    ];

    pub const fn bits(self) -> u32 {
        match self {
            ElemType::S4 => 4,
            ElemType::S8 | ElemType::U8 => 8,
            ElemType::S16 | ElemType::U16 | ElemType::F16 | ElemType::Bf16 => 16,
            ElemType::S32 | ElemType::U32 | ElemType::F32 => 32,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            ElemType::S4 => "s4",
            ElemType::S8 => "s8",
            ElemType::U8 => "u8",
            ElemType::S16 => "s16",
            ElemType::U16 => "u16",
            ElemType::S32 => "s32",
            ElemType::U32 => "u32",
            ElemType::F16 => "f16",
            ElemType::Bf16 => "bf16",
            ElemType::F32 => "f32",
        }
    }
}

/// Operand and accumulator types of a cube product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CubeType {
    /// s4 × s4 → s32.
    S4,
    /// s8 × s8 → s32.
    S8,
    /// f16 × f16 → f32.
    F16,
    /// f16 × f16 → f16, on machines whose cube accumulates in half precision.
    F16Half,
    /// bf16 × bf16 → f32.
    Bf16,
    /// f32 × f32 → f32.
    F32,
}

impl CubeType {
    /// Every type, in the order of the encoding.
    pub const ALL: [CubeType; 6] =
        [CubeType::S4, CubeType::S8, CubeType::F16, CubeType::F16Half, CubeType::Bf16, CubeType::F32];

    pub const fn name(self) -> &'static str {
        match self {
            CubeType::S4 => "s4",
            CubeType::S8 => "s8",
            CubeType::F16 => "f16",
            CubeType::F16Half => "f16half",
            CubeType::Bf16 => "bf16",
            CubeType::F32 => "f32",
        }
    }

    /// Type of both operands.
    pub const fn operand(self) -> ElemType {
        match self {
            CubeType::S4 => ElemType::S4,
            CubeType::S8 => ElemType::S8,
            CubeType::F16 | CubeType::F16Half => ElemType::F16,
            CubeType::Bf16 => ElemType::Bf16,
            CubeType::F32 => ElemType::F32,
        }
    }

    /// Type of the elements of L0C.
    pub const fn accumulator(self) -> ElemType {
        match self {
            CubeType::S4 | CubeType::S8 => ElemType::S32,
            CubeType::F16 | CubeType::Bf16 | CubeType::F32 => ElemType::F32,
            CubeType::F16Half => ElemType::F16,
        }
    }

    /// Elements of k in a fractal's 32 byte row.
    pub const fn k0(self) -> u32 {
        32 * 8 / self.operand().bits()
    }
}
