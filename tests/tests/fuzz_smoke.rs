//! The fuzz targets of `tests/fuzz/` on the stable toolchain: seeds mutated by a seeded generator, some thousand
//! rounds each. Nothing panics, and memory stays within a small multiple of the input.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use tcc_tests::oracle::fixture;
use tcc_tests::parsers::{self, FIXTURE, Folder};
use tcc_tests::random::Rng;

/// Counts live bytes and their peak since the last reset.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed to the system allocator unchanged; the counters are not memory it manages.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the block came from the system allocator with this layout, through `alloc` above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes a parser may hold at once for an input of `len` bytes: the first term is what opening a model takes.
fn limit(len: usize) -> usize {
    (1 << 20) + 256 * len
}

/// Rounds per parser; `TCC_TEST_FULL=1` makes more.
fn rounds() -> usize {
    if std::env::var_os("TCC_TEST_FULL").is_some_and(|v| v == "1") { 20_000 } else { 2_000 }
}

/// Fragments that change the meaning of JSON and of the text form more often than random bytes do.
const DICTIONARY: [&str; 20] = [
    "0",
    "-1",
    "1e99",
    "18446744073709551616",
    "4294967296",
    "null",
    "[]",
    "{}",
    "\"",
    "%0",
    "f32[1, 8]",
    "{",
    "}",
    "trit",
    "m = 8",
    "data_offsets",
    "\"BF16\"",
    "quantization_config",
    "\\u{0}",
    "\n",
];

/// `seed` after one to four edits in its first `window` bytes.
fn mutate(seed: &[u8], window: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len().min(window) + 1);
        let until = (at + 1 + rng.below(16)).min(bytes.len());
        let word = DICTIONARY[rng.below(DICTIONARY.len())].bytes();
        match rng.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.splice(at..until, word)),
            2 => drop(bytes.splice(at..at, word)),
            3 => drop(bytes.drain(at..until)),
            4 => drop(bytes.splice(at..at, bytes[at..until].to_vec())),
            _ if at < until => bytes[at] = rng.next_u64() as u8,
            _ => bytes.push(rng.next_u64() as u8),
        }
    }
    bytes
}

/// Feeds mutated seeds to one parser. `window` is how far into a seed edits reach.
fn smoke(name: &str, seeds: &[Vec<u8>], window: usize, parse: impl Fn(&[u8])) {
    let mut rng = Rng::named(name);
    for round in 0..rounds() {
        let input = mutate(&seeds[rng.below(seeds.len())], window, &mut rng);
        let before = LIVE.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        parse(&input);
        let held = PEAK.load(Ordering::Relaxed).saturating_sub(before);
        assert!(held <= limit(input.len()), "{name}, round {round}: {held} bytes held for {} of input", input.len());
    }
}

/// Contents of all `.tir` files under `folder`.
fn cases(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).expect("the folder of cases").map(|e| e.expect("an entry").path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| fs::read(path).expect("a case");
    paths.iter().flat_map(|p| if p.is_dir() { cases(p) } else { vec![read(p)] }).collect()
}

/// One test, so that no other thread allocates meanwhile.
#[test]
fn parsers_survive_mutated_input() {
    let seeds = cases(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"));
    smoke("ir_text", &seeds, usize::MAX, parsers::ir_text);

    let folder = Folder::default();
    let model = fs::read(fixture(FIXTURE).join("model.safetensors")).expect("a fixture");
    let header = u64::from_le_bytes(model[..8].try_into().expect("eight bytes"));
    let window = 8 + usize::try_from(header).expect("a small header");
    smoke("safetensors_header", &[model], window, |bytes| folder.safetensors_header(bytes));

    let folder = Folder::default();
    let names = [FIXTURE, "minicpm-g64-longrope", "qwen3-fakequant-g128", "llama-packed-dupkey"];
    let configs = names.map(|name| fs::read(fixture(name).join("config.json")).expect("a fixture"));
    smoke("config", &configs, usize::MAX, |bytes| folder.config(bytes));

    smoke("matrix_program", &[parsers::matrix_seed()], usize::MAX, parsers::matrix_program);

    // Descriptor, machine and tiles; then everything.
    let seed = parsers::matrix_object_seed();
    assert!(tcc::matrix::object::read(&seed).is_ok());
    smoke("matrix_object", std::slice::from_ref(&seed), 6000, parsers::matrix_object);
    smoke("matrix_object, all of it", &[seed], usize::MAX, parsers::matrix_object);
}
