//! The most ternary products this machine adds up in a second: its best micro-kernel on data next to the core.

use tcc_backends::isa::Backend;
use tcc_ir::kernel::QuantLayout;
use tcc_ir::target::{Features, MicroKernel, micro_args};
use tcc_runtime::micro_loop::{Pace, Word, calls_per_second};

use crate::error::Error;
use crate::target::Target;

/// Reduction length of what is measured next to the core.
const K: usize = 1024;

/// Bytes of weights, activations and accumulators together that are near every core.
const NEAR_BYTES: usize = 16 << 10;

/// The micro-kernel that multiplies fastest on this machine.
#[derive(Clone, Copy)]
pub struct Peak<'b> {
    backend: &'b dyn Backend,
    row: &'static MicroKernel,
}

impl<'b> Peak<'b> {
    /// The fastest assembled row of the target's menu for any vector length that needs no more than `features`;
    /// `None` for targets without any.
    pub fn find(target: &'b Target, features: Features) -> Result<Option<Self>, Error> {
        let desc = target.machine.desc;
        let mut best: Option<(&MicroKernel, f64)> = None;
        for row in desc.menu.iter().filter(|row| row.vlen == 0 && features.contains(desc.close(row.needs))) {
            if let Some(rate) = near_rate(target.backend, row)?
                && best.is_none_or(|(_, so_far)| rate > so_far)
            {
                best = Some((row, rate));
            }
        }
        Ok(best.map(|(row, _)| Peak { backend: target.backend, row }))
    }

    pub fn kernel(&self) -> &'static str {
        self.row.name
    }

    /// Products per second of `threads` threads together.
    pub fn macs_per_second(&self, threads: usize, pace: Pace) -> Result<f64, Error> {
        let rate = rate(self.backend, self.row, K, near_panels(self.row), threads, pace)?;
        Ok(rate.expect("only assembled rows are peaks"))
    }
}

/// Products per second of `row` next to the core; `None` for rows that are not assembled.
pub(super) fn near_rate(backend: &dyn Backend, row: &MicroKernel) -> Result<Option<f64>, Error> {
    rate(backend, row, K, near_panels(row), 1, Pace::Best)
}

fn near_panels(row: &MicroKernel) -> usize {
    (NEAR_BYTES / panel(row, K).len()).max(1)
}

/// One packed panel of `k` columns, a third of its weights zeros.
fn panel(row: &MicroKernel, k: usize) -> Vec<u8> {
    let weights: Vec<i8> = (0..row.encoding.nr() * k).map(|i| (i * 7 % 11 % 3) as i8 - 1).collect();
    let mut panel = Vec::new();
    row.encoding.fitted_to(&weights, k).pack_panel(&weights, k, &mut panel);
    panel
}

/// Products per second of `row` on `threads` threads, over and over on `panels` panels of `k` columns; `None` for rows
/// that are not assembled.
pub(super) fn rate(
    backend: &dyn Backend,
    row: &MicroKernel,
    k: usize,
    panels: usize,
    threads: usize,
    pace: Pace,
) -> Result<Option<f64>, Error> {
    let Some(code) = backend.micro(row, row.needs) else { return Ok(None) };
    let words = block(row, k, panels);
    let calls = calls_per_second(&code.bytes, &words, threads, pace).map_err(Error::io("run", row.name))?;
    Ok(Some(calls * (panels * row.encoding.nr() * k * row.mr) as f64))
}

/// The argument block for `panels` panels of `k` columns; activations are 1.
fn block(row: &MicroKernel, k: usize, panels: usize) -> Vec<Word> {
    let encoding = row.encoding;
    let layout = QuantLayout { k, sum_group: k };
    let (panel, q_bytes) = (panel(row, k), layout.stride_bytes());
    let mut block = vec![Word::Value(0); micro_args::BYTES as usize / 8];
    for (at, word) in [
        (micro_args::ACC, Word::Buffer(vec![0; 4 * panels * row.mr * encoding.nr()])),
        (micro_args::W, Word::Buffer(panel.repeat(panels))),
        (micro_args::W_PANEL_STRIDE, Word::Value(panel.len() as u64)),
        (micro_args::PANELS, Word::Value(panels as u64)),
        (micro_args::Q, Word::Buffer(vec![1; row.mr * q_bytes])),
        (micro_args::Q_STRIDE, Word::Value(q_bytes as u64)),
        (micro_args::K_BLOCKS, Word::Value(k.div_ceil(encoding.kr()) as u64)),
        (micro_args::SCRATCH, Word::Buffer(vec![0; row.scratch_bytes.max(64)])),
    ] {
        // Offsets within a block of a few words.
        block[at as usize / 8] = word;
    }
    block
}
