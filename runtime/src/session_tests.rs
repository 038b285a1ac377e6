//! Tests of sessions over a hand-written object: its "logits" are 1 at (sum of the tokens + position) mod vocabulary.

use core::ffi::c_void;
use core::mem::offset_of;

use super::*;

const VOCAB: usize = 7;
const CTX: u32 = 5;

#[repr(C)]
struct Toy {
    pos: u32,
    tokens: [u32; CTX as usize],
    logits: [f32; VOCAB],
}

impl Toy {
    fn update(&mut self) {
        let sum: u32 = self.tokens[..self.pos as usize].iter().sum();
        self.logits = [0.0; VOCAB];
        self.logits[(sum + self.pos) as usize % VOCAB] = 1.0;
    }
}

unsafe extern "C" fn info(out: *mut Info) -> Status {
    // SAFETY: tests pass a valid struct.
    let out = unsafe { &mut *out };
    (out.abi_major, out.vocab, out.ctx) = (ABI_MAJOR, VOCAB as u32, CTX);
    (out.arena_bytes, out.arena_align) = (size_of::<Toy>() as u64, 64);
    out.name = c"toy".as_ptr();
    Status::OK
}

unsafe extern "C" fn other_major(out: *mut Info) -> Status {
    // SAFETY: tests pass a valid struct.
    unsafe { (*out).abi_major = ABI_MAJOR + 1 };
    Status::OK
}

unsafe extern "C" fn strerror(_: Status) -> *const c_char {
    c"no such thing".as_ptr()
}

unsafe extern "C" fn op_name(op: u32) -> *const c_char {
    if op == 0 { c"L00.only".as_ptr() } else { ptr::null() }
}

unsafe extern "C" fn init(
    arena: *mut c_void,
    bytes: usize,
    weights: *const Blob,
    _: *const Hooks,
    out: *mut *mut Instance,
) -> Status {
    if bytes < size_of::<Toy>() {
        return Status::ARENA_SIZE;
    }
    if weights.is_null() {
        return Status::WEIGHTS;
    }
    // SAFETY: the arena is large enough and aligned; zero is a valid toy.
    unsafe {
        arena.write_bytes(0, size_of::<Toy>());
        *out = arena.cast();
    }
    Status::OK
}

unsafe extern "C" fn variant(_: *const Instance) -> *const c_char {
    c"toy".as_ptr()
}

unsafe extern "C" fn reset(m: *mut Instance) {
    // SAFETY: sessions pass what `init` gave.
    unsafe { (*m.cast::<Toy>()).pos = 0 };
}

unsafe extern "C" fn pos(m: *const Instance) -> u32 {
    // SAFETY: sessions pass what `init` gave.
    unsafe { (*m.cast::<Toy>()).pos }
}

unsafe extern "C" fn rewind(m: *mut Instance, to: u32) -> Status {
    // SAFETY: sessions pass what `init` gave.
    let toy = unsafe { &mut *m.cast::<Toy>() };
    if to > toy.pos {
        return Status::ARG;
    }
    toy.pos = to;
    Status::OK
}

unsafe extern "C" fn eval(m: *mut Instance, tokens: *const u32, n: usize) -> Status {
    // SAFETY: sessions pass what `init` gave, and n tokens.
    let (toy, tokens) = unsafe { (&mut *m.cast::<Toy>(), core::slice::from_raw_parts(tokens, n)) };
    if tokens.is_empty() {
        return Status::ARG;
    }
    if toy.pos as usize + n > CTX as usize {
        return Status::CTX_FULL;
    }
    toy.tokens[toy.pos as usize..][..n].copy_from_slice(tokens);
    toy.pos += n as u32;
    toy.update();
    Status::OK
}

unsafe extern "C" fn eval_all(m: *mut Instance, tokens: *const u32, n: usize, out: *mut f32) -> Status {
    for i in 0..n {
        // SAFETY: sessions pass n tokens and room for n rows.
        unsafe {
            if let Err(status) = eval(m, tokens.add(i), 1).check() {
                return status;
            }
            out.add(i * VOCAB).copy_from_nonoverlapping((*m.cast::<Toy>()).logits.as_ptr(), VOCAB);
        }
    }
    Status::OK
}

unsafe extern "C" fn eval_draft(
    m: *mut Instance,
    tokens: *const u32,
    n: usize,
    sampler: *mut Sampler,
    kept: *mut usize,
    next: *mut u32,
) -> Status {
    // SAFETY: sessions pass n tokens and valid pointers.
    unsafe {
        *kept = 0;
        while *kept == 0 || (*kept < n && *tokens.add(*kept) == *next) {
            if let Err(status) = eval(m, tokens.add(*kept), n.min(1)).check() {
                return status;
            }
            *kept += 1;
            if let Err(status) = sample(m, sampler, next).check() {
                return status;
            }
        }
    }
    Status::OK
}

unsafe extern "C" fn logits(m: *mut Instance, out: *mut *const f32) -> Status {
    // SAFETY: sessions pass what `init` gave.
    unsafe { *out = m.cast::<u8>().add(offset_of!(Toy, logits)).cast::<f32>() };
    Status::OK
}

unsafe extern "C" fn sample(m: *mut Instance, _: *mut Sampler, token: *mut u32) -> Status {
    // SAFETY: sessions pass what `init` gave.
    let toy = unsafe { &*m.cast::<Toy>() };
    let best = toy.logits.iter().position(|x| *x == 1.0).expect("one logit is 1");
    // SAFETY: sessions pass a valid pointer.
    unsafe { *token = best as u32 };
    Status::OK
}

unsafe extern "C" fn head_stats(m: *const Instance, out: *mut HeadStats) -> Status {
    // SAFETY: sessions pass what `init` gave, and a valid struct.
    unsafe { (*out).full = u64::from((*m.cast::<Toy>()).pos) };
    Status::OK
}

unsafe extern "C" fn self_test(_: *mut c_void, bytes: usize, _: *const Blob, _: *const Hooks) -> Status {
    if bytes == 0 { Status::ARENA_SIZE } else { Status::OK }
}

const TOY: Functions = Functions {
    info,
    strerror,
    op_name,
    init,
    variant,
    reset,
    pos,
    rewind,
    eval,
    eval_all,
    eval_draft,
    logits,
    sample,
    head_stats,
    self_test,
};

const WEIGHTS: Blob = Blob { data: ptr::null(), len: 0 };

fn model() -> Model {
    // SAFETY: the toy's functions keep the interface's contract.
    unsafe { Model::new(TOY, Some(WEIGHTS)) }.expect("the toy is of this ABI")
}

#[repr(align(64))]
struct Arena([u8; 128]);

#[test]
fn another_major_is_refused() {
    // SAFETY: the toy's functions keep the interface's contract.
    let model = unsafe { Model::new(Functions { info: other_major, ..TOY }, None) };
    assert_eq!(model.err(), Some(Status::ABI));
}

#[test]
fn strings_come_from_the_object() {
    let model = model();
    assert_eq!((model.name(), model.target()), ("toy", ""));
    assert_eq!((model.op_name(0), model.op_name(1)), (Some("L00.only"), None));
    assert_eq!(model.strerror(Status::ARG), "no such thing");
    assert_eq!(model.self_test(&mut [], None), Err(Status::ARENA_SIZE));
}

#[test]
fn init_errors_come_through() {
    let model = model();
    assert_eq!(Session::new(&model, &mut [0; 8], None).err(), Some(Status::ARENA_SIZE));
    // SAFETY: the toy's functions keep the interface's contract.
    let without_weights = unsafe { Model::new(TOY, None) }.expect("the toy is of this ABI");
    let mut arena = Arena([0; 128]);
    assert_eq!(Session::new(&without_weights, &mut arena.0, None).err(), Some(Status::WEIGHTS));
}

#[test]
fn drafts_are_kept_as_far_as_they_are_right() {
    let (model, mut arena) = (model(), Arena([0; 128]));
    let mut session = Session::new(&model, &mut arena.0, None).expect("the arena fits");
    let mut sampler = Sampler::GREEDY;
    // 1 gives 2 at position 1, then 1 + 2 + 2 = 5; the last guess is wrong.
    let draft = session.eval_draft(&[1, 2, 4], &mut sampler).expect("three fit");
    assert_eq!((draft, session.pos()), (Draft { kept: 2, next: 5 }, 2));
    assert_eq!(session.eval_draft(&[], &mut sampler), Err(Status::ARG));
}

#[test]
fn tokens_move_the_position_and_the_logits() {
    let (model, mut arena) = (model(), Arena([0; 128]));
    let mut session = Session::new(&model, &mut arena.0, None).expect("the arena fits");
    session.eval(&[2, 3]).expect("two fit");
    assert_eq!(session.pos(), 2);
    assert_eq!(session.logits().expect("finite"), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    session.rewind(1).expect("one is there");
    assert_eq!(session.rewind(9), Err(Status::ARG));
    let mut rows = [0.0; 2 * VOCAB];
    session.eval_all(&[3, 1], &mut rows).expect("two fit");
    assert_eq!((rows[0], rows[VOCAB + 2]), (1.0, 1.0));
    assert_eq!(session.eval_all(&[3], &mut rows), Err(Status::BUF));
    session.reset();
    assert_eq!(session.pos(), 0);
}

#[test]
fn generation_ends_with_the_first_error() {
    let (model, mut arena) = (model(), Arena([0; 128]));
    let mut session = Session::new(&model, &mut arena.0, None).expect("the arena fits");
    let tokens: Vec<_> = session.generate(&[1, 1, 1], Sampler::GREEDY).expect("the prompt fits").collect();
    // 3 + 3 = 6, then 9 + 4 = 13 mod 7 = 6, then 15 + 5 = 20 mod 7 = 6, then the context is full.
    assert_eq!(tokens, [Ok(6), Ok(6), Ok(6), Err(Status::CTX_FULL)]);
    assert_eq!(session.generate(&[1], Sampler::GREEDY).err(), Some(Status::CTX_FULL));
}
