//! The most ternary products this machine adds up in a second: its best micro-kernel on data next to the core.

use tcc_backends::isa::Backend;
use tcc_ir::kernel::QuantLayout;
use tcc_ir::target::{Features, MicroKernel, micro_args};
use tcc_runtime::micro_loop::{Word, calls_per_second};

use crate::error::Error;
use crate::target::Target;

/// Reduction length.
const K: usize = 1024;

/// Bytes of weights, activations and accumulators together that are near every core.
const NEAR_BYTES: usize = 16 << 10;

/// A micro-kernel and what it reaches.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    pub kernel: &'static str,
    pub macs_per_second: f64,
}

/// The fastest assembled row of the target's menu that needs no more than `features`, on `threads` threads together;
/// `None` for targets without any.
pub fn peak(target: &Target, features: Features, threads: usize) -> Result<Option<Peak>, Error> {
    let desc = target.machine.desc;
    let mut best: Option<(&MicroKernel, f64)> = None;
    for row in desc.menu.iter().filter(|row| features.contains(desc.close(row.needs))) {
        if let Some(rate) = rate(target.backend, row, 1)?
            && best.is_none_or(|(_, so_far)| rate > so_far)
        {
            best = Some((row, rate));
        }
    }
    let Some((row, rate)) = best else { return Ok(None) };
    let together = if threads > 1 { self::rate(target.backend, row, threads)?.unwrap_or(rate) } else { rate };
    Ok(Some(Peak { kernel: row.name, macs_per_second: together }))
}

/// Products per second of `row` on `threads` threads; `None` for rows that are not assembled.
pub(super) fn rate(backend: &dyn Backend, row: &MicroKernel, threads: usize) -> Result<Option<f64>, Error> {
    let Some(code) = backend.micro(row) else { return Ok(None) };
    let panel_bytes = row.encoding.panel_bytes(K);
    let panels = (NEAR_BYTES / panel_bytes).max(1);
    let calls = calls_per_second(&code.bytes, &block(row, panels), threads).map_err(Error::io("run", row.name))?;
    Ok(Some(calls * (panels * row.encoding.nr() * K * row.mr) as f64))
}

/// The argument block for `panels` panels: weights of code 1, activations 1.
fn block(row: &MicroKernel, panels: usize) -> Vec<Word> {
    let encoding = row.encoding;
    let layout = QuantLayout { k: K, sum_group: K };
    let (panel_bytes, q_bytes) = (encoding.panel_bytes(K), layout.stride_bytes());
    let mut block = vec![Word::Value(0); micro_args::BYTES as usize / 8];
    for (at, word) in [
        (micro_args::ACC, Word::Buffer(vec![0; 4 * panels * row.mr * encoding.nr()])),
        (micro_args::W, Word::Buffer(vec![0x55; panels * panel_bytes])),
        (micro_args::W_PANEL_STRIDE, Word::Value(panel_bytes as u64)),
        (micro_args::PANELS, Word::Value(panels as u64)),
        (micro_args::Q, Word::Buffer(vec![1; row.mr * q_bytes])),
        (micro_args::Q_STRIDE, Word::Value(q_bytes as u64)),
        (micro_args::K_BLOCKS, Word::Value(K.div_ceil(encoding.kr()) as u64)),
        (micro_args::SCRATCH, Word::Buffer(vec![0; row.scratch_bytes.max(64)])),
    ] {
        // Offsets within a block of a few words.
        block[at as usize / 8] = word;
    }
    block
}
