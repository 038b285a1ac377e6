//! Encoder of the RV64 instructions that the kernels use: one line per instruction, words only, never compressed.
//!
//! Fields and opcodes: The RISC-V Instruction Set Manual, volume I (20240411), chapter 34 "RV32/64G instruction set
//! listings" for the scalar forms, and "V" Standard Extension for Vector Operations 1.0, sections 5-7, 10-12 and the
//! "Vector Instruction Listing" for the vector forms. `golden.txt` holds the bytes of an outside assembler.
//!
//! **Invariant:** an operand never spills into a neighbouring field; every immediate is checked against its range.

use crate::asm::Asm;

/// An integer register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X(u32);

/// A vector register, or the first of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V(u32);

impl V {
    /// Register `i`. Panics from 32 up.
    pub fn new(i: usize) -> V {
        assert!(i < 32, "v{i} does not exist");
        // Below 32.
        V(i as u32)
    }
}

/// A float register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F(u32);

pub const FT0: F = F(0);
pub const FT1: F = F(1);
pub const FT2: F = F(2);
pub const FT3: F = F(3);
pub const FT4: F = F(4);
pub const FT5: F = F(5);
pub const FT6: F = F(6);
pub const FT7: F = F(7);
pub const FA0: F = F(10);
pub const FA1: F = F(11);
pub const FA2: F = F(12);
pub const FA3: F = F(13);
pub const FA4: F = F(14);
pub const FA5: F = F(15);

pub const ZERO: X = X(0);
pub const RA: X = X(1);
pub const SP: X = X(2);
pub const T0: X = X(5);
pub const T1: X = X(6);
pub const T2: X = X(7);
pub const S0: X = X(8);
pub const S1: X = X(9);
pub const A0: X = X(10);
pub const A1: X = X(11);
pub const A2: X = X(12);
pub const A3: X = X(13);
pub const A4: X = X(14);
pub const A5: X = X(15);
pub const A6: X = X(16);
pub const A7: X = X(17);
pub const S2: X = X(18);
pub const S3: X = X(19);
pub const S4: X = X(20);
pub const S5: X = X(21);
pub const S6: X = X(22);
pub const S7: X = X(23);
pub const S8: X = X(24);
pub const S9: X = X(25);
pub const S10: X = X(26);
pub const S11: X = X(27);
pub const T3: X = X(28);
pub const T4: X = X(29);
pub const T5: X = X(30);
pub const T6: X = X(31);

/// Element width of the vector unit, `vtype` bits 5:3 (V 1.0, section 3.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sew {
    E8 = 0,
    E16 = 1,
    E32 = 2,
}

/// Registers per group, `vtype` bits 2:0 (V 1.0, section 3.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lmul {
    M1 = 0,
    M2 = 1,
    M4 = 2,
    M8 = 3,
}

impl Lmul {
    /// The group of `registers` registers. Panics where there is none.
    pub fn of(registers: usize) -> Lmul {
        match registers {
            1 => Lmul::M1,
            2 => Lmul::M2,
            4 => Lmul::M4,
            8 => Lmul::M8,
            other => panic!("no group of {other} registers"),
        }
    }

    /// Registers of a group.
    pub fn registers(self) -> usize {
        1 << self as usize
    }

    /// The `index`-th group.
    pub fn group(self, index: usize) -> V {
        V::new(index * self.registers())
    }
}

/// `imm` as `bits` bits of two's complement. Panics out of range.
fn signed(imm: i32, bits: u32) -> u32 {
    let half = 1 << (bits - 1);
    assert!((-half..half).contains(&imm), "{imm} does not fit in {bits} signed bits");
    // The bits of the two's complement are what is wanted.
    imm as u32 & ((1 << bits) - 1)
}

/// `imm` as `bits` unsigned bits. Panics out of range.
fn unsigned(imm: u32, bits: u32) -> u32 {
    assert!(imm < 1 << bits, "{imm} does not fit in {bits} bits");
    imm
}

/// R-type: funct7 | rs2 | rs1 | funct3 | rd | opcode.
fn r(funct7: u32, rs2: X, rs1: X, funct3: u32, rd: X, opcode: u32) -> u32 {
    funct7 << 25 | rs2.0 << 20 | rs1.0 << 15 | funct3 << 12 | rd.0 << 7 | opcode
}

/// I-type: imm\[11:0\] | rs1 | funct3 | rd | opcode.
fn i(imm: i32, rs1: X, funct3: u32, rd: X, opcode: u32) -> u32 {
    signed(imm, 12) << 20 | rs1.0 << 15 | funct3 << 12 | rd.0 << 7 | opcode
}

/// I-type shift of RV64: funct6 | shamt\[5:0\] | rs1 | funct3 | rd | opcode.
fn shift(funct6: u32, shamt: u32, rs1: X, funct3: u32, rd: X) -> u32 {
    funct6 << 26 | unsigned(shamt, 6) << 20 | rs1.0 << 15 | funct3 << 12 | rd.0 << 7 | 0x13
}

/// S-type: imm\[11:5\] | rs2 | rs1 | funct3 | imm\[4:0\] | opcode.
fn s(imm: i32, rs2: X, rs1: X, funct3: u32) -> u32 {
    let imm = signed(imm, 12);
    (imm >> 5) << 25 | rs2.0 << 20 | rs1.0 << 15 | funct3 << 12 | (imm & 31) << 7 | 0x23
}

/// B-type without its displacement, which [`patch_branch`] fills in.
fn b(rs2: X, rs1: X, funct3: u32) -> u32 {
    rs2.0 << 20 | rs1.0 << 15 | funct3 << 12 | 0x63
}

/// J-type without its displacement, which [`patch_jump`] fills in.
fn j(rd: X) -> u32 {
    rd.0 << 7 | 0x6f
}

/// OP-V: funct6 | vm | vs2 | vs1, rs1 or immediate | funct3 | vd | 1010111, not masked.
fn op_v(funct6: u32, vs2: V, one: u32, funct3: u32, vd: V) -> u32 {
    funct6 << 26 | 1 << 25 | vs2.0 << 20 | one << 15 | funct3 << 12 | vd.0 << 7 | 0x57
}

/// Vector unit-stride load or store: nf | mew 0 | mop 00 | vm 1 | lumop | rs1 | width | vd | opcode.
fn mem_v(nf: u32, lumop: u32, rs1: X, width: u32, vd: V, opcode: u32) -> u32 {
    nf << 29 | 1 << 25 | lumop << 20 | rs1.0 << 15 | width << 12 | vd.0 << 7 | opcode
}

/// funct3 of OP-V by operand kinds (V 1.0, section 10.1).
const OPIVV: u32 = 0;
const OPFVV: u32 = 1;
const OPMVV: u32 = 2;
const OPIVI: u32 = 3;
const OPIVX: u32 = 4;
const OPFVF: u32 = 5;
const OPMVX: u32 = 6;

/// `vtype` (V 1.0, section 3.4): vma | vta | vsew | vlmul; masked-off elements are agnostic.
fn vtype(vta: u32, sew: Sew, lmul: Lmul) -> u32 {
    1 << 7 | vta << 6 | (sew as u32) << 3 | lmul as u32
}

macro_rules! instructions {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) = $word:expr;)*) => {
        $($(#[$doc])* pub fn $name($($arg: $ty),*) -> u32 { $word })*

        /// Every instruction of this file: the golden table must show each.
        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

instructions! {
    // Base integer, 2.4-2.8 and RV64I 4.2-4.3.
    addi(rd: X, rs1: X, imm: i32) = i(imm, rs1, 0, rd, 0x13);
    andi(rd: X, rs1: X, imm: i32) = i(imm, rs1, 7, rd, 0x13);
    slli(rd: X, rs1: X, shamt: u32) = shift(0x00, shamt, rs1, 1, rd);
    srli(rd: X, rs1: X, shamt: u32) = shift(0x00, shamt, rs1, 5, rd);
    srai(rd: X, rs1: X, shamt: u32) = shift(0x10, shamt, rs1, 5, rd);
    add(rd: X, rs1: X, rs2: X) = r(0x00, rs2, rs1, 0, rd, 0x33);
    sub(rd: X, rs1: X, rs2: X) = r(0x20, rs2, rs1, 0, rd, 0x33);
    xor(rd: X, rs1: X, rs2: X) = r(0x00, rs2, rs1, 4, rd, 0x33);
    or(rd: X, rs1: X, rs2: X) = r(0x00, rs2, rs1, 6, rd, 0x33);
    and(rd: X, rs1: X, rs2: X) = r(0x00, rs2, rs1, 7, rd, 0x33);
    addw(rd: X, rs1: X, rs2: X) = r(0x00, rs2, rs1, 0, rd, 0x3b);
    /// U-type: imm\[31:12\] | rd | opcode.
    lui(rd: X, imm: u32) = unsigned(imm, 20) << 12 | rd.0 << 7 | 0x37;
    /// U-type with immediate 0, which a relocation fills in.
    auipc(rd: X) = rd.0 << 7 | 0x17;
    jalr(rd: X, rs1: X, imm: i32) = i(imm, rs1, 0, rd, 0x67);
    jal(rd: X) = j(rd);
    beq(rs1: X, rs2: X) = b(rs2, rs1, 0);
    bne(rs1: X, rs2: X) = b(rs2, rs1, 1);
    blt(rs1: X, rs2: X) = b(rs2, rs1, 4);
    bge(rs1: X, rs2: X) = b(rs2, rs1, 5);
    lb(rd: X, imm: i32, rs1: X) = i(imm, rs1, 0, rd, 0x03);
    lh(rd: X, imm: i32, rs1: X) = i(imm, rs1, 1, rd, 0x03);
    lw(rd: X, imm: i32, rs1: X) = i(imm, rs1, 2, rd, 0x03);
    ld(rd: X, imm: i32, rs1: X) = i(imm, rs1, 3, rd, 0x03);
    sw(rs2: X, imm: i32, rs1: X) = s(imm, rs2, rs1, 2);
    sd(rs2: X, imm: i32, rs1: X) = s(imm, rs2, rs1, 3);
    ecall() = 0x73;
    ebreak() = 1 << 20 | 0x73;
    // M, 13.1.
    mul(rd: X, rs1: X, rs2: X) = r(0x01, rs2, rs1, 0, rd, 0x33);
    // Zba and Zbb, 28.4.
    sh1add(rd: X, rs1: X, rs2: X) = r(0x10, rs2, rs1, 2, rd, 0x33);
    max(rd: X, rs1: X, rs2: X) = r(0x05, rs2, rs1, 6, rd, 0x33);
    /// Zicsr 6.1: `csrrs rd, vlenb, zero`; vlenb is CSR 0xC22 (V 1.0, section 3.3).
    csrr_vlenb(rd: X) = 0xc22 << 20 | 2 << 12 | rd.0 << 7 | 0x73;
    /// V 6.1: 0 | vma | vta | vsew | vlmul | rs1 | 111 | rd | 1010111, tail and mask agnostic.
    vsetvli(rd: X, avl: X, sew: Sew, lmul: Lmul) =
        vtype(1, sew, lmul) << 20 | avl.0 << 15 | 7 << 12 | rd.0 << 7 | 0x57;
    /// The same with elements behind the last left as they are.
    vsetvli_tu(rd: X, avl: X, sew: Sew, lmul: Lmul) =
        vtype(0, sew, lmul) << 20 | avl.0 << 15 | 7 << 12 | rd.0 << 7 | 0x57;
    /// V 6.1: 11 | vtype\[9:0\] | uimm | 111 | rd | 1010111, for a length of up to 31.
    vsetivli(rd: X, length: u32, sew: Sew, lmul: Lmul) =
        3 << 30 | vtype(1, sew, lmul) << 20 | unsigned(length, 5) << 15 | 7 << 12 | rd.0 << 7 | 0x57;
    // V 7.4, unit stride.
    vle8(vd: V, rs1: X) = mem_v(0, 0, rs1, 0, vd, 0x07);
    // V 7.8, segments: element i of four registers from four bytes.
    vlseg4e8(vd: V, rs1: X) = mem_v(3, 0, rs1, 0, vd, 0x07);
    vle16(vd: V, rs1: X) = mem_v(0, 0, rs1, 5, vd, 0x07);
    vle32(vd: V, rs1: X) = mem_v(0, 0, rs1, 6, vd, 0x07);
    vse32(vs3: V, rs1: X) = mem_v(0, 0, rs1, 6, vs3, 0x27);
    vse8(vs3: V, rs1: X) = mem_v(0, 0, rs1, 0, vs3, 0x27);
    vse16(vs3: V, rs1: X) = mem_v(0, 0, rs1, 5, vs3, 0x27);
    // V 7.9, whole registers.
    vl1re8(vd: V, rs1: X) = mem_v(0, 8, rs1, 0, vd, 0x07);
    vl2re8(vd: V, rs1: X) = mem_v(1, 8, rs1, 0, vd, 0x07);
    vl4re8(vd: V, rs1: X) = mem_v(3, 8, rs1, 0, vd, 0x07);
    vl8re8(vd: V, rs1: X) = mem_v(7, 8, rs1, 0, vd, 0x07);
    // V 11.2, 11.5, 11.6, 11.14 (widening add, bitwise, shift, widening multiply-add) and 11.16, 16.3 (moves).
    vwadd_wv(vd: V, vs2: V, vs1: V) = op_v(0x35, vs2, vs1.0, OPMVV, vd);
    vand_vi(vd: V, vs2: V, imm: i32) = op_v(0x09, vs2, signed(imm, 5), OPIVI, vd);
    vsrl_vi(vd: V, vs2: V, shamt: u32) = op_v(0x28, vs2, unsigned(shamt, 5), OPIVI, vd);
    vwmacc_vx(vd: V, rs1: X, vs2: V) = op_v(0x3d, vs2, rs1.0, OPMVX, vd);
    vmv_v_i(vd: V, imm: i32) = op_v(0x17, V(0), signed(imm, 5), OPIVI, vd);
    vslidedown_vx(vd: V, vs2: V, rs1: X) = op_v(0x0f, vs2, rs1.0, OPIVX, vd);
    vslidedown_vi(vd: V, vs2: V, by: u32) = op_v(0x0f, vs2, unsigned(by, 5), OPIVI, vd);
    vmv_v_v(vd: V, vs1: V) = op_v(0x17, V(0), vs1.0, OPIVV, vd);
    // V 11.1, 11.3, 11.5, 11.6, 11.9 and 11.15 (merge, masked by v0), 14.1 (reductions), 16.1.
    vadd_vv(vd: V, vs2: V, vs1: V) = op_v(0x00, vs2, vs1.0, OPIVV, vd);
    vadd_vx(vd: V, vs2: V, rs1: X) = op_v(0x00, vs2, rs1.0, OPIVX, vd);
    vzext_vf2(vd: V, vs2: V) = op_v(0x12, vs2, 6, OPMVV, vd);
    vsext_vf2(vd: V, vs2: V) = op_v(0x12, vs2, 7, OPMVV, vd);
    vand_vx(vd: V, vs2: V, rs1: X) = op_v(0x09, vs2, rs1.0, OPIVX, vd);
    vsll_vi(vd: V, vs2: V, shamt: u32) = op_v(0x25, vs2, unsigned(shamt, 5), OPIVI, vd);
    vsra_vi(vd: V, vs2: V, shamt: u32) = op_v(0x29, vs2, unsigned(shamt, 5), OPIVI, vd);
    vnsrl_wi(vd: V, vs2: V, shamt: u32) = op_v(0x2c, vs2, unsigned(shamt, 5), OPIVI, vd);
    vwmul_vx(vd: V, vs2: V, rs1: X) = op_v(0x3b, vs2, rs1.0, OPMVX, vd);
    vmacc_vx(vd: V, rs1: X, vs2: V) = op_v(0x2d, vs2, rs1.0, OPMVX, vd);
    vwmacc_vv(vd: V, vs1: V, vs2: V) = op_v(0x3d, vs2, vs1.0, OPMVV, vd);
    vmv_v_x(vd: V, rs1: X) = op_v(0x17, V(0), rs1.0, OPIVX, vd);
    vmerge_vim(vd: V, vs2: V, imm: i32) = op_v(0x17, vs2, signed(imm, 5), OPIVI, vd) & !(1 << 25);
    vmax_vv(vd: V, vs2: V, vs1: V) = op_v(0x07, vs2, vs1.0, OPIVV, vd);
    vredmax_vs(vd: V, vs2: V, vs1: V) = op_v(0x07, vs2, vs1.0, OPMVV, vd);
    vredsum_vs(vd: V, vs2: V, vs1: V) = op_v(0x00, vs2, vs1.0, OPMVV, vd);
    vmv_x_s(rd: X, vs2: V) = op_v(0x10, vs2, 0, OPMVV, V(rd.0));
    // V 13.2, 13.4, 13.6, 13.11, 13.13, 13.16, 13.17 (arithmetic, comparison, moves, conversion), 14.3, 16.2.
    vfadd_vv(vd: V, vs2: V, vs1: V) = op_v(0x00, vs2, vs1.0, OPFVV, vd);
    vfadd_vf(vd: V, vs2: V, rs1: F) = op_v(0x00, vs2, rs1.0, OPFVF, vd);
    vfsub_vf(vd: V, vs2: V, rs1: F) = op_v(0x02, vs2, rs1.0, OPFVF, vd);
    vfmul_vv(vd: V, vs2: V, vs1: V) = op_v(0x24, vs2, vs1.0, OPFVV, vd);
    vfmul_vf(vd: V, vs2: V, rs1: F) = op_v(0x24, vs2, rs1.0, OPFVF, vd);
    vfdiv_vv(vd: V, vs2: V, vs1: V) = op_v(0x20, vs2, vs1.0, OPFVV, vd);
    vfmax_vf(vd: V, vs2: V, rs1: F) = op_v(0x06, vs2, rs1.0, OPFVF, vd);
    vfmacc_vv(vd: V, vs1: V, vs2: V) = op_v(0x2c, vs2, vs1.0, OPFVV, vd);
    vfmacc_vf(vd: V, rs1: F, vs2: V) = op_v(0x2c, vs2, rs1.0, OPFVF, vd);
    vfnmsac_vf(vd: V, rs1: F, vs2: V) = op_v(0x2f, vs2, rs1.0, OPFVF, vd);
    vmflt_vf(vd: V, vs2: V, rs1: F) = op_v(0x1b, vs2, rs1.0, OPFVF, vd);
    vfmv_v_f(vd: V, rs1: F) = op_v(0x17, V(0), rs1.0, OPFVF, vd);
    vfmv_s_f(vd: V, rs1: F) = op_v(0x10, V(0), rs1.0, OPFVF, vd);
    vfmv_f_s(rd: F, vs2: V) = op_v(0x10, vs2, 0, OPFVV, V(rd.0));
    /// Rounded as the control register says: to nearest, ties to even.
    vfcvt_x_f_v(vd: V, vs2: V) = op_v(0x12, vs2, 1, OPFVV, vd);
    vfcvt_f_x_v(vd: V, vs2: V) = op_v(0x12, vs2, 3, OPFVV, vd);
    vfredmax_vs(vd: V, vs2: V, vs1: V) = op_v(0x07, vs2, vs1.0, OPFVV, vd);
    // F, 20.5 and 20.7.
    flw(rd: F, imm: i32, rs1: X) = i(imm, rs1, 2, X(rd.0), 0x07);
    fsw(rs2: F, imm: i32, rs1: X) = s(imm, X(rs2.0), rs1, 2) & !0x7f | 0x27;
    /// Rounded as the control register says: to nearest, ties to even.
    fmul_s(rd: F, rs1: F, rs2: F) = r(0x08, X(rs2.0), X(rs1.0), 7, X(rd.0), 0x53);
    /// Rounded likewise.
    fdiv_s(rd: F, rs1: F, rs2: F) = r(0x0c, X(rs2.0), X(rs1.0), 7, X(rd.0), 0x53);
    fmv_w_x(rd: F, rs1: X) = r(0x78, ZERO, rs1, 0, X(rd.0), 0x53);
}

/// Bytes of the instruction that begins with the byte `first`: the low bits tell words from compressed forms (1.5).
pub fn length(first: u8) -> usize {
    if first & 3 == 3 { 4 } else { 2 }
}

/// Copies a register: `addi rd, rs, 0`.
pub fn mv(rd: X, rs: X) -> u32 {
    addi(rd, rs, 0)
}

/// Loads a small constant: `addi rd, zero, imm`.
pub fn li(rd: X, imm: i32) -> u32 {
    addi(rd, ZERO, imm)
}

/// Returns: `jalr zero, 0(ra)`.
pub fn ret() -> u32 {
    jalr(ZERO, RA, 0)
}

/// Appends instructions.
pub fn put(asm: &mut Asm, words: &[u32]) {
    words.iter().for_each(|word| asm.word(*word));
}

/// Fills in a B-type displacement: imm\[12|10:5\] in bits 31:25, imm\[4:1|11\] in bits 11:7. Panics beyond 4 KiB.
pub fn patch_branch(word: u32, displacement: i64) -> u32 {
    let narrow = i32::try_from(displacement).expect("kernels are far below 2 GiB");
    let d = signed(narrow, 13);
    word | (d >> 12 & 1) << 31 | (d >> 5 & 63) << 25 | (d >> 1 & 15) << 8 | (d >> 11 & 1) << 7
}

/// Fills in a J-type displacement: imm\[20|10:1|11|19:12\] in bits 31:12. Panics beyond 1 MiB.
pub fn patch_jump(word: u32, displacement: i64) -> u32 {
    let narrow = i32::try_from(displacement).expect("kernels are far below 2 GiB");
    let d = signed(narrow, 21);
    word | (d >> 20 & 1) << 31 | (d >> 1 & 0x3ff) << 21 | (d >> 11 & 1) << 20 | (d >> 12 & 0xff) << 12
}

/// Completes the `addi` that follows an `auipc` of immediate 0 to the address of a label nearby. Panics beyond 2 KiB.
pub fn patch_address(word: u32, displacement: i64) -> u32 {
    let from_auipc = i32::try_from(displacement + 4).expect("functions are far below 2 GiB");
    word | signed(from_auipc, 12) << 20
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Text and bytes of llvm-mc.
    const GOLDEN: &str = include_str!("golden.txt");

    fn golden() -> BTreeMap<&'static str, u32> {
        let lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.map(|line| line.split_once(" | ").expect("text | bytes"));
        pairs.map(|(text, word)| (text.trim(), u32::from_str_radix(word, 16).expect("a hexadecimal word"))).collect()
    }

    /// The same instructions by this encoder, in the order of the table.
    fn encoded() -> Vec<(&'static str, u32)> {
        let v = V::new;
        vec![
            ("addi a0, t6, -2048", addi(A0, T6, -2048)),
            ("addi s11, zero, 2047", addi(S11, ZERO, 2047)),
            ("andi sp, sp, -16", andi(SP, SP, -16)),
            ("slli t3, s2, 63", slli(T3, S2, 63)),
            ("srli ra, a7, 8", srli(RA, A7, 8)),
            ("srai t0, t1, 48", srai(T0, T1, 48)),
            ("add a1, a2, a3", add(A1, A2, A3)),
            ("sub s0, t2, a4", sub(S0, T2, A4)),
            ("xor s3, s4, s5", xor(S3, S4, S5)),
            ("or s6, s7, s8", or(S6, S7, S8)),
            ("and s9, s10, s11", and(S9, S10, S11)),
            ("addw t4, t5, a6", addw(T4, T5, A6)),
            ("lui a5, 1048575", lui(A5, 0xfffff)),
            ("auipc ra, 0", auipc(RA)),
            ("jalr ra, -4(t0)", jalr(RA, T0, -4)),
            ("beq a0, s11, -4096", patch_branch(beq(A0, S11), -4096)),
            ("bne t6, zero, 4094", patch_branch(bne(T6, ZERO), 4094)),
            ("blt s5, a1, -2", patch_branch(blt(S5, A1), -2)),
            ("bge a1, s5, 2730", patch_branch(bge(A1, S5), 2730)),
            ("lb t0, -1(a5)", lb(T0, -1, A5)),
            ("lw t0, 2044(a5)", lw(T0, 2044, A5)),
            ("ld s11, 1364(t6)", ld(S11, 1364, T6)),
            ("sw t0, -2048(a5)", sw(T0, -2048, A5)),
            ("sd s11, 1365(sp)", sd(S11, 1365, SP)),
            ("ecall", ecall()),
            ("ebreak", ebreak()),
            ("mul t1, s1, a0", mul(T1, S1, A0)),
            ("sh1add a0, a1, t6", sh1add(A0, A1, T6)),
            ("max s2, t0, a7", max(S2, T0, A7)),
            ("csrr a0, vlenb", csrr_vlenb(A0)),
            ("vsetvli t0, a3, e8, m4, ta, ma", vsetvli(T0, A3, Sew::E8, Lmul::M4)),
            ("vsetvli zero, s4, e16, m8, ta, ma", vsetvli(ZERO, S4, Sew::E16, Lmul::M8)),
            ("vsetvli t6, zero, e8, m1, ta, ma", vsetvli(T6, ZERO, Sew::E8, Lmul::M1)),
            ("vsetvli a0, t6, e16, m2, ta, ma", vsetvli(A0, T6, Sew::E16, Lmul::M2)),
            ("vle8.v v31, (t0)", vle8(v(31), T0)),
            ("vle32.v v16, (s1)", vle32(v(16), S1)),
            ("vse32.v v24, (a1)", vse32(v(24), A1)),
            ("vl1re8.v v9, (t3)", vl1re8(v(9), T3)),
            ("vl2re8.v v10, (t1)", vl2re8(v(10), T1)),
            ("vl4re8.v v12, (a3)", vl4re8(v(12), A3)),
            ("vl8re8.v v24, (s2)", vl8re8(v(24), S2)),
            ("vwadd.wv v16, v24, v5", vwadd_wv(v(16), v(24), v(5))),
            ("vand.vi v12, v8, 3", vand_vi(v(12), v(8), 3)),
            ("vand.vi v1, v2, -16", vand_vi(v(1), v(2), -16)),
            ("vsrl.vi v30, v21, 6", vsrl_vi(v(30), v(21), 6)),
            ("vsrl.vi v1, v2, 31", vsrl_vi(v(1), v(2), 31)),
            ("vwmacc.vx v8, s4, v28", vwmacc_vx(v(8), S4, v(28))),
            ("vmv.v.i v16, 0", vmv_v_i(v(16), 0)),
            ("vmv.v.i v7, -16", vmv_v_i(v(7), -16)),
            ("vslidedown.vx v0, v8, a5", vslidedown_vx(v(0), v(8), A5)),
        ]
    }

    /// Those that only the loops over floats and of screened heads use.
    fn encoded_loops() -> Vec<(&'static str, u32)> {
        let v = V::new;
        vec![
            ("jal t0, -2048", patch_jump(jal(T0), -2048)),
            ("jal ra, 1048574", patch_jump(jal(RA), 1048574)),
            ("vsetvli zero, t0, e32, m2, tu, ma", vsetvli_tu(ZERO, T0, Sew::E32, Lmul::M2)),
            ("vsetivli zero, 16, e32, m4, ta, ma", vsetivli(ZERO, 16, Sew::E32, Lmul::M4)),
            ("vsetivli a0, 31, e8, m1, ta, ma", vsetivli(A0, 31, Sew::E8, Lmul::M1)),
            ("vle16.v v12, (a7)", vle16(v(12), A7)),
            ("vslidedown.vi v4, v8, 8", vslidedown_vi(v(4), v(8), 8)),
            ("vmv.v.v v16, v24", vmv_v_v(v(16), v(24))),
            ("vadd.vv v1, v2, v3", vadd_vv(v(1), v(2), v(3))),
            ("vzext.vf2 v8, v4", vzext_vf2(v(8), v(4))),
            ("vsext.vf2 v16, v28", vsext_vf2(v(16), v(28))),
            ("vand.vx v8, v12, t1", vand_vx(v(8), v(12), T1)),
            ("vsll.vi v31, v1, 23", vsll_vi(v(31), v(1), 23)),
            ("vmerge.vim v4, v8, -1, v0", vmerge_vim(v(4), v(8), -1)),
            ("vfadd.vv v4, v8, v12", vfadd_vv(v(4), v(8), v(12))),
            ("vfadd.vf v5, v9, fa4", vfadd_vf(v(5), v(9), FA4)),
            ("vfsub.vf v6, v10, ft7", vfsub_vf(v(6), v(10), FT7)),
            ("vfmul.vv v7, v11, v13", vfmul_vv(v(7), v(11), v(13))),
            ("vfmul.vf v8, v12, fa0", vfmul_vf(v(8), v(12), FA0)),
            ("vfmacc.vv v9, v13, v15", vfmacc_vv(v(9), v(13), v(15))),
            ("vfmacc.vf v10, ft0, v14", vfmacc_vf(v(10), FT0, v(14))),
            ("vfnmsac.vf v11, fa5, v15", vfnmsac_vf(v(11), FA5, v(15))),
            ("vmflt.vf v0, v4, fa1", vmflt_vf(v(0), v(4), FA1)),
            ("vfmv.v.f v12, ft3", vfmv_v_f(v(12), FT3)),
            ("vfmv.s.f v13, ft4", vfmv_s_f(v(13), FT4)),
            ("vfmv.f.s fa3, v17", vfmv_f_s(FA3, v(17))),
            ("vfcvt.f.x.v v16, v20", vfcvt_f_x_v(v(16), v(20))),
            ("vfredmax.vs v1, v4, v2", vfredmax_vs(v(1), v(4), v(2))),
            ("flw ft1, -4(s3)", flw(FT1, -4, S3)),
            ("fsw ft2, 2047(a4)", fsw(FT2, 2047, A4)),
            ("fmv.w.x fa2, t6", fmv_w_x(FA2, T6)),
            ("vwmacc.vv v8, v20, v28", vwmacc_vv(v(8), v(20), v(28))),
            ("vlseg4e8.v v28, (t6)", vlseg4e8(v(28), T6)),
            ("vwmul.vx v16, v9, t4", vwmul_vx(v(16), v(9), T4)),
            ("vmv.v.x v16, t4", vmv_v_x(v(16), T4)),
            ("vnsrl.wi v4, v8, 16", vnsrl_wi(v(4), v(8), 16)),
            ("vsra.vi v2, v6, 31", vsra_vi(v(2), v(6), 31)),
            ("vadd.vx v3, v5, a6", vadd_vx(v(3), v(5), A6)),
            ("fmul.s fa5, ft7, fa1", fmul_s(FA5, FT7, FA1)),
            ("lh s10, -2046(t2)", lh(S10, -2046, T2)),
            ("vse16.v v24, (t4)", vse16(v(24), T4)),
            ("vmacc.vx v4, t5, v20", vmacc_vx(v(4), T5, v(20))),
            ("fdiv.s ft1, ft0, fa0", fdiv_s(FT1, FT0, FA0)),
            ("vse8.v v6, (t5)", vse8(v(6), T5)),
            ("vmax.vv v8, v16, v24", vmax_vv(v(8), v(16), v(24))),
            ("vredmax.vs v3, v8, v5", vredmax_vs(v(3), v(8), v(5))),
            ("vredsum.vs v9, v16, v1", vredsum_vs(v(9), v(16), v(1))),
            ("vmv.x.s a3, v21", vmv_x_s(A3, v(21))),
            ("vfmax.vf v14, v22, ft5", vfmax_vf(v(14), v(22), FT5)),
            ("vfdiv.vv v12, v8, v28", vfdiv_vv(v(12), v(8), v(28))),
            ("vfcvt.x.f.v v18, v26", vfcvt_x_f_v(v(18), v(26))),
        ]
    }

    #[test]
    fn words_equal_those_of_llvm_mc() {
        let golden = golden();
        let encoded: Vec<_> = encoded().into_iter().chain(encoded_loops()).collect();
        assert_eq!(encoded.len(), golden.len(), "each line of the table is encoded once");
        for (text, word) in encoded {
            assert_eq!(golden.get(text), Some(&word), "{text}: encoded as {word:08x}");
        }
    }

    #[test]
    fn every_instruction_is_in_the_table() {
        let golden = golden();
        for name in NAMES {
            let shown = golden.keys().any(|text| {
                let mnemonic = text.split(' ').next().expect("a line has a mnemonic").replace('.', "_");
                let suffixes = [("vlenb", "_vlenb"), (", tu,", "_tu")];
                let operands = suffixes.iter().find(|(part, _)| text.contains(part)).map_or("", |(_, suffix)| suffix);
                let loads = mnemonic.strip_suffix("_v").unwrap_or(&mnemonic);
                format!("{mnemonic}{operands}") == *name || loads == *name
            });
            assert!(shown, "{name} has no golden line");
        }
    }
}
