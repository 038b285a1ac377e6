//! The binary interface of x86-64: ELF facts, relocations, system calls, start-up code, and the probe of the CPU.

use iced_x86::IcedError;
use iced_x86::code_asm::registers::gpr32::*;
use iced_x86::code_asm::registers::gpr64::*;
use iced_x86::code_asm::{AsmRegister32, CodeAssembler, qword_ptr};
use tcc_ir::target::Features;

use super::desc::{AMXINT8, AVX2, AVX512, AVX512VBMI, AVX512VNNI, AVXVNNI, BMI, F16C, FMA};
use super::function;
use crate::code::{Function, Reloc, RelocKind, Target};
use crate::isa::{ElfAbi, Syscalls};

/// EM_X86_64; R_X86_64_PC64.
pub(super) const ELF: ElfAbi = ElfAbi { machine: 62, flags: 0, pc64: &[24] };

/// Linux system call numbers (arch/x86/entry/syscalls/syscall_64.tbl).
pub(super) const SYSCALLS: Syscalls = Syscalls { read: 0, write: 1, mmap: 9, exit_group: 231 };

/// See [`crate::isa::Backend::apply`].
pub(super) fn apply(kind: RelocKind, code: &mut [u8], at: usize, place: u64, target: u64) -> Result<(), String> {
    let displacement = target.wrapping_sub(place).cast_signed();
    match kind {
        RelocKind::X86Pc32 => {
            let field = i32::try_from(displacement).map_err(|_| format!("{displacement} bytes away, over 2 GiB"))?;
            code[at..at + 4].copy_from_slice(&field.to_le_bytes());
            Ok(())
        }
        RelocKind::Pc64 => {
            code[at..at + 8].copy_from_slice(&displacement.to_le_bytes());
            Ok(())
        }
        RelocKind::Aarch64Call
        | RelocKind::Aarch64AdrpPage
        | RelocKind::Aarch64AddLow12
        | RelocKind::RiscvCall
        | RelocKind::RiscvPcrelHigh20
        | RelocKind::RiscvPcrelLow12I => Err(format!("{kind:?} is not a relocation of x86-64")),
    }
}

/// Asks Linux for the tiles of the matrix extension, which a process has to before it may use them: 0 in eax if they are
/// granted. Kernels and processors without them refuse (Linux `Documentation/arch/x86/xstate.rst`).
fn ask_for_tiles(a: &mut CodeAssembler) -> Result<(), IcedError> {
    const ARCH_PRCTL: u32 = 158;
    const ARCH_REQ_XCOMP_PERM: u32 = 0x1023;
    const XFEATURE_XTILEDATA: u32 = 18;
    a.mov(eax, ARCH_PRCTL)?;
    a.mov(edi, ARCH_REQ_XCOMP_PERM)?;
    a.mov(esi, XFEATURE_XTILEDATA)?;
    a.syscall()
}

/// `_start`: passes the initial stack pointer to `exe_main` on an aligned stack, after it has asked for what `hwcap` says.
pub(super) fn start() -> Function {
    const CALL_REL32: u8 = 0xE8;
    let mut function = function("_start", 8, |a| {
        ask_for_tiles(a)?;
        a.mov(rdi, rsp)?;
        a.xor(ebp, ebp)?;
        a.and(rsp, -16)
    });
    function.bytes.push(CALL_REL32);
    let offset = u32::try_from(function.bytes.len()).expect("a short function");
    function.bytes.extend_from_slice(&[0; 4]);
    function.bytes.extend_from_slice(&[0x0F, 0x0B]); // ud2: `exe_main` does not return
    let target = Target::Symbol("exe_main".into());
    function.relocs.push(Reloc { offset, kind: RelocKind::X86Pc32, target, addend: -4 });
    function.calls.push("exe_main".into());
    function
}

/// `exe_syscall(n, a0, a1, a2, a3, a4, a5)`: moves the C arguments to the kernel's registers.
pub(super) fn syscall() -> Function {
    function("exe_syscall", 8, |a| {
        a.mov(rax, rdi)?;
        a.mov(rdi, rsi)?;
        a.mov(rsi, rdx)?;
        a.mov(rdx, rcx)?;
        a.mov(r10, r8)?;
        a.mov(r8, r9)?;
        a.mov(r9, qword_ptr(rsp + 8))?;
        a.syscall()?;
        a.ret()
    })
}

/// `probe(hint)`: the hint, or what CPUID and XCR0 say where it is 0. Nothing that has to be asked for is among it.
pub(super) fn probe() -> Function {
    function("probe", 24, |a| {
        let mut ask = a.create_label();
        a.mov(rax, rdi)?;
        a.test(rdi, rdi)?;
        a.je(ask)?;
        a.ret()?;
        a.set_label(&mut ask)?;
        a.push(rbp)?;
        a.xor(ebp, ebp)?;
        ask_cpu(a)
    })
}

/// `hwcap(hwcap, hwcap2)`: the auxiliary vector says nothing that CPUID does not, so this asks the CPU, and the system.
pub(super) fn hwcap() -> Function {
    function("hwcap", 24, |a| {
        let mut refused = a.create_label();
        a.push(rbp)?;
        ask_for_tiles(a)?;
        a.xor(ebp, ebp)?;
        a.test(eax, eax)?;
        a.jne(refused)?;
        a.inc(ebp)?;
        a.set_label(&mut refused)?;
        ask_cpu(a)
    })
}

/// A CPUID or XCR0 word, in the register where [`ask_cpu`] leaves it.
#[derive(Clone, Copy)]
enum Word {
    /// Leaf 1, ECX.
    Leaf1C,
    /// Leaf 7, EBX.
    Leaf7B,
    /// Leaf 7, ECX.
    Leaf7C,
    /// Leaf 7 subleaf 1, EAX.
    Leaf71A,
    /// Leaf 0x80000001, ECX.
    ExtendedC,
    /// The register state that the operating system saves.
    Xcr0,
    /// 1 if this process may use tiles, and they multiply bytes (leaf 7, EDX).
    Tiles,
}

impl Word {
    fn register(self) -> AsmRegister32 {
        match self {
            Word::Leaf1C => r8d,
            Word::Leaf7B => r9d,
            Word::Leaf7C => r10d,
            Word::Leaf71A => r11d,
            Word::ExtendedC => esi,
            Word::Xcr0 => edi,
            Word::Tiles => ebp,
        }
    }
}

/// XCR0: SSE and AVX state.
const YMM_STATE: (Word, u32) = (Word::Xcr0, 0x06);
/// XCR0: also opmask and both halves of the AVX-512 state.
const ZMM_STATE: (Word, u32) = (Word::Xcr0, 0xE6);

/// A core has a feature when every word has all the bits of its mask (Intel SDM volume 2, CPUID).
const RULES: &[(Features, &[(Word, u32)])] = &[
    (AVX2, &[YMM_STATE, (Word::Leaf1C, 1 << 28), (Word::Leaf7B, 1 << 5)]),
    (FMA, &[YMM_STATE, (Word::Leaf1C, 1 << 12)]),
    (BMI, &[(Word::Leaf7B, 1 << 3 | 1 << 8), (Word::ExtendedC, 1 << 5)]),
    (F16C, &[YMM_STATE, (Word::Leaf1C, 1 << 29)]),
    (AVXVNNI, &[YMM_STATE, (Word::Leaf71A, 1 << 4)]),
    // F, DQ, CD, BW, VL
    (AVX512, &[ZMM_STATE, (Word::Leaf7B, 1 << 16 | 1 << 17 | 1 << 28 | 1 << 30 | 1 << 31)]),
    (AVX512VNNI, &[ZMM_STATE, (Word::Leaf7C, 1 << 11)]),
    (AVX512VBMI, &[ZMM_STATE, (Word::Leaf7C, 1 << 1)]),
    (AMXINT8, &[ZMM_STATE, (Word::Tiles, 1)]),
];

/// Returns the features of this core in rax; ebp, whose old value lies on the stack, says if tiles are granted.
fn ask_cpu(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let [mut no_xsave, mut no_leaf7, mut no_extended] = std::array::from_fn(|_| a.create_label());
    const OSXSAVE: u32 = 1 << 27;
    const AMX_INT8_BIT: u32 = 25;
    a.push(rbx)?;
    for zero in [edi, esi, r9d, r10d, r11d] {
        a.xor(zero, zero)?;
    }
    cpuid(a, 1, 0)?;
    a.mov(r8d, ecx)?;
    a.test(ecx, OSXSAVE)?;
    a.je(no_xsave)?;
    a.xor(ecx, ecx)?;
    a.xgetbv()?;
    a.mov(edi, eax)?;
    a.set_label(&mut no_xsave)?;
    cpuid(a, 0x8000_0000, 0)?;
    a.cmp(eax, 0x8000_0001_u32)?;
    a.jb(no_extended)?;
    cpuid(a, 0x8000_0001, 0)?;
    a.mov(esi, ecx)?;
    a.set_label(&mut no_extended)?;
    cpuid(a, 0, 0)?;
    a.cmp(eax, 7)?;
    a.jb(no_leaf7)?;
    cpuid(a, 7, 0)?;
    a.mov(r9d, ebx)?;
    a.mov(r10d, ecx)?;
    a.shr(edx, AMX_INT8_BIT)?;
    a.and(ebp, edx)?;
    a.test(eax, eax)?;
    a.je(no_leaf7)?;
    cpuid(a, 7, 1)?;
    a.mov(r11d, eax)?;
    a.set_label(&mut no_leaf7)?;
    a.xor(eax, eax)?;
    for (feature, words) in RULES {
        let mut lacking = a.create_label();
        for (word, mask) in *words {
            a.mov(ecx, word.register())?;
            a.and(ecx, *mask)?;
            a.cmp(ecx, *mask)?;
            a.jne(lacking)?;
        }
        a.or(eax, u32::try_from(feature.0).expect("fewer than 32 features"))?;
        a.set_label(&mut lacking)?;
    }
    a.pop(rbx)?;
    a.pop(rbp)?;
    a.ret()
}

fn cpuid(a: &mut CodeAssembler, leaf: u32, subleaf: u32) -> Result<(), IcedError> {
    a.mov(eax, leaf)?;
    a.mov(ecx, subleaf)?;
    a.cpuid()
}
