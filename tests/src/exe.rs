//! A static ELF executable around functions under test, for any ISA.
//!
//! Its main program is emitted with the portable code generator and refers to everything by absolute address, so no
//! relocation but those of the functions themselves is needed. It serves calls until its input ends:
//! request: a header of [`HEADER_BYTES`] (see [`field`]), then `in_bytes` of memory image from [`Memory::BASE`] on;
//! reply: the function's result (8 bytes), then `out_bytes` of the image.

use std::collections::BTreeMap;

use cranelift_codegen::Context;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::I64;
use cranelift_codegen::ir::{
    AbiParam, Function as ClifFunction, InstBuilder, MemFlagsData, Signature, UserFuncName, Value,
};
use cranelift_codegen::isa::CallConv;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use tcc_backends::code::{Function, RelocKind, Target};
use tcc_backends::isa::Backend;
use tcc_ir::target::Features;

use crate::memory::Memory;

/// Most arguments of a call.
pub(crate) const MAX_ARGS: usize = 6;

/// Byte offsets of the request header's 64-bit words.
pub(crate) mod field {
    pub const FUNCTION: i32 = 0;
    pub const ARGS: i32 = 8;
    pub const REPEAT: i32 = 56;
    pub const IN_BYTES: i32 = 64;
    pub const OUT_BYTES: i32 = 72;
    pub const RESULT: i32 = 80;
}

/// Bytes of a request header.
pub(crate) const HEADER_BYTES: usize = 80;

/// Address of the header: the page before the memory image.
const HEADER: u64 = Memory::BASE - 0x1000;

/// Address of the ELF header; code follows in the next page.
const IMAGE: u64 = 0x40_0000;
const CODE: u64 = IMAGE + 0x1000;

/// An executable and where its functions are.
pub(crate) struct Exe {
    pub elf: Vec<u8>,
    pub addresses: BTreeMap<String, u64>,
}

/// Functions laid out one after the other from [`CODE`] on.
#[derive(Default)]
struct Layout {
    code: Vec<u8>,
    addresses: BTreeMap<String, u64>,
    placed: Vec<(u64, Function)>,
}

impl Layout {
    fn add(&mut self, function: Function) -> u64 {
        let at = self.code.len().next_multiple_of(function.align.max(16) as usize);
        self.code.resize(at, 0);
        self.code.extend_from_slice(&function.bytes);
        let address = CODE + at as u64;
        self.addresses.insert(function.name.clone(), address);
        self.placed.push((address, function));
        address
    }

    /// Fills in every relocation.
    fn link(&mut self, backend: &dyn Backend) -> Result<(), String> {
        for (address, function) in &self.placed {
            for reloc in &function.relocs {
                let at = address + u64::from(reloc.offset);
                let (place, referrer) = match (reloc.kind, &reloc.target) {
                    (RelocKind::RiscvPcrelLow12I, Target::Local(offset)) => {
                        let high = function.relocs.iter().find(|r| r.offset == *offset);
                        (address + u64::from(*offset), high.ok_or("a low part without its high part")?)
                    }
                    _ => (at, reloc),
                };
                let symbol = match &referrer.target {
                    Target::Symbol(name) => *self.addresses.get(name).ok_or(format!("no function '{name}'"))?,
                    Target::Local(offset) => address + u64::from(*offset),
                    Target::Weights => return Err(format!("'{}' refers to the weights section", function.name)),
                };
                let field = usize::try_from(at - CODE).expect("code is far below 4 GiB");
                let target = symbol.wrapping_add_signed(referrer.addend);
                backend.apply(reloc.kind, &mut self.code, field, place, target)?;
            }
        }
        Ok(())
    }
}

/// Builds the executable for `functions`, compiled for a core with `features`, with room for images of `memory_bytes`.
pub(crate) fn build(
    backend: &dyn Backend,
    features: Features,
    functions: Vec<Function>,
    memory_bytes: usize,
) -> Result<Exe, String> {
    let mut layout = Layout::default();
    for function in functions {
        layout.add(function);
    }
    let emitter = Emitter::new(backend, features)?;
    let start = layout.add(backend.start());
    let syscall = layout.add(backend.syscall());
    let transfer = layout.add(emitter.transfer(syscall)?);
    layout.add(emitter.main(syscall, transfer)?);
    layout.link(backend)?;
    let elf = write_elf(backend, start, &layout.code, memory_bytes);
    Ok(Exe { elf, addresses: layout.addresses })
}

/// Emits the two functions of the main program.
struct Emitter<'a> {
    backend: &'a dyn Backend,
    isa: cranelift_codegen::isa::OwnedTargetIsa,
}

impl<'a> Emitter<'a> {
    fn new(backend: &'a dyn Backend, features: Features) -> Result<Self, String> {
        let mut shared = settings::builder();
        for (name, value) in [("is_pic", "false"), ("enable_probestack", "false"), ("opt_level", "speed")] {
            shared.set(name, value).map_err(|e| e.to_string())?;
        }
        let triple: target_lexicon::Triple =
            backend.clif_triple().parse().map_err(|e: target_lexicon::ParseError| e.to_string())?;
        let mut isa = cranelift_codegen::isa::lookup(triple).map_err(|e| e.to_string())?;
        for flag in backend.clif_flags(features) {
            isa.enable(flag).map_err(|e| format!("{flag}: {e}"))?;
        }
        let isa = isa.finish(settings::Flags::new(shared)).map_err(|e| e.to_string())?;
        Ok(Emitter { backend, isa })
    }

    /// `transfer(call, fd, address, len) -> 1` if all bytes were read or written, else 0.
    fn transfer(&self, syscall: u64) -> Result<Function, String> {
        self.emit("transfer", 4, |b, args| {
            let syscall = Callee::new(b, syscall, 7);
            let (head, go, next, done) = (b.create_block(), b.create_block(), b.create_block(), b.create_block());
            let address = b.append_block_param(head, I64);
            let len = b.append_block_param(head, I64);
            let result = b.append_block_param(done, I64);
            let (one, zero) = (b.ins().iconst(I64, 1), b.ins().iconst(I64, 0));
            b.ins().jump(head, &[args[2].into(), args[3].into()]);
            b.switch_to_block(head);
            b.ins().brif(len, go, &[], done, &[one.into()]);
            b.switch_to_block(go);
            let moved = syscall.call(b, &[args[0], args[1], address, len, zero, zero, zero]);
            let some = b.ins().icmp_imm_s(IntCC::SignedGreaterThan, moved, 0);
            b.ins().brif(some, next, &[], done, &[zero.into()]);
            b.switch_to_block(next);
            let (address, len) = (b.ins().iadd(address, moved), b.ins().isub(len, moved));
            b.ins().jump(head, &[address.into(), len.into()]);
            b.switch_to_block(done);
            b.ins().return_(&[result]);
        })
    }

    /// `exe_main(sp)`: serves calls, then exits with 0 (end of input) or 1 (output closed).
    fn main(&self, syscall: u64, transfer: u64) -> Result<Function, String> {
        let numbers = self.backend.syscalls();
        self.emit("exe_main", 1, |b, _| {
            let syscall = Callee::new(b, syscall, 7);
            let transfer = Callee::new(b, transfer, 4);
            let flags = MemFlagsData::trusted();
            let konst = |b: &mut FunctionBuilder, v: i64| b.ins().iconst(I64, v);
            let base = |b: &mut FunctionBuilder, a: u64| konst(b, i64::try_from(a).expect("addresses are small"));
            let word = |b: &mut FunctionBuilder, at: i32| {
                let header = base(b, HEADER);
                b.ins().load(I64, flags, header, at)
            };
            let [serve, body, again, ran, out, bye] = std::array::from_fn(|_| b.create_block());
            let left = b.append_block_param(again, I64);
            let result = b.append_block_param(ran, I64);
            let status = b.append_block_param(bye, I64);
            let zero = konst(b, 0);
            let one = konst(b, 1);
            b.ins().jump(serve, &[]);

            b.switch_to_block(serve);
            let (read, header, bytes) = (konst(b, numbers.read), base(b, HEADER), konst(b, HEADER_BYTES as i64));
            let got = transfer.call(b, &[read, zero, header, bytes]);
            b.ins().brif(got, body, &[], bye, &[zero.into()]);

            b.switch_to_block(body);
            let (image, bytes) = (base(b, Memory::BASE), word(b, field::IN_BYTES));
            transfer.call(b, &[read, zero, image, bytes]);
            let repeat = word(b, field::REPEAT);
            b.ins().jump(again, &[repeat.into()]);

            b.switch_to_block(again);
            let args: Vec<Value> = (0..MAX_ARGS).map(|i| word(b, field::ARGS + 8 * i as i32)).collect();
            let function = word(b, field::FUNCTION);
            let value = Callee::at(b, function, MAX_ARGS).call(b, &args);
            let left = b.ins().iadd_imm_s(left, -1);
            b.ins().brif(left, again, &[left.into()], ran, &[value.into()]);

            b.switch_to_block(ran);
            let header = base(b, HEADER);
            b.ins().store(flags, result, header, field::RESULT);
            let (write, bytes) = (konst(b, numbers.write), konst(b, 8));
            let from = base(b, HEADER + field::RESULT as u64);
            let sent = transfer.call(b, &[write, one, from, bytes]);
            b.ins().brif(sent, out, &[], bye, &[one.into()]);

            b.switch_to_block(out);
            let (image, bytes) = (base(b, Memory::BASE), word(b, field::OUT_BYTES));
            let sent = transfer.call(b, &[write, one, image, bytes]);
            b.ins().brif(sent, serve, &[], bye, &[one.into()]);

            b.switch_to_block(bye);
            let exit = konst(b, numbers.exit_group);
            syscall.call(b, &[exit, status, zero, zero, zero, zero, zero]);
            b.ins().return_(&[zero]);
        })
    }

    /// A function of `args` 64-bit arguments and one 64-bit result.
    fn emit(
        &self,
        name: &str,
        args: usize,
        fill: impl FnOnce(&mut FunctionBuilder, &[Value]),
    ) -> Result<Function, String> {
        let mut clif = ClifFunction::with_name_signature(UserFuncName::user(0, 0), signature(args));
        let mut frontend = FunctionBuilderContext::new();
        let mut builder = FunctionBuilder::new(&mut clif, &mut frontend);
        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);
        builder.switch_to_block(entry);
        let values = builder.block_params(entry).to_vec();
        fill(&mut builder, &values);
        builder.seal_all_blocks();
        builder.finalize(self.isa.frontend_config());
        let mut cx = Context::for_function(clif);
        let code = cx.compile(&*self.isa, &mut ControlPlane::default()).map_err(|e| format!("{name}: {}", e.inner))?;
        if !code.buffer.relocs().is_empty() {
            return Err(format!("'{name}' has relocations, expected none"));
        }
        Ok(Function {
            name: name.into(),
            bytes: code.code_buffer().to_vec(),
            align: 16,
            is_code: true,
            ..Function::default()
        })
    }
}

/// A function called by address.
struct Callee {
    signature: cranelift_codegen::ir::SigRef,
    address: Value,
}

impl Callee {
    fn new(b: &mut FunctionBuilder, address: u64, args: usize) -> Callee {
        let address = b.ins().iconst(I64, i64::try_from(address).expect("addresses are small"));
        Callee::at(b, address, args)
    }

    fn at(b: &mut FunctionBuilder, address: Value, args: usize) -> Callee {
        Callee { signature: b.import_signature(signature(args)), address }
    }

    fn call(&self, b: &mut FunctionBuilder, args: &[Value]) -> Value {
        let call = b.ins().call_indirect(self.signature, self.address, args);
        b.inst_results(call)[0]
    }
}

fn signature(args: usize) -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params = vec![AbiParam::new(I64); args];
    signature.returns = vec![AbiParam::new(I64)];
    signature
}

/// An ELF64 executable of two segments: `code` at [`CODE`], and zeroed memory from [`HEADER`] on, which nothing follows.
fn write_elf(backend: &dyn Backend, entry: u64, code: &[u8], memory_bytes: usize) -> Vec<u8> {
    const EHDR: u16 = 64;
    const PHDR: u16 = 56;
    let abi = backend.elf();
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend_from_slice(&2u16.to_le_bytes()); // ET_EXEC
    elf.extend_from_slice(&abi.machine.to_le_bytes());
    elf.extend_from_slice(&1u32.to_le_bytes()); // EV_CURRENT
    for word in [entry, u64::from(EHDR), 0] {
        elf.extend_from_slice(&word.to_le_bytes()); // entry, program headers, section headers
    }
    elf.extend_from_slice(&abi.flags.to_le_bytes());
    for half in [EHDR, PHDR, 2, 0, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    let (read_exec, read_write) = (5u32, 6u32);
    let memory_bytes = (memory_bytes + 0x1000) as u64;
    let segments = [
        (read_exec, CODE - IMAGE, CODE, code.len() as u64, code.len() as u64),
        (read_write, 0, HEADER, 0, memory_bytes),
    ];
    for (flags, offset, address, file_bytes, bytes) in segments {
        elf.extend_from_slice(&1u32.to_le_bytes()); // PT_LOAD
        elf.extend_from_slice(&flags.to_le_bytes());
        for word in [offset, address, address, file_bytes, bytes, 0x1000] {
            elf.extend_from_slice(&word.to_le_bytes());
        }
    }
    elf.resize((CODE - IMAGE) as usize, 0);
    elf.extend_from_slice(code);
    elf
}
