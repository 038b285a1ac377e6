//! The checker fires: every flag and barrier that is dropped from a correct program is missed.

use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::program::addr::{Addr, Queue};
use tcc_backends::isa::matrix::program::builder::{ProgramBuilder, StreamBuilder};
use tcc_backends::isa::matrix::program::inst::{Control, Copy, CopyForm, CopyPath, FlagId, Inst, Order, Work};
use tcc_backends::isa::matrix::program::ty::ElemType;
use tcc_backends::isa::matrix::program::vec::{Operand, Stride, VecOp, Vector};
use tcc_backends::isa::matrix::program::{CoreKind, Program, SymbolId, SymbolKind};
use tcc_backends::isa::matrix::sim::check::violation::{Rule, Violation};
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::{Options, run};
use tcc_tests::cube_gemm::Gemm;

pub fn machine() -> Machine {
    preset("lite-generic").expect("a preset").expect("it parses")
}

pub fn check(program: &Program) -> Vec<Violation> {
    let mut gm = Gm::new(program);
    let options = Options { functional: true, check: true, max_records: 100_000, ..Options::default() };
    run(program, &machine(), &mut gm, options).expect("findings, not faults").violations
}

pub fn rules(program: &Program) -> Vec<Rule> {
    check(program).into_iter().map(|v| v.rule).collect()
}

pub fn gemm(step: u32, unit_flag: bool) -> Program {
    let gemm = Gemm {
        m: 32,
        n: 64,
        k: 256,
        bm: 16,
        bk: 32,
        bn: 32,
        step,
        core_m: 32,
        core_n: 64,
        grid: (1, 1),
        f32_out: true,
        unit_flag,
    };
    gemm.program(&machine(), CoreKind::Coupled)
}

/// `c = a + a` through UB in `tiles` tiles with two buffers, and a dependent operation behind a barrier.
pub fn vector(tiles: u8) -> Program {
    let mut program = ProgramBuilder::new("vector", &machine());
    let bytes = 256 * u64::from(tiles);
    let a = program.symbol("a", SymbolKind::Input, bytes, "f32");
    let c = program.symbol("c", SymbolKind::Output, bytes, "f32");
    let op = program.op("twice");
    let mut s = StreamBuilder::new(CoreKind::Coupled, 1);
    s.begin_op(op);
    let (ra, rc) = (reg(1), reg(2));
    s.address(ra, a, 0);
    s.address(rc, c, 0);
    for id in 0..2 {
        s.set(Queue::V, Queue::Mte2, FlagId::Fixed(id));
        s.set(Queue::Mte3, Queue::V, FlagId::Fixed(id));
    }
    for tile in 0..tiles {
        let (id, at) = (FlagId::Fixed(tile % 2), 1024 * i32::from(tile % 2));
        s.wait(Queue::V, Queue::Mte2, id);
        s.push(copy(CopyPath::GmToUb, Addr::at(at), Addr::behind(ra, 256 * i32::from(tile))));
        s.set(Queue::Mte2, Queue::V, id);
        s.wait(Queue::Mte2, Queue::V, id);
        s.wait(Queue::Mte3, Queue::V, id);
        s.push(add(at + 256, at));
        s.set(Queue::V, Queue::Mte2, id);
        s.bar(Queue::V);
        s.push(add(at + 512, at + 256));
        s.set(Queue::V, Queue::Mte3, id);
        s.wait(Queue::V, Queue::Mte3, id);
        s.push(copy(CopyPath::UbToGm, Addr::behind(rc, 256 * i32::from(tile)), Addr::at(at + 512)));
        s.set(Queue::Mte3, Queue::V, id);
    }
    for id in 0..2 {
        s.wait(Queue::V, Queue::Mte2, FlagId::Fixed(id));
        s.wait(Queue::Mte3, Queue::V, FlagId::Fixed(id));
    }
    program.stage("twice", vec![s.finish()]);
    program.finish().expect("a valid program")
}

pub fn reg(index: u8) -> tcc_backends::isa::matrix::program::addr::Reg {
    tcc_backends::isa::matrix::program::addr::Reg::new(index).expect("a register")
}

pub fn copy(path: CopyPath, dst: Addr, src: Addr) -> Inst {
    Inst::Work(Work::Copy(Copy {
        path,
        form: CopyForm::Linear,
        dst,
        src,
        rows: 1,
        row_bytes: 256,
        src_stride: 0,
        dst_stride: 0,
    }))
}

pub fn add(dst: i32, src: i32) -> Inst {
    let dense = Stride { block: 1, repeat: 8 };
    Inst::Work(Work::Vec(Vector {
        op: VecOp::Add,
        dst_ty: ElemType::F32,
        src_ty: ElemType::F32,
        dst: Addr::at(dst),
        src0: Addr::at(src),
        src1: Operand::Vector(Addr::at(src)),
        repeats: 1,
        lanes: 64,
        dst_stride: dense,
        src0_stride: dense,
        src1_stride: dense,
    }))
}

fn is_sync(inst: &Inst) -> bool {
    matches!(inst, Inst::Order(Order::Set { .. } | Order::Wait { .. } | Order::Bar { .. }))
}

#[test]
fn correct_programs_are_clean() {
    for program in [gemm(1, false), gemm(2, false), gemm(2, true), vector(4)] {
        assert_eq!(check(&program), []);
    }
}

#[test]
fn every_dropped_flag_is_missed() {
    for program in [gemm(1, false), gemm(2, false), gemm(2, true), vector(4)] {
        let records = &program.stages[0].streams[0].records;
        let syncs: Vec<usize> = (0..records.len()).filter(|i| is_sync(&records[*i].inst)).collect();
        assert!(syncs.len() > 8);
        for index in syncs {
            let mut broken = program.clone();
            let dropped = broken.stages[0].streams[0].records.remove(index);
            let found = rules(&broken);
            assert!(!found.is_empty(), "nothing fires without record {index}: {:?}", dropped.inst);
        }
    }
}

#[test]
fn planted_mistakes_have_their_rule() {
    let broken = |edit: fn(&mut Inst)| {
        let mut program = vector(2);
        let records = &mut program.stages[0].streams[0].records;
        let index =
            records.iter().position(|r| matches!(r.inst, Inst::Work(Work::Vec(_)))).expect("a vector operation");
        edit(&mut records[index].inst);
        rules(&program)
    };
    let with = |edit: fn(&mut Vector)| {
        let mut program = vector(2);
        for record in &mut program.stages[0].streams[0].records {
            if let Inst::Work(Work::Vec(vector)) = &mut record.inst {
                edit(vector);
                break;
            }
        }
        rules(&program)
    };
    assert!(with(|v| v.src0 = Addr::at(4096)).contains(&Rule::Uninitialized));
    assert!(with(|v| v.dst = Addr::at(130_944)).contains(&Rule::OutOfBounds));
    assert!(with(|v| v.dst = Addr::at(260)).contains(&Rule::Misaligned));
    assert!(
        broken(|i| *i = Inst::Order(Order::Set { src: Queue::V, dst: Queue::S, id: FlagId::Fixed(7) }))
            .contains(&Rule::OperandRange)
    );
}

#[test]
fn a_write_to_an_input_is_refused() {
    let mut program = vector(2);
    let records = &mut program.stages[0].streams[0].records;
    for record in records.iter_mut() {
        if let Inst::Control(Control::AddrReg { symbol, .. }) = &mut record.inst {
            *symbol = Some(SymbolId(0));
        }
    }
    assert!(rules(&program).contains(&Rule::OutOfBounds));
}

#[test]
fn queues_that_wait_for_each_other_are_named() {
    let mut program = ProgramBuilder::new("deadlock", &machine());
    program.op("cycle");
    let mut s = StreamBuilder::new(CoreKind::Coupled, 1);
    s.wait(Queue::Mte2, Queue::V, FlagId::Fixed(0));
    s.set(Queue::V, Queue::Mte2, FlagId::Fixed(0));
    s.wait(Queue::V, Queue::Mte2, FlagId::Fixed(0));
    s.set(Queue::Mte2, Queue::V, FlagId::Fixed(0));
    program.stage("cycle", vec![s.finish()]);
    let program = program.finish().expect("a valid program");
    let found = check(&program);
    assert_eq!(found[0].rule, Rule::Deadlock);
    assert!(found[0].detail.contains("V waits for flag MTE2>V 0; MTE2 waits for flag V>MTE2 0"), "{}", found[0].detail);
}

#[test]
fn a_race_names_both_records_and_the_edge() {
    let mut program = vector(2);
    let records = &mut program.stages[0].streams[0].records;
    let wait =
        records.iter().position(|r| matches!(r.inst, Inst::Order(Order::Wait { src: Queue::Mte2, dst: Queue::V, .. })));
    let wait = wait.expect("V waits for MTE2");
    records.remove(wait);
    let found = check(&program);
    let race = found.iter().find(|v| v.rule == Rule::ReadAfterWrite).expect("a race");
    assert_eq!(race.other.as_ref().map(|p| (p.queue, p.op.as_str())), Some((Queue::Mte2, "twice")));
    assert_eq!(race.detail, "missing: set and wait MTE2>V");
    assert!(race.to_string().starts_with("D01 read races with an earlier write: twice, core 0, record "));
}
