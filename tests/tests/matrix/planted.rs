//! One planted fault for each rule of the checker, and signals between cores.

use tcc_backends::isa::matrix::lower::split::search::{self, Shape};
use tcc_backends::isa::matrix::machine::Machine;
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::program::addr::{Addr, Queue};
use tcc_backends::isa::matrix::program::builder::{ProgramBuilder, StreamBuilder};
use tcc_backends::isa::matrix::program::inst::{
    CopyPath, CrossMode, FixPath, FlagId, Inst, Order, ScalarOp, ScalarOperand, Side, UnitFlag, Work,
};
use tcc_backends::isa::matrix::program::ty::{CubeType, ElemType};
use tcc_backends::isa::matrix::program::vec::{Operand, VecOp, Vector};
use tcc_backends::isa::matrix::program::{CoreKind, Program, Record, Stream, SymbolKind};
use tcc_backends::isa::matrix::sim::check::violation::Rule;
use tcc_backends::isa::matrix::sim::memory::Gm;
use tcc_backends::isa::matrix::sim::{Options, SimError, run};
use tcc_ir::kernel::ScaleKind;

use super::checker::{add, copy, gemm, machine, reg, rules, vector};

/// `program` with its records changed.
fn edited(mut program: Program, edit: impl FnOnce(&mut Vec<Record>)) -> Program {
    edit(&mut program.stages[0].streams[0].records);
    program
}

/// Fails unless `program` breaks `rule`.
fn breaks(rule: Rule, program: &Program) {
    let found = rules(program);
    assert!(found.contains(&rule), "{}: {found:?}", rule.code());
}

fn is_flag(inst: &Inst, from: Queue, to: Queue) -> bool {
    matches!(inst, Inst::Order(Order::Set { src, dst, .. } | Order::Wait { src, dst, .. }) if *src == from && *dst == to)
}

fn position(records: &[Record], is: impl Fn(&Inst) -> bool) -> usize {
    records.iter().position(|r| is(&r.inst)).expect("the program has such a record")
}

#[test]
fn races_of_writes_are_told_apart() {
    // Without the reverse flags the next tile is loaded over the one that V may still read.
    let free = edited(vector(4), |r| r.retain(|r| !is_flag(&r.inst, Queue::V, Queue::Mte2)));
    breaks(Rule::WriteAfterRead, &free);
    let mut program = ProgramBuilder::new("two writers", &machine());
    let a = program.symbol("a", SymbolKind::Input, 256, "f32");
    program.op("load");
    let mut s = StreamBuilder::new(CoreKind::Coupled, 1);
    s.address(reg(1), a, 0);
    s.push(copy(CopyPath::GmToUb, Addr::at(0), Addr::behind(reg(1), 0)));
    s.order(Queue::Mte2, Queue::V, 0);
    s.push(copy(CopyPath::GmToUb, Addr::at(256), Addr::behind(reg(1), 0)));
    s.push(add(256, 0));
    program.stage("load", vec![s.finish()]);
    breaks(Rule::WriteAfterWrite, &program.finish().expect("a valid program"));
}

#[test]
fn flags_are_set_once_and_taken_once() {
    let set = |inst: &Inst| matches!(inst, Inst::Order(Order::Set { src: Queue::Mte2, dst: Queue::V, .. }));
    let twice = edited(vector(2), |r| {
        let at = position(r, set);
        r.insert(at, r[at]);
    });
    breaks(Rule::FlagSetTwice, &twice);
    breaks(Rule::WaitNeverSet, &edited(vector(2), |r| r.retain(|r| !set(&r.inst))));
    let left = edited(vector(2), |r| {
        let halt = r.len() - 1;
        r.insert(
            halt,
            Record { inst: Inst::Order(Order::Set { src: Queue::V, dst: Queue::Mte3, id: FlagId::Fixed(3) }), op: 0 },
        );
    });
    breaks(Rule::FlagLeftSet, &left);
}

#[test]
fn dependent_operations_need_their_barrier() {
    breaks(
        Rule::MissingBarrier,
        &edited(vector(2), |r| r.retain(|r| !matches!(r.inst, Inst::Order(Order::Bar { .. })))),
    );
    let sums =
        edited(gemm(2, false), |r| r.retain(|r| !matches!(r.inst, Inst::Order(Order::Bar { queue: Some(Queue::M) }))));
    breaks(Rule::MissingBarrier, &sums);
}

#[test]
fn what_the_machine_lacks_is_refused() {
    // Signals between cores on a machine with one.
    let signal = Inst::Order(Order::XSet { queue: Queue::V, mode: CrossMode::All, id: 0 });
    breaks(Rule::NotOnMachine, &edited(vector(2), |r| r.insert(0, Record { inst: signal, op: 0 })));
    // A mode of the cube that only other machines have.
    let program = edited(gemm(1, false), |records| {
        for record in records {
            if let Inst::Work(Work::Mmad(mmad)) = &mut record.inst {
                mmad.ty = CubeType::Bf16;
            }
        }
    });
    let error = run(&program, &machine(), &mut Gm::new(&program), Options::default()).expect_err("no such mode");
    assert!(matches!(error, SimError::Fault(fault) if fault.rule == Rule::NotOnMachine));
}

/// A cube core writes sums to UB of its vector cores: each to its own, and to none that does not run.
#[test]
fn sums_reach_the_vector_core_that_they_are_for() {
    let mut machine = preset("ascend950pr").expect("a preset").expect("it parses");
    machine.org.cores.value = 1;
    let (scale, bias, residual) = (ScaleKind::PerTensor, false, false);
    let shape = Shape { m: 32, n: 128, k: 256, scale, bias, residual };
    let program = search::alone(&shape, "m32 p2 l1".parse().expect("a choice"), &machine).expect("it fits");
    let paths = |program: &Program| -> Vec<FixPath> {
        let works = program.stages[0].streams[0].records.iter().filter_map(|record| match record.inst {
            Inst::Work(Work::Fix(fix)) => Some(fix.path),
            _ => None,
        });
        works.collect()
    };
    assert!(paths(&program).contains(&FixPath::Ub) && paths(&program).contains(&FixPath::Ub1));
    let options = Options { functional: true, check: true, ..Options::default() };
    let found = |program: &Program| {
        let report = run(program, &machine, &mut Gm::new(program), options).expect("it runs");
        report.violations.iter().map(|violation| violation.rule).collect::<Vec<Rule>>()
    };
    assert_eq!(found(&program), []);
    let all_to_the_first = edited(program.clone(), |records| {
        for record in records {
            if let Inst::Work(Work::Fix(fix)) = &mut record.inst {
                fix.path = FixPath::Ub;
            }
        }
    });
    assert!(found(&all_to_the_first).contains(&Rule::Uninitialized));
    let mut alone = program;
    let vector = &mut alone.stages[0].streams[1];
    vector.cores = 1;
    vector.start.iter_mut().for_each(|start| start.values.truncate(1));
    assert!(found(&alone).contains(&Rule::NotOnMachine));
}

#[test]
fn unit_flags_agree_on_both_sides() {
    let fix = |edit: fn(&mut UnitFlag)| {
        edited(gemm(2, true), |records| {
            for record in records {
                if let Inst::Work(Work::Fix(fix)) = &mut record.inst {
                    edit(&mut fix.unit_flag);
                }
            }
        })
    };
    breaks(Rule::UnitFlag, &fix(|flag| *flag = UnitFlag::Off));
    breaks(Rule::UnitFlag, &fix(|flag| *flag = UnitFlag::Keep));
    let product = edited(gemm(2, true), |records| {
        for record in records {
            if let Inst::Work(Work::Mmad(mmad)) = &mut record.inst {
                mmad.unit_flag = UnitFlag::Off;
            }
        }
    });
    breaks(Rule::UnitFlag, &product);
}

#[test]
fn operands_are_read_as_they_were_written() {
    let change = |edit: &dyn Fn(&mut Inst)| edited(gemm(2, false), |r| r.iter_mut().for_each(|r| edit(&mut r.inst)));
    // Half the columns of B that were loaded: what follows is not the next step of k.
    let narrow = change(&|inst| {
        if let Inst::Work(Work::Mmad(mmad)) = inst {
            mmad.n = 16;
        }
    });
    breaks(Rule::Layout, &narrow);
    let as_integers = change(&|inst| {
        if let Inst::Work(Work::Fix(fix)) = inst {
            fix.from = ElemType::S32;
        }
    });
    breaks(Rule::Layout, &as_integers);
    let apart = change(&|inst| {
        if let Inst::Work(Work::Fix(fix)) = inst {
            fix.src_stride *= 2;
        }
    });
    let found = rules(&apart);
    assert!(found.contains(&Rule::Layout) || found.contains(&Rule::OutOfBounds), "{found:?}");
    let rows = change(&|inst| {
        if let Inst::Work(Work::LoadL0(load)) = inst
            && load.side == Side::B
        {
            load.src_stride /= 2;
        }
    });
    breaks(Rule::Layout, &rows);
}

fn split() -> Machine {
    preset("ascend910b").expect("a preset").expect("it parses")
}

/// A vector core writes 256 bytes and signals, its neighbor waits and reads them.
fn signalled(sets: usize, waits: usize) -> Program {
    let mut program = ProgramBuilder::new("signals", &split());
    let shared = program.symbol("shared", SymbolKind::Scratch, 1024, "f32");
    program.op("pass on");
    let mut s = StreamBuilder::new(CoreKind::Vector, 2);
    // Each core writes its own half and reads the other's.
    s.start(reg(2), vec![0, 256]);
    s.start(reg(3), vec![256, 0]);
    for (to, by) in [(4, 2), (5, 3)] {
        s.address(reg(1), shared, 0);
        s.scalar(ScalarOp::Add, reg(to), reg(1), ScalarOperand::Reg(reg(by)));
    }
    let Inst::Work(Work::Vec(fill)) = add(0, 0) else { panic!("a vector operation") };
    s.push(Work::Vec(Vector { op: VecOp::Dup, src1: Operand::Scalar(0x3f80_0000), ..fill }));
    s.order(Queue::V, Queue::Mte3, 0);
    s.push(copy(CopyPath::UbToGm, Addr::behind(reg(4), 0), Addr::at(0)));
    for _ in 0..sets {
        s.push(Order::XSet { queue: Queue::Mte3, mode: CrossMode::All, id: 2 });
    }
    for _ in 0..waits {
        s.push(Order::XWait { queue: Queue::Mte2, mode: CrossMode::All, id: 2 });
    }
    s.push(copy(CopyPath::GmToUb, Addr::at(1024), Addr::behind(reg(5), 0)));
    program.stage("pass on", vec![s.finish()]);
    program.finish().expect("a valid program")
}

fn split_rules(program: &Program) -> Vec<Rule> {
    let options = Options { functional: true, check: true, max_records: 10_000, ..Options::default() };
    let report = run(program, &split(), &mut Gm::new(program), options).expect("findings, not faults");
    report.violations.into_iter().map(|v| v.rule).collect()
}

#[test]
fn signals_order_cores() {
    assert_eq!(split_rules(&signalled(1, 1)), []);
    assert_eq!(split_rules(&signalled(3, 3)), []);
    // Nobody waits: a race of two cores. Nobody signals: a wait without an end.
    assert!(split_rules(&signalled(1, 0)).contains(&Rule::ReadAfterWrite));
    let endless = split_rules(&signalled(0, 1));
    assert!(endless.contains(&Rule::Deadlock) || endless.contains(&Rule::WaitNeverSet), "{endless:?}");
    // What nobody takes is left for the next program.
    let left = split_rules(&signalled(15, 1));
    assert!(!left.is_empty() && left.iter().all(|rule| *rule == Rule::FlagLeftSet), "{left:?}");
    assert!(split_rules(&signalled(16, 0)).contains(&Rule::CrossCoreCounter));
}

#[test]
fn signals_of_another_mode_or_number_do_not_order() {
    let other = |edit: fn(&mut Inst)| {
        let mut program = signalled(1, 1);
        let stream: &mut Stream = &mut program.stages[0].streams[0];
        let waits = stream.records.iter_mut().filter(|r| matches!(r.inst, Inst::Order(Order::XWait { .. })));
        waits.for_each(|r| edit(&mut r.inst));
        split_rules(&program)
    };
    let number = other(|inst| *inst = Inst::Order(Order::XWait { queue: Queue::Mte2, mode: CrossMode::All, id: 3 }));
    assert!(number.contains(&Rule::Deadlock) || number.contains(&Rule::WaitNeverSet), "{number:?}");
    // The queue that waits is the one that is ordered.
    let queue = other(|inst| *inst = Inst::Order(Order::XWait { queue: Queue::V, mode: CrossMode::All, id: 2 }));
    assert!(queue.contains(&Rule::ReadAfterWrite), "{queue:?}");
}
