//! Calls of kernels: what goes in and what must come out.

use tcc_ir::cache::{CacheLayout, CacheOrder};
use tcc_ir::kernel::{KernelSpec, QuantLayout};
use tcc_ir::tensor::{Data, Tensor};
use tcc_tests::memory::Memory;
use tcc_tests::runner::{Process, RunError};

/// What buffers hold where a kernel has not written.
const UNWRITTEN: u8 = 0x5a;

/// Alignment of buffers in an arena, bytes.
const ALIGN: usize = 64;

/// One operand of a kernel.
#[derive(Clone, Debug)]
pub enum Operand {
    /// Bytes the kernel reads and leaves as they are.
    Input(Vec<u8>),
    /// A buffer that must hold these bytes afterwards; it begins with [`UNWRITTEN`] bytes.
    Output(Vec<u8>),
    /// A buffer with its bytes before and after.
    InOut(Vec<u8>, Vec<u8>),
    /// The buffer of an earlier operand.
    Same(usize),
    /// A buffer of so many bytes between kernels; it begins with [`UNWRITTEN`] bytes.
    Unchecked(usize),
}

/// One kernel and which of a case's operands it is given.
#[derive(Clone, Debug)]
pub struct Call {
    pub spec: KernelSpec,
    pub operands: Vec<usize>,
}

/// Kernels called one after the other, and their result.
pub struct Case {
    pub what: String,
    pub calls: Vec<Call>,
    pub pos: usize,
    pub valid: usize,
    pub operands: Vec<Operand>,
    /// True if an activation is not finite: the flag must be set, and outputs are nobody's promise.
    pub nonfinite: bool,
}

impl Case {
    /// A case of one kernel at position 0 over finite values.
    pub fn new(spec: KernelSpec, valid: usize, operands: Vec<Operand>) -> Case {
        let what = format!("{spec:?}, valid {valid}");
        let calls = vec![Call { spec, operands: (0..operands.len()).collect() }];
        Case { what, calls, pos: 0, valid, operands, nonfinite: false }
    }

    pub fn at(mut self, pos: usize) -> Case {
        self.what = format!("{} at {pos}", self.what);
        self.pos = pos;
        self
    }

    /// Calls the kernels in `process`, whose names `kernel` gives, and compares; `machine` is named in the message of a
    /// difference.
    pub fn check(
        &self,
        process: &mut Process,
        kernel: impl Fn(usize) -> String,
        machine: &str,
    ) -> Result<(), RunError> {
        for is_turned in [false, true] {
            self.check_order(process, &kernel, machine, is_turned)?;
        }
        Ok(())
    }

    /// All tasks of a kernel in one call, or in two of which the second comes first.
    fn check_order(
        &self,
        process: &mut Process,
        kernel: &impl Fn(usize) -> String,
        machine: &str,
        is_turned: bool,
    ) -> Result<(), RunError> {
        let mut memory = Memory::new();
        let flag = memory.place(&[0; 4], ALIGN);
        let mut addresses: Vec<u64> = Vec::new();
        for operand in &self.operands {
            let address = match operand {
                Operand::Input(bytes) | Operand::InOut(bytes, _) => memory.place(bytes, ALIGN),
                Operand::Output(bytes) => memory.place(&vec![UNWRITTEN; bytes.len()], ALIGN),
                Operand::Same(earlier) => addresses[*earlier],
                Operand::Unchecked(bytes) => memory.place(&vec![UNWRITTEN; *bytes], ALIGN),
            };
            addresses.push(address);
        }
        for (i, Call { spec, operands }) in self.calls.iter().enumerate() {
            assert_eq!(operands.len(), spec.operands(), "{spec:?}");
            let scratch = memory.place(&vec![0xff; spec.scratch_bytes()], ALIGN);
            let operands = operands.iter().map(|operand| addresses[*operand]);
            let words: Vec<_> = [self.pos as u64, self.valid as u64, flag].into_iter().chain(operands).collect();
            let args = memory.place_words(&words);
            let tasks = spec.tasks() as u64;
            let half = tasks / 2;
            let ranges = if is_turned { vec![(half, tasks), (0, half)] } else { vec![(0, tasks)] };
            for (begin, end) in ranges {
                process.call(&kernel(i), &[args, begin, end, scratch], &mut memory)?;
            }
        }
        let set = memory.read(flag, 4) != [0; 4];
        assert_eq!(set, self.nonfinite, "{machine}: flag of {}", self.what);
        if self.nonfinite {
            return Ok(());
        }
        for (i, operand) in self.operands.iter().enumerate() {
            let want = match operand {
                Operand::Input(bytes) | Operand::Output(bytes) | Operand::InOut(_, bytes) => bytes,
                Operand::Same(_) | Operand::Unchecked(_) => continue,
            };
            let found = memory.read(addresses[i], want.len());
            if let Some(at) = (0..want.len()).find(|at| found[*at] != want[*at]) {
                let word = |bytes: &[u8]| bytes[at / 4 * 4..].iter().take(4).copied().collect::<Vec<_>>();
                panic!(
                    "{machine}: operand {i} of {} differs at byte {at} of {}: found {:02x?}, expected {:02x?}",
                    self.what,
                    want.len(),
                    word(found),
                    word(want)
                );
            }
        }
        Ok(())
    }
}

/// The stored bytes of a tensor other than trits.
pub fn bytes(tensor: &Tensor) -> Vec<u8> {
    match &tensor.data {
        Data::F32(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::F16(x) | Data::Bf16(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::I8(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::I32(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::U32(x) => x.iter().flat_map(|v| v.to_le_bytes()).collect(),
        Data::Q8(..) => panic!("caches have a layout of their own"),
        Data::Trit(_) => panic!("trits have no bytes without an encoding"),
    }
}

/// The stored bytes of a cache, [`UNWRITTEN`] where it is padded.
pub fn cache_bytes(cache: &Tensor, order: CacheOrder) -> Vec<u8> {
    let layout = CacheLayout::of(&cache.ty());
    let mut bytes = vec![UNWRITTEN; layout.bytes()];
    let elements: Vec<u8> = match &cache.data {
        Data::Q8(codes, _) => codes.iter().flat_map(|c| c.to_le_bytes()).collect(),
        _ => self::bytes(cache),
    };
    let element_bytes = layout.element_bytes();
    for (at, element) in elements.chunks_exact(element_bytes).enumerate() {
        let (run, i) = (at / layout.d, at % layout.d);
        let (head, t) = (run / layout.ctx, run % layout.ctx);
        let to = head * layout.head_bytes() + layout.element_offset_bytes(order, t, i);
        bytes[to..to + element_bytes].copy_from_slice(element);
    }
    if let Data::Q8(_, scales) = &cache.data {
        for (run, scale) in scales.iter().enumerate() {
            let (head, t) = (run / layout.ctx, run % layout.ctx);
            let to = layout.scales_offset_bytes() + 4 * (head * layout.positions() + t);
            bytes[to..to + 4].copy_from_slice(&scale.to_le_bytes());
        }
    }
    bytes
}

/// A tensor the kernel reads.
pub fn input(tensor: &Tensor) -> Operand {
    Operand::Input(bytes(tensor))
}

/// Rows the kernel writes: the first `valid` of `result`'s.
pub fn output(result: &Tensor, valid: usize) -> Operand {
    Operand::Output(first_rows(result, valid, None))
}

/// A buffer of rows `before` that the kernel overwrites with the first `valid` of `result`'s.
pub fn in_place(before: &Tensor, result: &Tensor, valid: usize) -> Operand {
    let before = bytes(before);
    let after = first_rows(result, valid, Some(&before));
    Operand::InOut(before, after)
}

/// The first `valid` rows of `result`, the rest from `before` or unwritten.
fn first_rows(result: &Tensor, valid: usize, before: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = bytes(result);
    let written = bytes.len() / result.shape[0] * valid;
    match before {
        Some(before) => bytes[written..].copy_from_slice(&before[written..]),
        None => bytes[written..].fill(UNWRITTEN),
    }
    bytes
}

/// Codes as kernels lay them out: rows of codes, padding and sums.
pub fn quantized(layout: QuantLayout, codes: &Tensor, valid: usize) -> Vec<u8> {
    let rows = codes.shape[0];
    let mut bytes = vec![UNWRITTEN; rows * layout.stride_bytes()];
    let strides = bytes.chunks_exact_mut(layout.stride_bytes());
    for (row, codes) in strides.zip(codes.as_i8().chunks_exact(layout.k)).take(valid) {
        row.fill(0);
        for (at, code) in row.iter_mut().zip(codes) {
            *at = code.to_le_bytes()[0];
        }
        let sums = &mut row[layout.sums_offset_bytes()..];
        for (at, group) in sums.chunks_exact_mut(4).zip(codes.chunks_exact(layout.sum_group)) {
            let sum: i32 = group.iter().map(|c| i32::from(*c)).sum();
            at.copy_from_slice(&sum.to_le_bytes());
        }
    }
    bytes
}
