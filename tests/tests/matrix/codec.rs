//! Files and text of programs: both ways, byte for byte; what is broken is refused.

use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::program::addr::{Addr, Queue, Reg};
use tcc_backends::isa::matrix::program::builder::{ProgramBuilder, StreamBuilder};
use tcc_backends::isa::matrix::program::codec::{DecodeError, decode, encode};
use tcc_backends::isa::matrix::program::inst::{
    Count, FlagId, Inst, ScalarLoad, ScalarOp, ScalarOperand, ScalarSpace, Update, Work,
};
use tcc_backends::isa::matrix::program::ty::ElemType;
use tcc_backends::isa::matrix::program::vec::{MAX_REPEATS, Operand, Stride, Types, VEC_OPS, Vector};
use tcc_backends::isa::matrix::program::{CoreKind, Program, SymbolKind, text};
use tcc_tests::parsers::{matrix_run, matrix_seed};
use tcc_tests::random::Rng;

/// Every vector operation with every second operand it takes, and every scalar record.
fn everything() -> Program {
    let machine = preset("lite-generic").expect("a preset").expect("it parses");
    let mut program = ProgramBuilder::new("every \"thing\"", &machine);
    let symbol = program.constant("table", vec![1, 2, 255], "bytes");
    program.symbol("out", SymbolKind::Output, 64, "f32");
    program.op("first");
    let op = program.op("second");
    let mut s = StreamBuilder::new(CoreKind::Coupled, 2);
    s.begin_op(op);
    let r = |index| Reg::new(index).expect("a register");
    s.start(r(31), vec![-1, i64::MAX]);
    let stride = Stride { block: 1, repeat: MAX_REPEATS };
    for row in VEC_OPS {
        let (dst_ty, src_ty) = match row.types {
            Types::Same(types) => (types[0], types[0]),
            Types::Pairs(pairs) => pairs[0],
        };
        let seconds = [
            (!row.vector && !row.scalar, Operand::None),
            (row.vector, Operand::Vector(Addr::behind(r(4), -5))),
            (row.scalar, Operand::Scalar(0xffff_fffe)),
            (row.scalar, Operand::Reg(r(9))),
        ];
        for (_, src1) in seconds.into_iter().filter(|(takes, _)| *takes) {
            let (dst, src0) = (Addr::at(Addr::MAX), Addr::behind(r(31), Addr::MIN));
            let (dst_stride, src0_stride, src1_stride) = (stride, stride, stride);
            let (repeats, lanes) = (MAX_REPEATS, 64);
            let op = row.op;
            let vector =
                Vector { op, dst_ty, src_ty, dst, src0, src1, repeats, lanes, dst_stride, src0_stride, src1_stride };
            s.push(Work::Vec(vector));
        }
    }
    s.begin_loop(Count::Fixed(3));
    s.begin_loop(Count::Reg(r(2)));
    s.set(Queue::V, Queue::Mte2, FlagId::Iteration { base: 1, level: 1, modulo: 3 });
    s.wait(Queue::V, Queue::Mte2, FlagId::Reg { base: 2, reg: r(7) });
    s.bar(Queue::V);
    s.bar_all();
    s.address(r(3), symbol, -7);
    s.immediate(r(3), i64::MIN);
    s.scalar(ScalarOp::Shr, r(1), r(2), ScalarOperand::Reg(r(3)));
    s.push(Inst::ScalarLoad(ScalarLoad { reg: r(1), space: ScalarSpace::Ub, src: Addr::at(4), ty: ElemType::S16 }));
    let updates = [Update::Add(r(1), -1), Update::Xor(r(2), 1), Update::Add(r(3), 1), Update::Add(r(4), 2)];
    s.end_loop(&[&updates[..], &[Update::Xor(r(5), 7)]].concat());
    s.end_loop(&[]);
    program.stage("only", vec![s.finish()]);
    program.finish().expect("a valid program")
}

#[test]
fn files_and_text_come_back_byte_for_byte() {
    for program in [everything(), decode(&matrix_seed()).expect("a program")] {
        let bytes = encode(&program);
        assert_eq!(decode(&bytes).as_ref(), Ok(&program));
        let printed = text::print(&program);
        let read = text::parse(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}"));
        assert_eq!(encode(&read), bytes);
    }
}

#[test]
fn broken_files_are_refused() {
    let bytes = matrix_seed();
    for len in (0..bytes.len()).step_by(7) {
        assert!(matches!(decode(&bytes[..len]), Err(DecodeError::Truncated { .. } | DecodeError::Malformed { .. })));
    }
    let mut newer = bytes.clone();
    newer[8] = 9;
    assert_eq!(decode(&newer), Err(DecodeError::Version { found: 9 }));
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(decode(&longer).is_err());
    // The last record is the halt: none of its operand bits means anything.
    let mut reserved = bytes;
    *reserved.last_mut().expect("bytes") = 1;
    let what = "a record has bits that mean nothing";
    assert!(matches!(decode(&reserved), Err(DecodeError::Malformed { what: w, .. }) if w == what));
}

#[test]
fn mistakes_in_text_are_named() {
    let printed = text::print(&everything());
    let message = |from: &str, to: &str| {
        assert!(printed.contains(from), "{from}");
        text::parse(&printed.replacen(from, to, 1)).expect_err("a mistake").to_string()
    };
    assert!(message("do=mov", "do=move").contains("'do=move': expected one of mov, dup"));
    assert!(message("lanes=64", "lanes=640").contains("'lanes=640' does not fit 1 bytes"));
    assert!(message("repeats=255", "repeats=256").contains("1 to 255 repeats"));
    assert!(message("src0_repeat=255", "src0_repeat=256").contains("at most 255 blocks apart"));
    let far = text::parse(&printed.replace("src0_block=1", "src0_block=256")).expect_err("two operands").to_string();
    assert!(far.contains("blocks of two operands are at most 255 apart"), "{far}");
    assert!(message("halt", "stop").contains("no record 'stop'"));
    assert!(message("r31-67108864", "r32+0").contains("'r32' is no register"));
    assert!(message("level=1 update", "level=0 update").contains("the innermost open loop has another level"));
}

/// Programs with a few bytes changed run to an end, a finding or a fault, never to a panic.
#[test]
fn mutated_programs_do_not_crash_the_simulator() {
    let seed = matrix_seed();
    let mut rng = Rng::named("mutated programs");
    for _ in 0..3000 {
        let mut bytes = seed.clone();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(bytes.len());
            bytes[at] = if rng.below(2) == 0 { rng.next_u64() as u8 } else { bytes[at] ^ 1 << rng.below(8) };
        }
        matrix_run(&bytes);
    }
}
