//! The A64 instructions that kernels and start-up code use: one line each, with its bit layout.
//!
//! Layouts are those of the Arm Architecture Reference Manual (DDI 0487), under the name given at the end of each
//! line: chapter C6.2 for the base instructions, C7.2 for Advanced SIMD (NEON), C8.2 for SVE. [`form`](super::form)
//! explains the notation. `golden.txt` holds the bytes an outside assembler gives for them.

#[cfg(test)]
use tcc_ir::target::Features;

#[cfg(test)]
use super::desc::{DOTPROD, I8MM, NEON, SME, SVE};
use super::form::Form;
use crate::asm::{Asm, Label};

/// A general register, 0..=30.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct X(pub u8);

/// A vector register: `v`, its low half `d`, all of it `q`, or the SVE register `z` it is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct V(pub u8);

/// An SVE predicate register, 0..=7: those an instruction can be governed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct P(pub u8);

/// What an instruction field can be given.
trait Field {
    fn value(self) -> i64;
}

impl Field for X {
    fn value(self) -> i64 {
        self.0.into()
    }
}

impl Field for V {
    fn value(self) -> i64 {
        self.0.into()
    }
}

impl Field for P {
    fn value(self) -> i64 {
        self.0.into()
    }
}

impl Field for i64 {
    fn value(self) -> i64 {
        self
    }
}

/// Code under construction.
#[derive(Default)]
pub(super) struct A64 {
    pub asm: Asm,
}

/// Every aarch64 core.
#[cfg(test)]
const BASE: Features = Features::NONE;

#[cfg(test)]
const SVE_I8MM: Features = SVE.with(I8MM);

/// Displacement in bytes to a 19-bit word displacement at bit 5.
fn branch19(word: u32, displacement: i64) -> u32 {
    assert!((-(1 << 20)..1 << 20).contains(&displacement), "branches within one kernel are short");
    // Bounded just above.
    word | ((displacement >> 2) as u32 & 0x7ffff) << 5
}

/// Turns the tables below into one method of [`A64`] per line and the list of all forms.
macro_rules! forms {
    (
        plain { $( $name:ident($($field:ident: $ty:ty),*) $needs:ident $text:literal $layout:literal; )* }
        branches { $( $branch:ident($($bfield:ident: $bty:ty),*) $btext:literal $blayout:literal; )* }
    ) => {
        impl A64 {
            $(
                #[doc = concat!("`", $text, "`")]
                pub fn $name(&mut self, $($field: $ty),*) {
                    let form = Form { text: $text, layout: $layout };
                    self.asm.word(form.encode(&[$((stringify!($field), $field.value())),*]));
                }
            )*
            $(
                #[doc = concat!("`", $btext, "`")]
                pub fn $branch(&mut self, $($bfield: $bty,)* to: Label) {
                    let form = Form { text: $btext, layout: $blayout };
                    self.asm.branch(form.encode(&[$((stringify!($bfield), $bfield.value())),*]), to, branch19);
                }
            )*
        }

        /// Every form there is, with the CPU features it belongs to.
        #[cfg(test)]
        pub(super) const FORMS: &[(Form, Features)] = &[
            $((Form { text: $text, layout: $layout }, $needs),)*
            $((Form { text: $btext, layout: $blayout }, BASE),)*
        ];
    };
}

#[rustfmt::skip]
forms! {
    plain {
        // Integer arithmetic: C6.2.
        mov(d: X, m: X) BASE "mov x{d}, x{m}" "10101010000 mmmmm 000000 11111 ddddd";                   // MOV (register)
        mov_from_sp(d: X) BASE "mov x{d}, sp" "1001000100 000000000000 11111 ddddd";                    // MOV (to/from SP)
        mov_imm(d: X, i: i64) BASE "mov x{d}, #{i}" "110100101 00 iiiiiiiiiiiiiiii ddddd";              // MOVZ
        add_imm(d: X, n: X, i: i64) BASE "add x{d}, x{n}, #{i}" "1001000100 iiiiiiiiiiii nnnnn ddddd";  // ADD (immediate)
        subs_imm(d: X, n: X, i: i64) BASE "subs x{d}, x{n}, #{i}" "1111000100 iiiiiiiiiiii nnnnn ddddd"; // SUBS (immediate)
        sub_imm(d: X, n: X, i: i64) BASE "sub x{d}, x{n}, #{i}" "1101000100 iiiiiiiiiiii nnnnn ddddd";  // SUB (immediate)
        cmp(n: X, m: X) BASE "cmp x{n}, x{m}" "11101011000 mmmmm 000000 nnnnn 11111";                   // CMP (shifted register)
        cmp_imm(n: X, i: i64) BASE "cmp x{n}, #{i}" "1111000100 iiiiiiiiiiii nnnnn 11111";              // CMP (immediate)
        add(d: X, n: X, m: X) BASE "add x{d}, x{n}, x{m}" "10001011000 mmmmm 000000 nnnnn ddddd";       // ADD (shifted register)
        add_lsl(d: X, n: X, m: X, i: i64) BASE "add x{d}, x{n}, x{m}, lsl #{i}" "10001011000 mmmmm iiiiii nnnnn ddddd"; // the same
        sub(d: X, n: X, m: X) BASE "sub x{d}, x{n}, x{m}" "11001011000 mmmmm 000000 nnnnn ddddd";       // SUB (shifted register)
        orr_lsl(d: X, n: X, m: X, i: i64) BASE "orr x{d}, x{n}, x{m}, lsl #{i}" "10101010000 mmmmm iiiiii nnnnn ddddd"; // ORR (shifted register)
        lsr(d: X, n: X, i: i64) BASE "lsr x{d}, x{n}, #{i}" "1101001101 iiiiii 111111 nnnnn ddddd";     // LSR (immediate)
        add_sp(i: i64) BASE "add sp, sp, #{i}" "1001000100 iiiiiiiiiiii 11111 11111";                   // ADD (immediate)
        sub_sp(i: i64) BASE "sub sp, sp, #{i}" "1101000100 iiiiiiiiiiii 11111 11111";                   // SUB (immediate)
        movk_16(d: X, i: i64) BASE "movk x{d}, #{i}, lsl #16" "111100101 01 iiiiiiiiiiiiiiii ddddd";    // MOVK
        and_1(d: X, n: X) BASE "and x{d}, x{n}, #0x1" "1001001001 000000 000000 nnnnn ddddd";           // AND (immediate)
        and_3(d: X, n: X) BASE "and x{d}, x{n}, #0x3" "1001001001 000000 000001 nnnnn ddddd";           // the same
        and_15(d: X, n: X) BASE "and x{d}, x{n}, #0xf" "1001001001 000000 000011 nnnnn ddddd";          // the same
        madd(d: X, n: X, m: X, a: X) BASE "madd x{d}, x{n}, x{m}, x{a}" "10011011000 mmmmm 0 aaaaa nnnnn ddddd"; // MADD
        csel_lo(d: X, n: X, m: X) BASE "csel x{d}, x{n}, x{m}, lo" "10011010100 mmmmm 0011 00 nnnnn ddddd"; // CSEL
        cset_hs(d: X) BASE "cset x{d}, hs" "10011010100 11111 0011 01 11111 ddddd";                     // CSET
        cset_ne(d: X) BASE "cset x{d}, ne" "10011010100 11111 0000 01 11111 ddddd";                     // the same

        // Memory, general registers: C6.2.
        ldp(d: X, e: X, n: X, i: i64) BASE "ldp x{d}, x{e}, [x{n}, #{i:s8}]" "1010100101 iiiiiii eeeee nnnnn ddddd"; // LDP, signed offset
        ldr_x(d: X, n: X) BASE "ldr x{d}, [x{n}]" "1111100101 000000000000 nnnnn ddddd";               // LDR (immediate), unsigned offset
        ldrh_8(d: X, n: X) BASE "ldrh w{d}, [x{n}, #8]" "0111100101 000000000100 nnnnn ddddd";         // LDRH (immediate), unsigned offset
        stp_x_pre(d: X, e: X, i: i64) BASE "stp x{d}, x{e}, [sp, #{i:s8}]!" "1010100110 iiiiiii eeeee 11111 ddddd"; // STP, pre-index
        ldp_x_post(d: X, e: X, i: i64) BASE "ldp x{d}, x{e}, [sp], #{i:s8}" "1010100011 iiiiiii eeeee 11111 ddddd"; // LDP, post-index
        ldr_w_post(d: X, n: X, i: i64) BASE "ldr w{d}, [x{n}], #{i:s1}" "10111000010 iiiiiiiii 01 nnnnn ddddd"; // LDR (immediate), post-index

        // System and control: C6.2.
        ret() BASE "ret" "1101011001011111000000 11110 00000";                                          // RET
        bti_c() BASE "hint #34" "11010101000000110010 0100 010 11111";                                  // BTI c
        bl_0() BASE "bl #0" "100101 00000000000000000000000000";                                        // BL
        svc_0() BASE "svc #0" "11010100000 0000000000000000 00001";                                     // SVC
        brk_0() BASE "brk #0" "11010100001 0000000000000000 00000";                                     // BRK
        mrs_id(d: X, m: i64, p: i64) BASE "mrs x{d}, S3_0_C0_C{m}_{p}" "110101010011 1 000 0000 mmmm ppp ddddd"; // MRS

        // Memory, vectors: C7.2.
        ldr_q(d: V, n: X, i: i64) NEON "ldr q{d}, [x{n}, #{i:u16}]" "0011110111 iiiiiiiiiiii nnnnn ddddd"; // LDR (immediate, SIMD&FP)
        ldr_q_post(d: V, n: X, i: i64) NEON "ldr q{d}, [x{n}], #{i:s1}" "00111100110 iiiiiiiii 01 nnnnn ddddd"; // the same
        ldr_q_at(d: V, n: X, m: X) NEON "ldr q{d}, [x{n}, x{m}]" "00111100111 mmmmm 011 0 10 nnnnn ddddd";   // LDR (register, SIMD&FP)
        ldp_q(d: V, e: V, n: X, i: i64) NEON "ldp q{d}, q{e}, [x{n}, #{i:s16}]" "1010110101 iiiiiii eeeee nnnnn ddddd"; // LDP (SIMD&FP)
        stp_q(d: V, e: V, n: X, i: i64) NEON "stp q{d}, q{e}, [x{n}, #{i:s16}]" "1010110100 iiiiiii eeeee nnnnn ddddd"; // STP (SIMD&FP)
        stp_q_post(d: V, e: V, n: X, i: i64) NEON "stp q{d}, q{e}, [x{n}], #{i:s16}" "1010110010 iiiiiii eeeee nnnnn ddddd"; // the same
        ldr_s(d: V, n: X, i: i64) NEON "ldr s{d}, [x{n}, #{i:u4}]" "1011110101 iiiiiiiiiiii nnnnn ddddd"; // LDR (immediate, SIMD&FP)
        ldr_s_post(d: V, n: X, i: i64) NEON "ldr s{d}, [x{n}], #{i:s1}" "10111100010 iiiiiiiii 01 nnnnn ddddd"; // the same
        ldr_h_post(d: V, n: X, i: i64) NEON "ldr h{d}, [x{n}], #{i:s1}" "01111100010 iiiiiiiii 01 nnnnn ddddd"; // the same
        str_s(d: V, n: X, i: i64) NEON "str s{d}, [x{n}, #{i:u4}]" "1011110100 iiiiiiiiiiii nnnnn ddddd"; // STR (immediate, SIMD&FP)
        str_s_post(d: V, n: X, i: i64) NEON "str s{d}, [x{n}], #{i:s1}" "10111100000 iiiiiiiii 01 nnnnn ddddd"; // the same
        str_h_post(d: V, n: X, i: i64) NEON "str h{d}, [x{n}], #{i:s1}" "01111100000 iiiiiiiii 01 nnnnn ddddd"; // the same
        str_b_post(d: V, n: X, i: i64) NEON "str b{d}, [x{n}], #{i:s1}" "00111100000 iiiiiiiii 01 nnnnn ddddd"; // the same
        str_q_post(d: V, n: X, i: i64) NEON "str q{d}, [x{n}], #{i:s1}" "00111100100 iiiiiiiii 01 nnnnn ddddd"; // the same
        str_q(d: V, n: X, i: i64) NEON "str q{d}, [x{n}, #{i:u16}]" "0011110110 iiiiiiiiiiii nnnnn ddddd"; // STR (immediate, SIMD&FP)
        ldp_q_post(d: V, e: V, n: X, i: i64) NEON "ldp q{d}, q{e}, [x{n}], #{i:s16}" "1010110011 iiiiiii eeeee nnnnn ddddd"; // LDP (SIMD&FP)
        stp_d(d: V, e: V, i: i64) NEON "stp d{d}, d{e}, [sp, #{i:s8}]" "0110110100 iiiiiii eeeee 11111 ddddd"; // STP (SIMD&FP)
        stp_d_pre(d: V, e: V, i: i64) NEON "stp d{d}, d{e}, [sp, #{i:s8}]!" "0110110110 iiiiiii eeeee 11111 ddddd"; // the same
        ldp_d(d: V, e: V, i: i64) NEON "ldp d{d}, d{e}, [sp, #{i:s8}]" "0110110101 iiiiiii eeeee 11111 ddddd"; // LDP (SIMD&FP)
        ldp_d_post(d: V, e: V, i: i64) NEON "ldp d{d}, d{e}, [sp], #{i:s8}" "0110110011 iiiiiii eeeee 11111 ddddd"; // the same
        ld1r_s(d: V, n: X) NEON "ld1r { v{d}.4s }, [x{n}], #4" "0100110111011111110010 nnnnn ddddd";    // LD1R, post-index
        ld4_b(n: X) NEON "ld4 { v4.16b, v5.16b, v6.16b, v7.16b }, [x{n}], #64" "0100110011011111000000 nnnnn 00100"; // LD4 (multiple structures), post-index

        // Vectors: C7.2.
        movi(d: V, i: i64) NEON "movi v{d}.16b, #{i}" "0100111100000 iii 111001 iiiii ddddd";           // MOVI
        and_v(d: V, n: V, m: V) NEON "and v{d}.16b, v{n}.16b, v{m}.16b" "01001110001 mmmmm 000111 nnnnn ddddd"; // AND (vector)
        ushr_b(d: V, n: V, i: i64) NEON "ushr v{d}.16b, v{n}.16b, #{i:r8}" "0110111100001 iii 000001 nnnnn ddddd"; // USHR
        ssra_h(d: V, n: V, i: i64) NEON "ssra v{d}.8h, v{n}.8h, #{i:r16}" "010011110001 iiii 000101 nnnnn ddddd"; // SSRA
        ssra_s(d: V, n: V, i: i64) NEON "ssra v{d}.4s, v{n}.4s, #{i:r32}" "01001111001 iiiii 000101 nnnnn ddddd"; // the same
        smlal(d: V, n: V, m: V) NEON "smlal v{d}.8h, v{n}.8b, v{m}.8b" "00001110001 mmmmm 100000 nnnnn ddddd"; // SMLAL, SMLAL2 (vector)
        smlal2(d: V, n: V, m: V) NEON "smlal2 v{d}.8h, v{n}.16b, v{m}.16b" "01001110001 mmmmm 100000 nnnnn ddddd"; // the same
        smull(d: V, n: V, m: V) NEON "smull v{d}.8h, v{n}.8b, v{m}.8b" "00001110001 mmmmm 110000 nnnnn ddddd"; // SMULL, SMULL2 (vector)
        smull2(d: V, n: V, m: V) NEON "smull2 v{d}.8h, v{n}.16b, v{m}.16b" "01001110001 mmmmm 110000 nnnnn ddddd"; // the same
        smlal_h(d: V, n: V, m: V) NEON "smlal v{d}.4s, v{n}.4h, v{m}.4h" "00001110011 mmmmm 100000 nnnnn ddddd"; // SMLAL, SMLAL2 (vector)
        smlal2_h(d: V, n: V, m: V) NEON "smlal2 v{d}.4s, v{n}.8h, v{m}.8h" "01001110011 mmmmm 100000 nnnnn ddddd"; // the same
        smlal_lane(d: V, n: V, m: V, i: i64) NEON "smlal v{d}.4s, v{n}.4h, v{m}.h[{i}]" "0000111101 II mmmm 0010 i 0 nnnnn ddddd"; // SMLAL, SMLAL2 (by element)
        smlal2_lane(d: V, n: V, m: V, i: i64) NEON "smlal2 v{d}.4s, v{n}.8h, v{m}.h[{i}]" "0100111101 II mmmm 0010 i 0 nnnnn ddddd"; // the same
        addp_h(d: V, n: V, m: V) NEON "addp v{d}.8h, v{n}.8h, v{m}.8h" "01001110011 mmmmm 101111 nnnnn ddddd"; // ADDP (vector)
        sadalp_h(d: V, n: V) NEON "sadalp v{d}.4s, v{n}.8h" "0100111001 10000 00110 10 nnnnn ddddd";    // SADALP
        saddlp_h(d: V, n: V) NEON "saddlp v{d}.4s, v{n}.8h" "0100111001 10000 00010 10 nnnnn ddddd";    // SADDLP
        addp_s(d: V, n: V, m: V) NEON "addp v{d}.4s, v{n}.4s, v{m}.4s" "01001110101 mmmmm 101111 nnnnn ddddd"; // ADDP (vector)
        add_s(d: V, n: V, m: V) NEON "add v{d}.4s, v{n}.4s, v{m}.4s" "01001110101 mmmmm 100001 nnnnn ddddd"; // ADD (vector)
        addv_s(d: V, n: V) NEON "addv s{d}, v{n}.4s" "0100111010 11000 11011 10 nnnnn ddddd";           // ADDV
        smax_s(d: V, n: V, m: V) NEON "smax v{d}.4s, v{n}.4s, v{m}.4s" "01001110101 mmmmm 011001 nnnnn ddddd"; // SMAX
        smin_s(d: V, n: V, m: V) NEON "smin v{d}.4s, v{n}.4s, v{m}.4s" "01001110101 mmmmm 011011 nnnnn ddddd"; // SMIN
        smaxv_s(d: V, n: V) NEON "smaxv s{d}, v{n}.4s" "0100111010 11000 01010 10 nnnnn ddddd";         // SMAXV
        uzp1_b(d: V, n: V, m: V) NEON "uzp1 v{d}.16b, v{n}.16b, v{m}.16b" "01001110000 mmmmm 000110 nnnnn ddddd"; // UZP1
        uzp1_h(d: V, n: V, m: V) NEON "uzp1 v{d}.8h, v{n}.8h, v{m}.8h" "01001110010 mmmmm 000110 nnnnn ddddd"; // the same
        trn1_s(d: V, n: V, m: V) NEON "trn1 v{d}.4s, v{n}.4s, v{m}.4s" "01001110100 mmmmm 001010 nnnnn ddddd"; // TRN1
        trn2_s(d: V, n: V, m: V) NEON "trn2 v{d}.4s, v{n}.4s, v{m}.4s" "01001110100 mmmmm 011010 nnnnn ddddd"; // TRN2
        trn1_d(d: V, n: V, m: V) NEON "trn1 v{d}.2d, v{n}.2d, v{m}.2d" "01001110110 mmmmm 001010 nnnnn ddddd"; // TRN1
        trn2_d(d: V, n: V, m: V) NEON "trn2 v{d}.2d, v{n}.2d, v{m}.2d" "01001110110 mmmmm 011010 nnnnn ddddd"; // TRN2
        sdot(d: V, n: V, m: V) DOTPROD "sdot v{d}.4s, v{n}.16b, v{m}.16b" "01001110100 mmmmm 100101 nnnnn ddddd"; // SDOT (vector)
        smmla(d: V, n: V, m: V) I8MM "smmla v{d}.4s, v{n}.16b, v{m}.16b" "01001110100 mmmmm 101001 nnnnn ddddd"; // SMMLA (vector)
        sdot_lane(d: V, n: V, m: V, i: i64) DOTPROD "sdot v{d}.4s, v{n}.16b, v{m}.4b[{i}]" "0100111110 I mmmmm 1110 i 0 nnnnn ddddd"; // SDOT (by element)
        orr_v(d: V, n: V, m: V) NEON "orr v{d}.16b, v{n}.16b, v{m}.16b" "01001110101 mmmmm 000111 nnnnn ddddd"; // ORR (vector, register)
        bic_v(d: V, n: V, m: V) NEON "bic v{d}.16b, v{n}.16b, v{m}.16b" "01001110011 mmmmm 000111 nnnnn ddddd"; // BIC (vector, register)
        bit_v(d: V, n: V, m: V) NEON "bit v{d}.16b, v{n}.16b, v{m}.16b" "01101110101 mmmmm 000111 nnnnn ddddd"; // BIT
        shl_s(d: V, n: V, i: i64) NEON "shl v{d}.4s, v{n}.4s, #{i}" "010011110 01 iiiii 010101 nnnnn ddddd"; // SHL
        shrn_h(d: V, n: V, i: i64) NEON "shrn v{d}.8b, v{n}.8h, #{i:r8}" "000011110 0001 iii 100001 nnnnn ddddd"; // SHRN, SHRN2
        shrn2_h(d: V, n: V, i: i64) NEON "shrn2 v{d}.16b, v{n}.8h, #{i:r8}" "010011110 0001 iii 100001 nnnnn ddddd"; // the same
        ext(d: V, n: V, m: V, i: i64) NEON "ext v{d}.16b, v{n}.16b, v{m}.16b, #{i}" "01101110000 mmmmm 0 iiii 0 nnnnn ddddd"; // EXT
        dup_s(d: V, n: V) NEON "dup v{d}.4s, v{n}.s[0]" "01001110000 00100 000001 nnnnn ddddd";         // DUP (element)
        dup_w(d: V, n: X) NEON "dup v{d}.4s, w{n}" "01001110000 00100 000011 nnnnn ddddd";              // DUP (general)
        sshll_h(d: V, n: V) NEON "sshll v{d}.8h, v{n}.8b, #0" "000011110 0001 000 101001 nnnnn ddddd";  // SSHLL, SSHLL2
        sshll2_h(d: V, n: V) NEON "sshll2 v{d}.8h, v{n}.16b, #0" "010011110 0001 000 101001 nnnnn ddddd"; // the same
        shll_s(d: V, n: V) NEON "shll v{d}.4s, v{n}.4h, #16" "0010111001 10000 10011 10 nnnnn ddddd";   // SHLL, SHLL2
        shll2_s(d: V, n: V) NEON "shll2 v{d}.4s, v{n}.8h, #16" "0110111001 10000 10011 10 nnnnn ddddd"; // the same

        // Floats in vectors: C7.2.
        fcvtl(d: V, n: V) NEON "fcvtl v{d}.4s, v{n}.4h" "0000111000 10000 10111 10 nnnnn ddddd";        // FCVTL, FCVTL2
        fcvtl2(d: V, n: V) NEON "fcvtl2 v{d}.4s, v{n}.8h" "0100111000 10000 10111 10 nnnnn ddddd";      // the same
        fcvtn(d: V, n: V) NEON "fcvtn v{d}.4h, v{n}.4s" "0000111000 10000 10110 10 nnnnn ddddd";        // FCVTN, FCVTN2
        fcvtn2(d: V, n: V) NEON "fcvtn2 v{d}.8h, v{n}.4s" "0100111000 10000 10110 10 nnnnn ddddd";      // the same
        scvtf(d: V, n: V) NEON "scvtf v{d}.4s, v{n}.4s" "0100111000 10000 11101 10 nnnnn ddddd";        // SCVTF (vector, integer)
        fcvtns(d: V, n: V) NEON "fcvtns v{d}.4s, v{n}.4s" "0100111000 10000 11010 10 nnnnn ddddd";      // FCVTNS (vector)
        fmov_w(d: X, n: V) NEON "fmov w{d}, s{n}" "00011110001 00110 000000 nnnnn ddddd";               // FMOV (general)
        fadd(d: V, n: V, m: V) NEON "fadd v{d}.4s, v{n}.4s, v{m}.4s" "01001110001 mmmmm 110101 nnnnn ddddd"; // FADD (vector)
        fsub(d: V, n: V, m: V) NEON "fsub v{d}.4s, v{n}.4s, v{m}.4s" "01001110101 mmmmm 110101 nnnnn ddddd"; // FSUB (vector)
        fmul(d: V, n: V, m: V) NEON "fmul v{d}.4s, v{n}.4s, v{m}.4s" "01101110001 mmmmm 110111 nnnnn ddddd"; // FMUL (vector)
        fdiv(d: V, n: V, m: V) NEON "fdiv v{d}.4s, v{n}.4s, v{m}.4s" "01101110001 mmmmm 111111 nnnnn ddddd"; // FDIV (vector)
        fmla(d: V, n: V, m: V) NEON "fmla v{d}.4s, v{n}.4s, v{m}.4s" "01001110001 mmmmm 110011 nnnnn ddddd"; // FMLA (vector)
        fmls(d: V, n: V, m: V) NEON "fmls v{d}.4s, v{n}.4s, v{m}.4s" "01001110101 mmmmm 110011 nnnnn ddddd"; // FMLS (vector)
        fmla_lane(d: V, n: V, m: V, i: i64) NEON "fmla v{d}.4s, v{n}.4s, v{m}.s[{i}]" "0100111110 I mmmmm 0001 i 0 nnnnn ddddd"; // FMLA (by element)
        fmax(d: V, n: V, m: V) NEON "fmax v{d}.4s, v{n}.4s, v{m}.4s" "01001110001 mmmmm 111101 nnnnn ddddd"; // FMAX (vector)
        fmaxnm(d: V, n: V, m: V) NEON "fmaxnm v{d}.4s, v{n}.4s, v{m}.4s" "01001110001 mmmmm 110001 nnnnn ddddd"; // FMAXNM (vector)
        fmaxv(d: V, n: V) NEON "fmaxv s{d}, v{n}.4s" "0110111000 11000 01111 10 nnnnn ddddd";           // FMAXV
        faddp(d: V, n: V) NEON "faddp s{d}, v{n}.2s" "0111111000 11000 01101 10 nnnnn ddddd";           // FADDP (scalar)
        fcmgt(d: V, n: V, m: V) NEON "fcmgt v{d}.4s, v{n}.4s, v{m}.4s" "01101110101 mmmmm 111001 nnnnn ddddd"; // FCMGT (register)

        // Scalable vectors: C8.2.
        rdvl(d: X, i: i64) SVE "rdvl x{d}, #{i:s1}" "00000100 101 11111 01010 iiiiii ddddd";             // RDVL
        addvl(d: X, n: X, i: i64) SVE "addvl x{d}, x{n}, #{i:s1}" "00000100 001 nnnnn 01010 iiiiii ddddd"; // ADDVL
        incb(d: X) SVE "incb x{d}" "00000100 00 11 0000 111000 11111 ddddd";                              // INCB (scalar)
        whilelo_b(d: P, n: X, m: X) SVE "whilelo p{d}.b, x{n}, x{m}" "00100101 00 1 mmmmm 000 111 nnnnn 0 0ddd"; // WHILELO (predicate)
        ld1b(d: V, g: P, n: X, m: X) SVE "ld1b { z{d}.b }, p{g}/z, [x{n}, x{m}]" "1010010 0000 mmmmm 010 ggg nnnnn ddddd"; // LD1B (scalar plus scalar)
        ld1b_0(d: V, g: P, n: X) SVE "ld1b { z{d}.b }, p{g}/z, [x{n}]" "1010010 0000 0 0000 101 ggg nnnnn ddddd"; // LD1B (scalar plus immediate)
        st1b(d: V, g: P, n: X, m: X) SVE "st1b { z{d}.b }, p{g}, [x{n}, x{m}]" "1110010 0000 mmmmm 010 ggg nnnnn ddddd"; // ST1B (scalar plus scalar)
        st1b_0(d: V, g: P, n: X) SVE "st1b { z{d}.b }, p{g}, [x{n}]" "1110010 0000 0 0000 111 ggg nnnnn ddddd"; // ST1B (scalar plus immediate)
        ldr_z(d: V, n: X, i: i64) SVE "ldr z{d}, [x{n}, #{i:s1}, mul vl]" "1000010110 iiiiii 010 iii nnnnn ddddd"; // LDR (vector)
        str_z(d: V, n: X, i: i64) SVE "str z{d}, [x{n}, #{i:s1}, mul vl]" "1110010110 iiiiii 010 iii nnnnn ddddd"; // STR (vector)
        mov_z_imm(d: V, i: i64) SVE "mov z{d}.b, #{i:s1}" "00100101 00 111000 110 iiiiiiii ddddd";        // DUP (immediate)
        orr_z(d: V, n: V, m: V) SVE "orr z{d}.d, z{n}.d, z{m}.d" "00000100 011 mmmmm 001100 nnnnn ddddd"; // ORR (vectors, unpredicated)
        and_z(d: V, n: V, m: V) SVE "and z{d}.d, z{n}.d, z{m}.d" "00000100 001 mmmmm 001100 nnnnn ddddd"; // AND (vectors, unpredicated)
        lsr_z_b(d: V, n: V, i: i64) SVE "lsr z{d}.b, z{n}.b, #{i:r8}" "00000100 001 01 iii 100101 nnnnn ddddd"; // LSR (immediate, unpredicated)
        asr_z_s(d: V, n: V, i: i64) SVE "asr z{d}.s, z{n}.s, #{i:r32}" "00000100 011 iiiii 100100 nnnnn ddddd"; // ASR (immediate, unpredicated)
        add_z_s(d: V, n: V, m: V) SVE "add z{d}.s, z{n}.s, z{m}.s" "00000100 101 mmmmm 000000 nnnnn ddddd"; // ADD (vectors, unpredicated)
        ext_z(d: V, m: V, i: i64) SVE "ext z{d}.b, z{d}.b, z{m}.b, #{i}" "00000101 001 iiiii 000 iii mmmmm ddddd"; // EXT
        trn1_z_s(d: V, n: V, m: V) SVE "trn1 z{d}.s, z{n}.s, z{m}.s" "00000101 101 mmmmm 011100 nnnnn ddddd"; // TRN1, TRN2 (vectors)
        trn2_z_s(d: V, n: V, m: V) SVE "trn2 z{d}.s, z{n}.s, z{m}.s" "00000101 101 mmmmm 011101 nnnnn ddddd"; // the same
        trn1_z_d(d: V, n: V, m: V) SVE "trn1 z{d}.d, z{n}.d, z{m}.d" "00000101 111 mmmmm 011100 nnnnn ddddd"; // the same
        trn2_z_d(d: V, n: V, m: V) SVE "trn2 z{d}.d, z{n}.d, z{m}.d" "00000101 111 mmmmm 011101 nnnnn ddddd"; // the same
        sdot_z_lane(d: V, n: V, m: V, i: i64) SVE "sdot z{d}.s, z{n}.b, z{m}.b[{i}]" "01000100 101 ii mmm 000000 nnnnn ddddd"; // SDOT (4-way, indexed)
        smmla_z(d: V, n: V, m: V) SVE_I8MM "smmla z{d}.s, z{n}.b, z{m}.b" "01000101 000 mmmmm 100110 nnnnn ddddd"; // SMMLA

        // Streaming mode and ZA: the chapter on SME instructions; MRS and MSR, C6.2. MOV of a slice is MOVA.
        smstart() SME "smstart" "1101010100000011 0100 0 11 1 011 11111";                              // MSR (immediate), SVCRSMZA
        smstop() SME "smstop" "1101010100000011 0100 0 11 0 011 11111";                                // the same
        mrs_svcr(d: X) SME "mrs x{d}, SVCR" "110101010011 1 011 0100 0010 010 ddddd";                   // MRS
        mrs_tpidr2(d: X) SME "mrs x{d}, TPIDR2_EL0" "110101010011 1 011 1101 0000 101 ddddd";           // the same
        msr_tpidr2_zero() SME "msr TPIDR2_EL0, xzr" "110101010001 1 011 1101 0000 101 11111";           // MSR (register)
        zero_za() SME "zero { za }" "11000000 000010 0000000000 11111111";                             // ZERO (tiles)
        str_za(n: X) SME "str za[w12, 0], [x{n}]" "1110000100100000000000 nnnnn 0 0000";               // STR (array vector)
        ld1w_za0h(g: P, n: X) SME "ld1w { za0h.s[w12, 0] }, p{g}/z, [x{n}]" "11100000100 11111 0 00 ggg nnnnn 0 0000"; // LD1W (tile slice)
        st1w_za0v(g: P, n: X) SME "st1w { za0v.s[w12, 0] }, p{g}, [x{n}]" "11100000101 11111 1 00 ggg nnnnn 0 0000"; // ST1W (tile slice)
        ld1q_za0h(g: P, n: X) SME "ld1q { za0h.q[w12, 0] }, p{g}/z, [x{n}]" "11100001110 11111 0 00 ggg nnnnn 0 0000"; // LD1Q (tile slice)
        st1q_za0v(g: P, n: X) SME "st1q { za0v.q[w12, 0] }, p{g}, [x{n}]" "11100001111 11111 1 00 ggg nnnnn 0 0000"; // ST1Q (tile slice)
        mov_z_q(d: V, g: P, t: i64) SME "mov z{d}.q, p{g}/m, za{t}v.q[w12, 0]" "1100000011000011 1 00 ggg 0 tttt ddddd"; // MOVA (tile to vector)
        smopa(t: i64, g: P, h: P, n: V, m: V) SME "smopa za{t}.s, p{g}/m, p{h}/m, z{n}.b, z{m}.b" "10100000100 mmmmm hhh ggg nnnnn 000 tt"; // SMOPA (4-way)
    }
    branches {
        cbz(n: X) "cbz x{n}, #{l:s4}" "10110100 lllllllllllllllllll nnnnn";                             // CBZ
        cbnz(n: X) "cbnz x{n}, #{l:s4}" "10110101 lllllllllllllllllll nnnnn";                           // CBNZ
        b_hs() "b.hs #{l:s4}" "01010100 lllllllllllllllllll 0 0010";                                    // B.cond
        b_lo() "b.lo #{l:s4}" "01010100 lllllllllllllllllll 0 0011";                                    // the same
        b_mi() "b.mi #{l:s4}" "01010100 lllllllllllllllllll 0 0100";                                    // the same
        b_ne() "b.ne #{l:s4}" "01010100 lllllllllllllllllll 0 0001";                                    // the same
    }
}

impl A64 {
    /// Saves d8..d15, whose values belong to the caller; 64 bytes of stack.
    pub fn save_vectors(&mut self) {
        self.stp_d_pre(V(8), V(9), -SAVED_BYTES);
        for i in 1..4 {
            self.stp_d(V(8 + 2 * i), V(9 + 2 * i), 16 * i64::from(i));
        }
    }

    /// Restores what [`A64::save_vectors`] saved, and returns.
    pub fn restore_vectors_and_ret(&mut self) {
        for i in 1..4 {
            self.ldp_d(V(8 + 2 * i), V(9 + 2 * i), 16 * i64::from(i));
        }
        self.ldp_d_post(V(8), V(9), SAVED_BYTES);
        self.ret();
    }
}

/// Bytes of stack that [`A64::save_vectors`] uses.
pub(super) const SAVED_BYTES: i64 = 64;
