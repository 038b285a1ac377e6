//! Source for the tile library: the numbers of the program, line for line, and one text kept whole.

use tcc_backends::isa::matrix::lower::matmul::search;
use tcc_backends::isa::matrix::lower::matmul::tile::{Mode, Shape, Tile};
use tcc_backends::isa::matrix::machine::preset::preset;
use tcc_backends::isa::matrix::program::Program;
use tcc_backends::isa::matrix::program::addr::{Addr, Reg};
use tcc_backends::isa::matrix::program::inst::{Control, CopyPath, FlagId, Inst, Order, ScalarLoad, Work};
use tcc_backends::isa::matrix::program::vec::Operand;
use tcc_backends::isa::matrix::source;
use tcc_ir::encoding::w2nz::Panel;

fn product(machine: &str, parts: usize, [m, n, k]: [usize; 3], residual: bool, tile: Option<&str>) -> Program {
    let machine = preset(machine).expect("a preset").expect("it parses");
    let panel = Panel { parts, nr: 64, kp: 512 };
    let shape = Shape { m, n, k, panel, mode: Mode::of(panel), residual };
    let tile = match tile {
        Some(tile) => tile.parse::<Tile>().expect("a tile"),
        None => search::choose(&shape, &machine).expect("a tile fits"),
    };
    search::alone(&shape, tile, &machine).expect("it lowers")
}

fn text(program: &Program) -> String {
    source::text(program, &["a test.".into()]).expect("every record has words")
}

/// An address as the text has it.
fn address(at: Addr) -> String {
    match (at.reg, at.offset) {
        (Reg::ZERO, offset) => offset.to_string(),
        (reg, 0) => reg.to_string(),
        (reg, offset) => format!("{reg} + {offset}"),
    }
}

/// What the line of a record must contain: its sizes, addresses, flags.
fn expected(inst: &Inst) -> Vec<String> {
    match inst {
        Inst::Work(Work::Copy(copy)) => {
            let size = match copy.path {
                CopyPath::GmToUb | CopyPath::UbToGm => format!(", {}>", copy.row_bytes),
                CopyPath::GmToL1 => format!("GmNz<{}, {}, ", copy.rows, copy.row_bytes / 32),
                CopyPath::UbToL1 => format!("VecNz<int8_t, {0}, 32, {0}>", copy.row_bytes / 32),
            };
            vec![size, address(copy.dst), address(copy.src)]
        }
        Inst::Work(Work::LoadL0(load)) => {
            let (rows, k) = (load.rows * 16, load.cols * 32);
            vec![
                rows.to_string(),
                k.to_string(),
                (load.src_stride / 32).to_string(),
                address(load.dst),
                address(load.src),
            ]
        }
        Inst::Work(Work::Mmad(mmad)) => vec![
            format!("{}, {}> c;", mmad.m, mmad.n),
            format!("{}, {}> a;", mmad.m, mmad.k),
            format!("{}, {}> b;", mmad.k, mmad.n),
            format!(
                "TASSIGN(c, {}); TASSIGN(a, {}); TASSIGN(b, {});",
                address(mmad.c),
                address(mmad.a),
                address(mmad.b)
            ),
        ],
        Inst::Work(Work::Fix(fix)) => vec![
            format!("TileAcc<int32_t, {}, {}, {}, {}>", fix.src_stride / 64, fix.n, fix.m, fix.n),
            format!("Vec<int32_t, {}, {}, {}, {}>", fix.m, fix.dst_stride / 4, fix.m, fix.n),
            address(fix.dst),
            address(fix.src),
        ],
        Inst::Work(Work::Vec(vector)) => {
            let mut parts = vec![format!("TASSIGN(d, {})", address(vector.dst))];
            if let Operand::Vector(at) = vector.src1 {
                parts.push(format!("TASSIGN(b, {})", address(at)));
            }
            parts
        }
        Inst::Order(Order::Set { src, dst, id } | Order::Wait { src, dst, id }) => {
            let id = match id {
                FlagId::Fixed(id) => format!("EVENT_ID{id}"),
                FlagId::Iteration { base, level, modulo } => format!("event({base} + i{level} % {modulo})"),
                FlagId::Reg { base, reg } => format!("event({base} + {reg})"),
            };
            vec![format!("(PIPE_{}, PIPE_{}, {id});", src.name(), dst.name())]
        }
        Inst::Order(Order::Bar { queue }) => vec![format!("pipe_barrier(PIPE_{});", queue.map_or("ALL", |q| q.name()))],
        Inst::Control(Control::Loop { .. }) => vec!["for (".into()],
        Inst::Control(Control::End { .. }) => vec!["}".into()],
        Inst::Control(Control::AddrReg { reg, offset, .. }) => vec![format!("{reg} = "), offset.to_string()],
        Inst::Control(Control::Scalar { reg, .. }) | Inst::ScalarLoad(ScalarLoad { reg, .. }) => {
            vec![format!("{reg} = ")]
        }
        Inst::Work(Work::LoadTable(_))
        | Inst::Order(Order::XSet { .. } | Order::XWait { .. })
        | Inst::Control(Control::Halt) => vec![],
    }
}

#[test]
fn lines_have_the_numbers_of_the_records() {
    let programs = [
        product("kirin9030", 4, [1, 256, 640], false, None),
        product("kirin9030", 4, [40, 200, 700], true, None),
        product("lite-generic", 4, [96, 256, 1300], true, Some("m32/16 k512/128/64 g1 u2 s16")),
        product("ascend310p", 4, [8, 1024, 512], false, None),
    ];
    for program in programs {
        let text = text(&program);
        let records = &program.stages[0].streams[0].records;
        let lines: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with("/* ")).collect();
        assert_eq!(lines.len() + 1, records.len(), "one line for each record but the halt");
        for (index, (line, record)) in lines.iter().zip(records).enumerate() {
            assert!(line.trim_start().starts_with(&format!("/* {index} */ ")), "{line}");
            for part in expected(&record.inst) {
                assert!(line.contains(&part), "'{part}' of {:?} is not in: {line}", record.inst);
            }
        }
        assert_eq!(text.matches('{').count(), text.matches('}').count());
        assert!(text.starts_with("// NOT VERIFIED ON HARDWARE"));
    }
}

#[test]
fn products_of_four_bits_have_no_source() {
    let error = source::text(&product("kirin9030", 2, [1, 128, 512], false, None), &[]).expect_err("no such type");
    assert!(error.to_string().contains("type of four bits"), "{error}");
}

/// One text whole; `UPDATE_EXPECT=1` rewrites it.
#[test]
fn a_small_product_has_this_text() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/matrix/product.cpp");
    let found = text(&product("lite-generic", 4, [2, 64, 128], false, Some("m2/2 k128/64/64 g1 u2 s16")));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        std::fs::write(&path, &found).expect("writable");
    }
    let want = std::fs::read_to_string(&path).expect("committed, or made with UPDATE_EXPECT=1");
    assert!(found == want, "the text of a product changed; UPDATE_EXPECT=1 rewrites {}", path.display());
}
