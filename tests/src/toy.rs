//! The smallest model: logits of a token are the products of its embedded row with the rows of a dense head.
//!
//! Tests of the C interface use it because they can choose every logit: the row of token t is `(1, t, 0, ...)`.

use tcc_backends::clif::ClifContext;
use tcc_backends::clif::api::instance;
use tcc_backends::clif::func::signature;
use tcc_backends::code::{EmitError, Function};
use tcc_backends::emit::{self, EmitOptions, InfoStrings, Variant};
use tcc_backends::image::{HASHES, HashSlot};
use tcc_backends::isa::Backend;

use cranelift_codegen::ir::InstBuilder;
use cranelift_codegen::ir::types::{I8, I32, I64};
use tcc_ir::kernel::KernelSpec;
use tcc_ir::plan::{ArenaPlan, Arg, HeadRows, KernelId, Plan, Step, StepList};
use tcc_ir::program::ModelFacts;
use tcc_ir::target::Features;
use tcc_ir::ty::DType;
use tcc_runtime::abi::offsets::hooks;

use crate::machines::Machine;
use crate::memory::Memory;
use crate::runner::{Process, RunError, Runner};

pub const VOCAB: usize = 300;
pub const CTX: usize = 10;
pub const MAX_THREADS: u32 = 3;
const WIDTH: usize = 16;
const ROW_BYTES: usize = 4 * WIDTH;
/// Token rows of the larger body.
const PREFILL: usize = 4;

/// Tokens of the golden run and the hash that `self_test` expects.
pub type Golden<'a> = (&'a [u32], [u8; HashSlot::BYTES]);

/// Symbols of hooks that tests pass.
pub const HOOK_PARALLEL_FOR: &str = "hook_parallel_for";
pub const HOOK_SHOULD_STOP: &str = "hook_should_stop";
/// Symbol of `(to, from, bytes)`: copies read-only data of the image to where tests see it.
const PEEK: &str = "peek";

fn step(kernel: u32, args: Vec<Arg>, label: &str, bytes: u64) -> Step {
    Step { kernel: KernelId(kernel), args, label: label.into(), layer_start: kernel < 2, joined: false, bytes }
}

/// The plan, for cores with the features `needs` and vector registers of `vlen` bits (0 = any), whose head has tasks of
/// `task_rows` rows.
pub fn plan(needs: Features, vlen: u32, task_rows: usize) -> Plan {
    let embed = |m| KernelSpec::Embed { m, h: WIDTH, table: DType::F32, scale: 1.0 };
    let head = KernelSpec::DenseMatmul {
        m: PREFILL,
        n: VOCAB,
        k: WIDTH,
        weight: DType::F32,
        scale: 1.0,
        bias: false,
        residual: false,
        task_rows,
    };
    let body = |m, kernel| {
        let args = vec![Arg::Tokens, Arg::Weight { offset_bytes: 0 }, Arg::Hidden];
        StepList { name: format!("m{m}"), m, steps: vec![step(kernel, args, "embed", 0)] }
    };
    let table_bytes = (VOCAB * ROW_BYTES) as u64;
    let args = vec![Arg::Hidden, Arg::Weight { offset_bytes: table_bytes }, Arg::Logits];
    // More bytes than a step may have that always runs on one thread.
    let head_list = StepList { name: "head".into(), m: 1, steps: vec![step(2, args, "head", 1 << 20)] };
    let align = |bytes: usize| bytes.next_multiple_of(64) as u64;
    let (state_bytes, logits_bytes) = (instance::state_bytes(MAX_THREADS) as u64, align(4 * VOCAB));
    let act_offset = state_bytes + logits_bytes;
    let hidden_offset = act_offset + align(4 * PREFILL);
    let kept_hidden_offset = hidden_offset + align(ROW_BYTES * PREFILL);
    let kept_offset = kept_hidden_offset + align(ROW_BYTES);
    let scratch_offset = kept_offset + align(4 * VOCAB * PREFILL);
    Plan {
        facts: ModelFacts { vocab: VOCAB, hidden: WIDTH, layers: 1, ctx: CTX, kv: DType::F16, bos: None, eos: vec![] },
        needs,
        vlen,
        kernels: vec![embed(1), embed(PREFILL), head],
        bodies: vec![body(1, 0), body(PREFILL, 1)],
        head: head_list,
        head_rows: HeadRows { most: PREFILL, kept: PREFILL, kept_offset },
        search: None,
        weights: vec![],
        weights_bytes: 2 * table_bytes,
        states: vec![],
        arena: ArenaPlan {
            state_bytes,
            logits_offset: state_bytes,
            logits_bytes,
            kv_offset: act_offset,
            kv_bytes: 0,
            act_offset,
            act_bytes: scratch_offset - act_offset,
            tokens_offset: act_offset,
            hidden_offset,
            kept_hidden_offset,
            scratch_offset,
            scratch_bytes_per_thread: 64,
            max_threads: MAX_THREADS,
        },
    }
}

/// Weights whose logits of token t are `first[id] + t · second[id]`.
pub fn weights(first: &[f32], second: &[f32]) -> Vec<u8> {
    let row = |a: f32, b: f32| {
        let mut row = [0.0; WIDTH];
        (row[0], row[1]) = (a, b);
        row
    };
    // Tokens are far below 2^24.
    let table = (0..VOCAB).map(|token| row(1.0, token as f32));
    let head = first.iter().zip(second).map(|(a, b)| row(*a, *b));
    table.chain(head).flatten().flat_map(f32::to_le_bytes).collect()
}

fn functions(
    backend: &dyn Backend,
    needs: &[Features],
    vlen: u32,
    (golden_tokens, golden): Golden,
) -> Result<Vec<Function>, EmitError> {
    // Other sizes of tasks, so that variants have kernels of their own.
    let plans: Vec<_> = (1..).zip(needs).map(|(i, needs)| plan(*needs, vlen, 16 * i)).collect();
    let kernels: Vec<_> = plans.iter().map(|plan| emit::emit_kernels(backend, plan)).collect::<Result<_, _>>()?;
    let names: Vec<_> = (0..plans.len()).map(|i| format!("v{i}")).collect();
    let variants = names.iter().zip(&plans).zip(&kernels);
    let variants: Vec<_> =
        variants.map(|((name, plan), kernels)| Variant { name, features: name, plan, kernels }).collect();
    let info = InfoStrings { target: "any", cpu_features: "some", tcc_version: "1.2.3", licence: "" };
    let options = EmitOptions { name: "toy", weights_inside: false, golden_tokens, op_hooks: true, info };
    let mut functions = emit::functions(backend, &variants, &options)?;
    let hashes = functions.iter_mut().find(|f| f.name == HASHES).expect("an object states its hashes");
    hashes.bytes[HashSlot::Golden.offset_bytes()..][..HashSlot::BYTES].copy_from_slice(&golden);
    functions.extend(hook_functions(backend)?);
    Ok(functions)
}

/// `parallel_for` that runs tasks backwards and counts its calls at `user`; `should_stop` that returns what is there;
/// and the function that reads the image.
fn hook_functions(backend: &dyn Backend) -> Result<[Function; 3], EmitError> {
    let cx = ClifContext::new(backend, Features::NONE)?;
    let parallel_for = cx.function(HOOK_PARALLEL_FOR, &signature(&[I64, I32, I64, I64], &[]), |f| {
        let (user, n, task, arg) = (f.param(0), f.param(1), f.param(2), f.param(3));
        let calls = f.load(I64, user, 0);
        let next = f.offset(calls, 1);
        f.store(next, user, 0);
        let n = f.ins().uextend(I64, n);
        let zero = f.i64(0);
        f.for_range(zero, n, 1, |f, i| {
            let index = f.ins().isub(n, i);
            let index = f.ins().iadd_imm_s(index, -1);
            let index = f.ins().ireduce(I32, index);
            f.call_pointer(task, &signature(&[I64, I32], &[]), &[arg, index]);
        });
        f.return_(&[]);
    })?;
    let should_stop = cx.function(HOOK_SHOULD_STOP, &signature(&[I64], &[I32]), |f| {
        let user = f.param(0);
        let stop = f.load(I32, user, 0);
        f.return_(&[stop]);
    })?;
    let peek = cx.function(PEEK, &signature(&[I64, I64, I64], &[]), |f| {
        let (to, from, bytes, zero) = (f.param(0), f.param(1), f.param(2), f.i64(0));
        f.for_range(zero, bytes, 1, |f, i| {
            let (from, to) = (f.ins().iadd(from, i), f.ins().iadd(to, i));
            let byte = f.load(I8, from, 0);
            f.store(byte, to, 0);
        });
        f.return_(&[]);
    })?;
    Ok([parallel_for, should_stop, peek])
}

/// The model in a process, with arena, weights and hooks in its memory.
pub struct Toy {
    /// Owns the program that the process may still be loading.
    _runner: Runner,
    pub process: Process,
    pub memory: Memory,
    pub arena: u64,
    pub arena_bytes: u64,
    pub weights: u64,
    /// A `tcc_blob` of the weights.
    pub blob: u64,
    /// Memory for arguments and results of one call.
    pub buffer: u64,
    /// Features the object needs, which hooks state because not every core can be asked.
    needs: Features,
}

/// Bytes of [`Toy::buffer`]: the logits of a full context fit.
pub const BUFFER_BYTES: usize = 4 * VOCAB * CTX;

impl Toy {
    /// Builds the model's object under the prefix `toy` for cores with the features `needs` and the vector length of
    /// `machine`, with hooks beside it, and starts it there.
    pub fn start(
        backend: &dyn Backend,
        machine: &Machine,
        needs: Features,
        golden: Golden,
        weights: &[u8],
    ) -> Result<Toy, RunError> {
        Self::start_variants(backend, machine, &[needs], golden, weights)
    }

    /// The same with a variant `v0`, `v1`, ... for each of `variants`. The process runs on a core with the features of
    /// the first, and so do hooks.
    pub fn start_variants(
        backend: &dyn Backend,
        machine: &Machine,
        variants: &[Features],
        golden: Golden,
        weights: &[u8],
    ) -> Result<Toy, RunError> {
        let needs = variants[0];
        let functions =
            functions(backend, variants, machine.vlen, golden).map_err(|e| RunError::Build(e.to_string()))?;
        let runner = Runner::new(backend, needs, functions)?;
        let process = runner.start(machine.emulator_args)?;
        let mut memory = Memory::new();
        let arena_bytes = plan(Features::NONE, 0, 16).arena.total_bytes();
        let arena = memory.alloc(usize::try_from(arena_bytes).expect("a small arena"), 64);
        let weights_bytes = weights.len() as u64;
        let weights = memory.place(weights, 64);
        let blob = memory.place_words(&[weights, weights_bytes]);
        let buffer = memory.alloc(BUFFER_BYTES, 64);
        Ok(Toy { _runner: runner, process, memory, arena, arena_bytes, weights, blob, buffer, needs })
    }

    /// Calls `toy_NAME` and returns its 32-bit result. Panics if the process dies or writes out of bounds.
    pub fn call(&mut self, name: &str, args: &[u64]) -> i32 {
        let result = self.process.call(&format!("toy_{name}"), args, &mut self.memory);
        // The upper half of the register is not part of a 32-bit result.
        result.unwrap_or_else(|e| panic!("{name}: {e}")) as i32
    }

    /// A `tcc_hooks` of full size that names the core's features, with the words at some offsets replaced.
    pub fn hooks(&mut self, words: &[(usize, u64)]) -> u64 {
        let mut all = [0; hooks::SIZE / 8];
        all[hooks::STRUCT_SIZE / 8] = hooks::SIZE as u64;
        all[hooks::CPU_FEATURES / 8] = self.needs.0;
        for (offset, word) in words {
            all[offset / 8] = *word;
        }
        self.memory.place_words(&all)
    }

    /// `init` with the model's own weights and no hook but the core's features.
    pub fn init(&mut self) -> i32 {
        let hooks = self.hooks(&[]);
        self.init_with(hooks)
    }

    /// `init` with the model's own weights and `hooks`.
    pub fn init_with(&mut self, hooks: u64) -> i32 {
        self.call("init", &[self.arena, self.arena_bytes, self.blob, hooks, self.buffer])
    }

    /// `eval` of `tokens`.
    pub fn eval(&mut self, tokens: &[u32]) -> i32 {
        let bytes: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        self.memory.write(self.buffer, &bytes);
        self.call("eval", &[self.arena, self.buffer, tokens.len() as u64])
    }

    /// `eval_all` of `tokens`: the status and the logits.
    pub fn eval_all(&mut self, tokens: &[u32]) -> (i32, Vec<f32>) {
        let mut bytes: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        bytes.resize(64, 0);
        let ids = self.memory.place(&bytes, 64);
        let status = self.call("eval_all", &[self.arena, ids, tokens.len() as u64, self.buffer]);
        (status, self.memory.read_f32(self.buffer, VOCAB * tokens.len()))
    }

    /// `eval_draft` of `tokens` with the sampler at address `sampler`: the status, the tokens kept and the next token.
    pub fn eval_draft(&mut self, tokens: &[u32], sampler: u64) -> (i32, u64, u32) {
        let mut bytes: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        bytes.resize(64, 0);
        self.memory.write(self.buffer, &bytes);
        let (kept, next) = (self.buffer + 64, self.buffer + 72);
        let args = [self.arena, self.buffer, tokens.len() as u64, sampler, kept, next];
        let status = self.call("eval_draft", &args);
        let next = self.memory.read(next, 4).try_into().expect("four bytes");
        (status, self.read_u64(kept), u32::from_le_bytes(next))
    }

    /// `logits`: the status and the logits.
    pub fn logits(&mut self) -> (i32, Vec<f32>) {
        let status = self.call("logits", &[self.arena, self.buffer]);
        let address = self.read_u64(self.buffer);
        let logits = if status == 0 { self.memory.read_f32(address, VOCAB) } else { vec![] };
        (status, logits)
    }

    pub fn pos(&mut self) -> i32 {
        self.call("pos", &[self.arena])
    }

    /// Calls `toy_NAME(argument)` and returns the text it points at, `None` for null.
    pub fn call_text(&mut self, name: &str, argument: u64) -> Option<String> {
        let address = self.process.call(&format!("toy_{name}"), &[argument], &mut self.memory);
        let address = address.unwrap_or_else(|e| panic!("{name}: {e}"));
        (address != 0).then(|| self.text(address))
    }

    /// The zero-terminated text at an address of the image.
    pub fn text(&mut self, address: u64) -> String {
        // No text of the model is longer.
        const BYTES: usize = 128;
        let to = self.buffer + (BUFFER_BYTES - BYTES) as u64;
        let copied = self.process.call(PEEK, &[to, address, BYTES as u64], &mut self.memory);
        copied.unwrap_or_else(|e| panic!("{PEEK}: {e}"));
        let bytes = self.memory.read(to, BYTES);
        let end = bytes.iter().position(|b| *b == 0).expect("a terminated text");
        String::from_utf8(bytes[..end].to_vec()).expect("texts are ASCII")
    }

    pub fn read_u64(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.memory.read(address, 8).try_into().expect("eight bytes"))
    }
}
