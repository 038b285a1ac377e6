//! The builder of one function: arithmetic, memory, structured control flow, calls and symbols.
//!
//! Values are SSA values of the code generator; control flow is structured, so that no block is ever named:
//!
//! ```text
//! let sum = cx.function("sum", &signature(&[I64, I64], &[I64]), |f| {
//!     let (words, n) = (f.param(0), f.param(1));
//!     let (zero, start) = (f.i64(0), f.i64(0));
//!     let total = f.for_carried(start, n, 1, &[zero], |f, i, carried| {
//!         let at = f.index(words, i, 8);
//!         let word = f.load(I64, at, 0);
//!         vec![f.ins().iadd(carried[0], word)]
//!     });
//!     f.return_(&total);
//! })?;
//! ```

use std::collections::{BTreeMap, BTreeSet};

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::immediates::{Ieee32, Imm64};
use cranelift_codegen::ir::types::{I8, I16, I32, I64};
use cranelift_codegen::ir::{
    AbiParam, Block, BlockArg, ExtFuncData, ExternalName, FuncRef, GlobalValueData, InstBuilder, MemFlagsData,
    Signature, SourceLoc, StackSlotData, StackSlotKind, Type, UserExternalName, UserFuncName, Value,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FuncInstBuilder, FunctionBuilder, FunctionBuilderContext};

use super::isa::ClifContext;
use super::link::{self, Names};
use crate::code::{EmitError, Function};
use crate::isa::RowPart;

/// A C signature (System V on every target). Integers narrower than 64 bits are sign-extended as RISC-V's ABI asks.
pub fn signature(params: &[Type], returns: &[Type]) -> Signature {
    let abi = |ty: &Type| {
        let param = AbiParam::new(*ty);
        if [I8, I16, I32].contains(ty) { param.sext() } else { param }
    };
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.extend(params.iter().map(abi));
    signature.returns.extend(returns.iter().map(abi));
    signature
}

/// A function under construction. The code generator's own builder is reached by [`FunctionCx::ins`].
pub struct FunctionCx<'a> {
    builder: FunctionBuilder<'a>,
    has_vectors: bool,
    row_loops: BTreeSet<RowPart>,
    params: Vec<Value>,
    /// Names of symbols by their index in the function's table of external names.
    symbols: Vec<String>,
    functions: BTreeMap<String, FuncRef>,
    marks: Vec<String>,
}

impl ClifContext {
    /// Builds and compiles one function. `body` must end in [`FunctionCx::return_`].
    ///
    /// Errors: code the target cannot hold, and any reference that is not a PC-relative one to a symbol by name.
    pub fn function(
        &self,
        name: &str,
        signature: &Signature,
        body: impl FnOnce(&mut FunctionCx),
    ) -> Result<Function, EmitError> {
        let user_name = UserFuncName::user(0, 0);
        let mut function = cranelift_codegen::ir::Function::with_name_signature(user_name, signature.clone());
        let mut frontend = FunctionBuilderContext::new();
        let mut builder = FunctionBuilder::new(&mut function, &mut frontend);
        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);
        builder.switch_to_block(entry);
        let params = builder.block_params(entry).to_vec();
        let mut f = FunctionCx {
            builder,
            has_vectors: self.has_vectors(),
            row_loops: self.row_loops().keys().copied().collect(),
            params,
            symbols: Vec::new(),
            functions: BTreeMap::new(),
            marks: Vec::new(),
        };
        body(&mut f);
        let FunctionCx { mut builder, symbols, functions, marks, .. } = f;
        builder.seal_all_blocks();
        builder.finalize(self.isa.frontend_config());
        link::finish(self, function, Names { function: name, symbols, calls: functions.into_keys().collect(), marks })
    }
}

/// Flags of a naturally aligned access that cannot fault.
fn scalar_access() -> MemFlagsData {
    MemFlagsData::trusted()
}

/// Flags of an access that cannot fault, aligned to its elements only.
fn vector_access() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// Flags of an access to memory that no instruction of the function writes: it may be moved to where it is used.
fn fixed_access() -> MemFlagsData {
    vector_access().with_readonly().with_can_move()
}

/// Values, memory, symbols.
impl<'a> FunctionCx<'a> {
    /// Appends one instruction of the code generator.
    pub fn ins<'short>(&'short mut self) -> FuncInstBuilder<'short, 'a> {
        self.builder.ins()
    }

    /// True if 128-bit vectors may be used.
    pub fn has_vectors(&self) -> bool {
        self.has_vectors
    }

    /// True if `part` is a function of the image.
    pub fn has_row_loop(&self, part: RowPart) -> bool {
        self.row_loops.contains(&part)
    }

    /// Parameter `i` of the function.
    pub fn param(&self, i: usize) -> Value {
        self.params[i]
    }

    pub fn type_of(&self, value: Value) -> Type {
        self.builder.func.dfg.value_type(value)
    }

    pub fn i64(&mut self, value: i64) -> Value {
        self.ins().iconst(I64, value)
    }

    /// A size or offset as a 64-bit constant.
    pub fn size(&mut self, value: usize) -> Value {
        let value = i64::try_from(value).expect("sizes of one machine fit 63 bits");
        self.i64(value)
    }

    pub fn i32(&mut self, value: i32) -> Value {
        // The immediate is the 32-bit pattern, zero-extended.
        self.ins().iconst(I32, Imm64::new(i64::from(value.cast_unsigned())))
    }

    pub fn f32(&mut self, value: f32) -> Value {
        self.ins().f32const(Ieee32::with_bits(value.to_bits()))
    }

    /// `base + i * stride` bytes.
    pub fn index(&mut self, base: Value, i: Value, stride: usize) -> Value {
        let offset = self.scaled(i, stride);
        self.ins().iadd(base, offset)
    }

    /// `value * factor`, 64 bits.
    pub fn scaled(&mut self, value: Value, factor: usize) -> Value {
        let factor = i64::try_from(factor).expect("sizes of one machine fit 63 bits");
        match factor {
            1 => value,
            _ if factor & (factor - 1) == 0 => self.ins().ishl_imm_u(value, i64::from(factor.trailing_zeros())),
            _ => self.ins().imul_imm_s(value, factor),
        }
    }

    /// `value + offset` bytes.
    pub fn offset(&mut self, value: Value, offset: usize) -> Value {
        let offset = i64::try_from(offset).expect("sizes of one machine fit 63 bits");
        if offset == 0 { value } else { self.ins().iadd_imm_s(value, offset) }
    }

    /// Smaller of two signed 64-bit values.
    pub fn min(&mut self, a: Value, b: Value) -> Value {
        let a_first = self.ins().icmp(IntCC::SignedLessThan, a, b);
        self.ins().select(a_first, a, b)
    }

    /// Loads `ty` at `address + offset`: scalars naturally aligned, vectors aligned to their elements.
    pub fn load(&mut self, ty: Type, address: Value, offset: i32) -> Value {
        let flags = if ty.is_vector() { vector_access() } else { scalar_access() };
        self.ins().load(ty, flags, address, offset)
    }

    /// As [`FunctionCx::load`], from memory that the function does not write: the code generator places the load
    /// where its value is used, which keeps long unrolled sums in registers.
    pub fn load_fixed(&mut self, ty: Type, address: Value, offset: i32) -> Value {
        self.ins().load(ty, fixed_access(), address, offset)
    }

    /// Stores `value` at `address + offset`, aligned as for [`FunctionCx::load`].
    pub fn store(&mut self, value: Value, address: Value, offset: i32) {
        let flags = if self.type_of(value).is_vector() { vector_access() } else { scalar_access() };
        self.ins().store(flags, value, address, offset);
    }

    /// Loads an unsigned integer of type `ty` (narrower than 64 bits) and widens it to 64.
    pub fn load_unsigned(&mut self, ty: Type, address: Value, offset: i32) -> Value {
        let value = self.load(ty, address, offset);
        self.ins().uextend(I64, value)
    }

    /// Four unsigned 16-bit integers widened to `i32x4`.
    pub fn load_u16x4(&mut self, address: Value, offset: i32) -> Value {
        self.ins().uload16x4(vector_access(), address, offset)
    }

    /// An unsigned 16-bit integer widened to i32.
    pub fn load_u16(&mut self, address: Value, offset: i32) -> Value {
        self.ins().uload16(I32, scalar_access(), address, offset)
    }

    /// A signed 16-bit integer widened to i32.
    pub fn load_i16(&mut self, address: Value, offset: i32) -> Value {
        self.ins().sload16(I32, scalar_access(), address, offset)
    }

    /// A signed byte widened to i32.
    pub fn load_i8(&mut self, address: Value, offset: i32) -> Value {
        self.ins().sload8(I32, scalar_access(), address, offset)
    }

    /// Stores the low 16 bits of an i32.
    pub fn store_low16(&mut self, value: Value, address: Value, offset: i32) {
        self.ins().istore16(scalar_access(), value, address, offset);
    }

    /// Stores the low 8 bits of an i32.
    pub fn store_low8(&mut self, value: Value, address: Value, offset: i32) {
        self.ins().istore8(scalar_access(), value, address, offset);
    }

    /// Address of `bytes` of this activation's stack, aligned to 16; their contents are undefined.
    pub fn stack(&mut self, bytes: u32) -> Value {
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 4);
        let slot = self.builder.create_sized_stack_slot(slot);
        self.ins().stack_addr(I64, slot, 0)
    }

    /// Address of the function or data block `name` of the image.
    pub fn symbol_address(&mut self, name: &str) -> Value {
        let name = self.external(name);
        let data = GlobalValueData::Symbol { name, offset: Imm64::new(0), colocated: true, tls: false };
        let global = self.builder.create_global_value(data);
        self.ins().symbol_value(I64, global)
    }

    /// Calls the function `name` of the image and returns its results.
    pub fn call(&mut self, name: &str, signature: &Signature, args: &[Value]) -> Vec<Value> {
        let function = match self.functions.get(name) {
            Some(function) => *function,
            None => {
                let signature = self.builder.import_signature(signature.clone());
                let external = self.external(name);
                let data = ExtFuncData { name: external, signature, colocated: true, patchable: false };
                let function = self.builder.import_function(data);
                self.functions.insert(name.to_string(), function);
                function
            }
        };
        let call = self.ins().call(function, args);
        self.builder.inst_results(call).to_vec()
    }

    /// Calls through a pointer (a hook of the host) and returns the results.
    pub fn call_pointer(&mut self, pointer: Value, signature: &Signature, args: &[Value]) -> Vec<Value> {
        let signature = self.builder.import_signature(signature.clone());
        let call = self.ins().call_indirect(signature, pointer, args);
        self.builder.inst_results(call).to_vec()
    }

    /// Code emitted from here on is labelled `label` in [`Function::marks`].
    pub fn mark(&mut self, label: &str) {
        self.marks.push(label.to_string());
        let number = u32::try_from(self.marks.len()).expect("far fewer labels than 2^32");
        self.builder.set_srcloc(SourceLoc::new(number));
    }

    fn external(&mut self, name: &str) -> ExternalName {
        let index = self.symbols.iter().position(|s| s == name).unwrap_or_else(|| {
            self.symbols.push(name.to_string());
            self.symbols.len() - 1
        });
        let index = u32::try_from(index).expect("far fewer symbols than 2^32");
        let name = UserExternalName { namespace: 0, index };
        ExternalName::User(self.builder.func.declare_imported_user_function(name))
    }
}

/// Control flow.
impl FunctionCx<'_> {
    /// Ends the function.
    pub fn return_(&mut self, values: &[Value]) {
        self.ins().return_(values);
    }

    /// Leaves the function with the values `body` gives if `condition` is not 0.
    pub fn return_if(&mut self, condition: Value, body: impl FnOnce(&mut Self) -> Vec<Value>) {
        let (leave, stay) = (self.block(&[]), self.block(&[]));
        self.branch(condition, leave, &[], stay, &[]);
        self.builder.switch_to_block(leave);
        let values = body(self);
        self.return_(&values);
        self.builder.switch_to_block(stay);
    }

    /// Runs `body` if `condition` is not 0.
    pub fn if_then(&mut self, condition: Value, body: impl FnOnce(&mut Self)) {
        let (then, done) = (self.block(&[]), self.block(&[]));
        self.branch(condition, then, &[], done, &[]);
        self.builder.switch_to_block(then);
        body(self);
        self.jump(done, &[]);
        self.builder.switch_to_block(done);
    }

    /// The values of `then` if `condition` is not 0, else those of `otherwise`; both give the same types.
    pub fn if_else(
        &mut self,
        condition: Value,
        then: impl FnOnce(&mut Self) -> Vec<Value>,
        otherwise: impl FnOnce(&mut Self) -> Vec<Value>,
    ) -> Vec<Value> {
        let (yes, no) = (self.block(&[]), self.block(&[]));
        self.branch(condition, yes, &[], no, &[]);
        self.builder.switch_to_block(yes);
        let values = then(self);
        let done = self.block(&values);
        self.jump(done, &values);
        self.builder.switch_to_block(no);
        let values = otherwise(self);
        self.jump(done, &values);
        self.builder.switch_to_block(done);
        self.builder.block_params(done).to_vec()
    }

    /// Runs `body` for `i` in `begin..end` by `step > 0` (signed 64-bit compare).
    pub fn for_range(&mut self, begin: Value, end: Value, step: usize, body: impl FnOnce(&mut Self, Value)) {
        self.for_carried(begin, end, step, &[], |f, i, _| {
            body(f, i);
            vec![]
        });
    }

    /// As [`FunctionCx::for_range`] with values carried from one iteration to the next; returns the last ones.
    pub fn for_carried(
        &mut self,
        begin: Value,
        end: Value,
        step: usize,
        init: &[Value],
        body: impl FnOnce(&mut Self, Value, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let first: Vec<_> = std::iter::once(begin).chain(init.iter().copied()).collect();
        let (repeat, done) = (self.block(&first), self.block(init));
        let enter = self.ins().icmp(IntCC::SignedLessThan, begin, end);
        self.branch(enter, repeat, &first, done, init);
        self.builder.switch_to_block(repeat);
        let params = self.builder.block_params(repeat).to_vec();
        let carried = body(self, params[0], &params[1..]);
        let next = self.offset(params[0], step);
        let again = self.ins().icmp(IntCC::SignedLessThan, next, end);
        let args: Vec<_> = std::iter::once(next).chain(carried.iter().copied()).collect();
        self.branch(again, repeat, &args, done, &carried);
        self.builder.switch_to_block(done);
        self.builder.block_params(done).to_vec()
    }

    /// While `condition` of the carried values is not 0, replaces them by those `body` gives; returns the last ones.
    pub fn while_carried(
        &mut self,
        init: &[Value],
        condition: impl FnOnce(&mut Self, &[Value]) -> Value,
        body: impl FnOnce(&mut Self, &[Value]) -> Vec<Value>,
    ) -> Vec<Value> {
        let (head, repeat, done) = (self.block(init), self.block(&[]), self.block(&[]));
        self.jump(head, init);
        self.builder.switch_to_block(head);
        let carried = self.builder.block_params(head).to_vec();
        let again = condition(self, &carried);
        self.branch(again, repeat, &[], done, &[]);
        self.builder.switch_to_block(repeat);
        let next = body(self, &carried);
        self.jump(head, &next);
        self.builder.switch_to_block(done);
        carried
    }

    /// A new block with parameters of the types of `values`.
    fn block(&mut self, values: &[Value]) -> Block {
        let block = self.builder.create_block();
        for value in values {
            let ty = self.type_of(*value);
            self.builder.append_block_param(block, ty);
        }
        block
    }

    fn jump(&mut self, to: Block, args: &[Value]) {
        let args = block_args(args);
        self.ins().jump(to, &args);
    }

    fn branch(&mut self, condition: Value, yes: Block, yes_args: &[Value], no: Block, no_args: &[Value]) {
        let (yes_args, no_args) = (block_args(yes_args), block_args(no_args));
        self.ins().brif(condition, yes, &yes_args, no, &no_args);
    }
}

fn block_args(values: &[Value]) -> Vec<BlockArg> {
    values.iter().map(|v| BlockArg::Value(*v)).collect()
}
