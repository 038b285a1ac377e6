//! Reads the emitted kernels back and checks what running them on one machine cannot show: that they use only the
//! features they declare, and keep the registers that belong to their caller.

use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register,
};
use tcc_ir::ops::kv_write::CACHE_TYPES;
use tcc_ir::target::Features;
use tcc_ir::ty::DType;

use crate::code::Function;
use crate::isa::x86_64::X86_64;
use crate::isa::x86_64::desc::{AMXINT8, AVX512, AVX512VBMI, AVX512VNNI, AVXVNNI, DESC, FETCHL2};
use crate::isa::{AttentionPart, Backend, RowPart};

/// Registers of the System V calling convention that a function leaves as they were.
const CALLEE_SAVED: [Register; 6] =
    [Register::RBX, Register::RBP, Register::R12, Register::R13, Register::R14, Register::R15];

fn instructions(code: &[u8]) -> Vec<Instruction> {
    Decoder::new(64, code, DecoderOptions::NONE).into_iter().collect()
}

/// Every assembled kernel with what it needs, in every manner of asking for memory.
fn kernels() -> Vec<(String, Features, Function)> {
    [Features::NONE, FETCHL2].into_iter().flat_map(kernels_tuned).collect()
}

/// The rows of the menu, then the dense products, attention, screens and loops over rows.
fn kernels_tuned(tuning: Features) -> Vec<(String, Features, Function)> {
    let of = move |needs| DESC.close(DESC.baseline.with(needs).with(tuning));
    let rows = DESC.menu.iter();
    let rows = rows.filter_map(|row| Some((row.name.to_string(), row.needs, X86_64.micro(row, of(row.needs))?)));
    let dense = [Features::NONE, AVX512].into_iter().flat_map(|needs| {
        [DType::F32, DType::F16, DType::Bf16].map(|weight| {
            let code = X86_64.dense_dot(weight, of(needs)).expect("assembled for every level");
            (format!("dense {weight}, {}", DESC.feature_names(needs)), needs, code)
        })
    });
    let attention = [Features::NONE, AVXVNNI, AVX512, AVX512VNNI].into_iter().flat_map(|needs| {
        let parts = AttentionPart::ALL.into_iter();
        parts.filter_map(move |part| {
            let code = X86_64.attention(part, of(needs))?;
            Some((format!("{}, {}", part.symbol(), DESC.feature_names(needs)), needs, code))
        })
    });
    let as_they_are = CACHE_TYPES.into_iter().flat_map(|cache| {
        let loops = X86_64.cache_loops(cache, of(AVX512)).map(|l| [("scores", l.scores), ("values", l.values)]);
        let named = move |(part, code)| (format!("{part} of {cache}"), AVX512, code);
        loops.into_iter().flatten().map(named)
    });
    let screen = [Features::NONE, AVXVNNI, AVX512VNNI].into_iter().flat_map(|needs| {
        let loops = X86_64.screen(of(needs)).expect("assembled for every level");
        [("panels", loops.panels), ("byte panels", loops.byte_panels), ("rows", loops.rows)]
            .map(|(part, code)| (format!("screen {part}, {}", DESC.feature_names(needs)), needs, code))
    });
    let over_rows = [Features::NONE, AVX512].into_iter().flat_map(|needs| {
        RowPart::ALL.into_iter().filter_map(move |part| {
            let code = X86_64.row_loop(part, of(needs))?;
            Some((format!("{}, {}", part.symbol(), DESC.feature_names(needs)), needs, code))
        })
    });
    rows.chain(dense).chain(attention).chain(as_they_are).chain(screen).chain(over_rows).collect()
}

/// Features beyond the baseline that an instruction of the CPUID feature `used` needs; `None` if no row may use it.
fn needed(used: CpuidFeature) -> Option<Features> {
    match used {
        CpuidFeature::INTEL8086
        | CpuidFeature::INTEL386
        | CpuidFeature::INTEL486
        | CpuidFeature::X64
        | CpuidFeature::CMOV
        | CpuidFeature::SSE
        | CpuidFeature::AVX
        | CpuidFeature::AVX2
        | CpuidFeature::FMA
        | CpuidFeature::F16C
        | CpuidFeature::POPCNT
        | CpuidFeature::BMI1
        | CpuidFeature::BMI2 => Some(Features::NONE),
        // A hint: cores without it do nothing.
        CpuidFeature::PREFETCHW => Some(Features::NONE),
        CpuidFeature::AVX_VNNI => Some(AVXVNNI),
        CpuidFeature::AVX512F | CpuidFeature::AVX512BW | CpuidFeature::AVX512DQ | CpuidFeature::AVX512VL => {
            Some(AVX512)
        }
        CpuidFeature::AVX512_VNNI => Some(AVX512VNNI),
        CpuidFeature::AVX512_VBMI => Some(AVX512VBMI),
        CpuidFeature::AMX_TILE | CpuidFeature::AMX_INT8 => Some(AMXINT8),
        _ => None,
    }
}

#[test]
fn kernels_use_only_declared_features() {
    for (name, needs, code) in kernels() {
        let declared = DESC.close(DESC.baseline.with(needs));
        for instruction in instructions(&code.bytes) {
            for used in instruction.cpuid_features() {
                let allowed = needed(*used).is_some_and(|features| declared.contains(features));
                assert!(allowed, "{name}: {instruction:?} needs {used:?}");
            }
        }
    }
}

#[test]
fn kernels_keep_the_registers_of_their_caller() {
    for (name, _, code) in kernels() {
        let list = instructions(&code.bytes);
        let operand = |mnemonic| list.iter().filter(move |i| i.mnemonic() == mnemonic).map(|i| i.op0_register());
        let pushed: Vec<_> = operand(Mnemonic::Push).collect();
        let mut popped: Vec<_> = operand(Mnemonic::Pop).collect();
        popped.reverse();
        assert_eq!(pushed, popped, "{name}");
        let of_stack = |mnemonic| {
            let list = list.iter().filter(move |i| i.mnemonic() == mnemonic && i.op0_register() == Register::RSP);
            list.map(|i| i.immediate(1)).sum::<u64>()
        };
        let own = of_stack(Mnemonic::Sub);
        assert_eq!(own, of_stack(Mnemonic::Add), "{name}: stack given back");
        assert_eq!(u64::from(code.frame_bytes), 8 + 8 * pushed.len() as u64 + own, "{name}: the declared frame");
        let mut info = InstructionInfoFactory::new();
        for instruction in &list {
            for used in info.info(instruction).used_registers() {
                let register = used.register().full_register();
                let written = !matches!(used.access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead);
                let kept = !CALLEE_SAVED.contains(&register) || pushed.contains(&register);
                assert!(!written || kept, "{name}: {instruction:?} writes {register:?}");
            }
        }
    }
}

#[test]
fn kernels_leave_no_upper_vector_state() {
    for (name, _, code) in kernels() {
        let list = instructions(&code.bytes);
        let last_vector =
            list.iter().rev().find(|i| i.cpuid_features() != [CpuidFeature::X64] && i.mnemonic() != Mnemonic::Ret);
        let clears = list.iter().filter(|i| i.mnemonic() == Mnemonic::Vzeroupper).count();
        assert_eq!(clears, 1, "{name}");
        assert_eq!(last_vector.map(Instruction::mnemonic), Some(Mnemonic::Vzeroupper), "{name}");
    }
}
