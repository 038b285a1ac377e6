//! How many registers a vector instruction of RISC-V works on.
//!
//! A vector instruction counts once for each register of the widest group among its operands: what a core with one
//! register of datapath needs at least. Source: the RISC-V "V" extension 1.0, sections 3.4 and 5.2 (groups), 6.1
//! (`vsetvli`), 7 (loads and stores), 11 and 12 (widening and narrowing).

/// What the last `vsetvli` said, as powers of two: bits of an element, and registers of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VectorType {
    pub sew: i32,
    pub lmul: i32,
}

/// What an instruction is, as far as counting goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No vector instruction.
    Scalar,
    /// `vsetvli` or `vsetivli`.
    Set(VectorType),
    /// Works on groups of 2^(lmul + `wider`) registers.
    Group { wider: i32 },
    /// Loads or stores `fields` groups of elements of 2^`eew` bits.
    Memory { eew: i32, fields: u64 },
    /// Moves whole registers.
    Registers(u64),
}

impl Kind {
    /// The kind of the instruction with these bits; compressed ones are never of vectors.
    pub fn of(bits: u32) -> Kind {
        const OP_V: u32 = 0x57;
        const LOAD_FP: u32 = 0x07;
        const STORE_FP: u32 = 0x27;
        let (opcode, funct3) = (bits & 0x7f, bits >> 12 & 7);
        match (opcode, funct3) {
            (OP_V, 7) => set(bits),
            (OP_V, _) => Kind::Group { wider: i32::from(is_wide(bits)) },
            // Widths 1 to 4 are the scalar floats' loads and stores.
            (LOAD_FP | STORE_FP, 0 | 5 | 6 | 7) => memory(bits),
            _ => Kind::Scalar,
        }
    }

    /// What the instruction counts while the vector type is `ty`.
    pub fn weight(self, ty: VectorType) -> u64 {
        let group = |lmul: i32| 1 << lmul.clamp(0, 3);
        match self {
            Kind::Scalar | Kind::Set(_) => 1,
            Kind::Group { wider } => group(ty.lmul + wider),
            Kind::Memory { eew, fields } => fields * group(ty.lmul + eew - ty.sew),
            Kind::Registers(count) => count,
        }
    }
}

/// `vsetvli` and `vsetivli` hold the type. `vsetvl` takes it from a register: compiled models do not use it, and it
/// counts as if it kept the type.
fn set(bits: u32) -> Kind {
    if bits >> 30 == 2 {
        return Kind::Scalar;
    }
    let vtype = bits >> 20;
    // Three bits each, so the casts keep the value; lmul is a signed power of two.
    let sew = 3 + (vtype >> 3 & 7) as i32;
    let lmul = ((vtype & 7) as i32) << 29 >> 29;
    Kind::Set(VectorType { sew, lmul })
}

/// True if an operand has twice the width: integer and float widening (OPMVV, OPMVX, OPFVV, OPFVF with the two upper
/// bits of funct6 set), float conversions between widths, widening sums, narrowing shifts and clips (OPIVV, OPIVX,
/// OPIVI).
fn is_wide(bits: u32) -> bool {
    const FLOAT_UNARY: u32 = 0b01_0010;
    let (funct6, funct3, vs1) = (bits >> 26, bits >> 12 & 7, bits >> 15 & 31);
    match funct3 {
        1 => funct6 >> 4 == 3 || (funct6 == FLOAT_UNARY && vs1 >= 8),
        2 | 5 | 6 => funct6 >> 4 == 3,
        _ => funct6 >> 4 == 3 || funct6 >> 2 == 0b1011,
    }
}

fn memory(bits: u32) -> Kind {
    let fields = u64::from(bits >> 29) + 1;
    let eew = if bits >> 12 & 7 == 0 { 3 } else { (bits >> 12 & 7) as i32 - 1 };
    let (mop, lumop) = (bits >> 26 & 3, bits >> 20 & 31);
    match (mop, lumop) {
        (0, 8) => Kind::Registers(fields),
        (0, 11) => Kind::Registers(1),
        _ => Kind::Memory { eew, fields },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E8M2: VectorType = VectorType { sew: 3, lmul: 1 };

    /// Bits by an outside assembler (GNU as 2.40, `-march=rv64gcv`).
    #[test]
    fn instructions_count_their_widest_group() {
        let kinds = [
            (0x0c12_72d7, "vsetvli t0, tp, e8, m2, ta, ma", Kind::Set(E8M2), 1),
            (0x0c72_72d7, "vsetvli t0, tp, e8, mf2, ta, ma", Kind::Set(VectorType { sew: 3, lmul: -1 }), 1),
            (0x0205_0407, "vle8.v v8, (a0)", Kind::Memory { eew: 3, fields: 1 }, 2),
            (0x0205_6407, "vle32.v v8, (a0)", Kind::Memory { eew: 5, fields: 1 }, 8),
            (0x0285_0407, "vl1re8.v v8, (a0)", Kind::Registers(1), 1),
            (0x0281_0457, "vadd.vv v8, v8, v2", Kind::Group { wider: 0 }, 2),
            (0xee83_2457, "vwmul.vv v8, v8, v6", Kind::Group { wider: 1 }, 4),
            (0xb283_b457, "vnsrl.wi v8, v8, 7", Kind::Group { wider: 1 }, 4),
            (0x0005_3507, "fld fa0, 0(a0)", Kind::Scalar, 1),
            (0x0000_0513, "li a0, 0", Kind::Scalar, 1),
        ];
        for (bits, text, kind, weight) in kinds {
            assert_eq!((Kind::of(bits), Kind::of(bits).weight(E8M2)), (kind, weight), "{text}");
        }
    }
}
