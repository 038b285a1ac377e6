//! Streams the weights blob: tensor by tensor, packed as the plan says, never whole in memory.

use std::io::{self, Read, Write};

use rayon::prelude::*;
use tcc_ir::coded::{self, CodedLayout};
use tcc_ir::encoding::Encoding;
use tcc_ir::plan::{Plan, WeightLayout, WeightSlot};
use tcc_ir::program::{WeightError, WeightStore};
use tcc_ir::screen::{BOUNDS, PANEL_ROWS, ScreenLayout, pack};
use tcc_ir::tensor::{Data, Tensor};
use thiserror::Error;

/// Why the blob could not be written.
#[derive(Debug, Error)]
pub enum BlobError {
    #[error(transparent)]
    Weight(#[from] WeightError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Output rows packed by one thread at a time: bounds the packed bytes in flight.
const ROWS_PER_JOB: usize = 256;

/// Elements converted to bytes at a time.
const ELEMENTS_PER_WRITE: usize = 1 << 16;

/// Writes exactly `plan.weights_bytes` bytes, calling `progress` with the bytes written so far after each tensor.
pub fn write(
    plan: &Plan,
    store: &dyn WeightStore,
    out: &mut dyn Write,
    mut progress: impl FnMut(u64),
) -> Result<(), BlobError> {
    let mut at = 0;
    for slot in &plan.weights {
        zeros(out, slot.offset_bytes - at)?;
        let tensor = store.tensor(slot.id)?;
        write_tensor(&tensor, slot, out)?;
        at = slot.offset_bytes + slot.bytes;
        progress(at);
    }
    zeros(out, plan.weights_bytes - at)?;
    Ok(())
}

fn zeros(out: &mut dyn Write, count: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(count), out).map(drop)
}

fn write_tensor(tensor: &Tensor, slot: &WeightSlot, out: &mut dyn Write) -> io::Result<()> {
    match (&tensor.data, slot.layout) {
        (Data::F32(_) | Data::F16(_) | Data::Bf16(_), WeightLayout::Screen(layout)) => {
            write_screen(tensor, &layout, out)
        }
        (Data::F32(_) | Data::F16(_) | Data::Bf16(_), WeightLayout::Coded(table)) => write_coded(tensor, &table, out),
        (Data::Trit(w), WeightLayout::Packed(encoding)) => write_packed(w, tensor.shape[1], encoding, out),
        (Data::F32(x), WeightLayout::Plain) => write_elements(x, out, |v| v.to_bits().to_le_bytes()),
        (Data::F16(x) | Data::Bf16(x), WeightLayout::Plain) => write_elements(x, out, |v| v.to_le_bytes()),
        (data, layout) => unreachable!("the plan lays out {data:?} as {layout:?}"),
    }
}

fn write_elements<T: Copy, const N: usize>(
    elements: &[T],
    out: &mut dyn Write,
    bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(ELEMENTS_PER_WRITE.min(elements.len()) * N);
    for run in elements.chunks(ELEMENTS_PER_WRITE) {
        buffer.clear();
        run.iter().for_each(|v| buffer.extend_from_slice(&bytes(*v)));
        out.write_all(&buffer)?;
    }
    Ok(())
}

/// Packs runs of panels in parallel and writes them in order.
fn write_packed(w: &[i8], k: usize, encoding: Encoding, out: &mut dyn Write) -> io::Result<()> {
    let rows_per_job = ROWS_PER_JOB.next_multiple_of(encoding.nr());
    let jobs: Vec<&[i8]> = w.chunks(rows_per_job * k).collect();
    let pack = |rows: &&[i8]| {
        let mut panels = Vec::new();
        encoding.pack_panels(rows, k, &mut panels);
        panels
    };
    let mut header = Vec::new();
    encoding.pack_header(&mut header);
    out.write_all(&header)?;
    for wave in jobs.chunks(rayon::current_num_threads()) {
        let packed: Vec<Vec<u8>> = wave.par_iter().map(pack).collect();
        packed.iter().try_for_each(|bytes| out.write_all(bytes))?;
    }
    Ok(())
}

/// Writes a coded table panel by panel.
fn write_coded(tensor: &Tensor, layout: &CodedLayout, out: &mut dyn Write) -> io::Result<()> {
    let code = |rows: &[f32]| coded::pack::table(&CodedLayout { n: rows.len() / layout.k, ..*layout }, rows);
    in_waves(tensor, layout.n, layout.k, code, |bytes| out.write_all(&bytes))
}

/// Writes a screen part by part: the planes of all panels, whose bounds are kept meanwhile, then the records of all
/// rows, then the bounds.
fn write_screen(tensor: &Tensor, layout: &ScreenLayout, out: &mut dyn Write) -> io::Result<()> {
    let bounds_bytes = PANEL_ROWS * BOUNDS * 4;
    let mut bounds = Vec::with_capacity(layout.panels() * bounds_bytes);
    let mut limit = 0.0f32;
    in_waves(
        tensor,
        layout.n,
        layout.k,
        |rows| {
            let mut planes = vec![0; rows.len().div_ceil(PANEL_ROWS * layout.k) * layout.panel_bytes()];
            let panels = planes.chunks_exact_mut(layout.panel_bytes()).zip(rows.chunks(PANEL_ROWS * layout.k));
            let bounds: Vec<_> = panels.map(|(panel, rows)| pack::panel(layout, rows, panel)).collect();
            (planes, bounds)
        },
        |(planes, panels)| {
            for panel in &panels {
                bounds.extend(pack::bounds_bytes(panel));
                limit = panel.iter().fold(limit, |m, b| m.max(b.norm));
            }
            out.write_all(&planes)
        },
    )?;
    in_waves(
        tensor,
        layout.n,
        layout.k,
        |rows| {
            let mut records = vec![0; rows.len() / layout.k * layout.record_bytes()];
            let each = records.chunks_exact_mut(layout.record_bytes()).zip(rows.chunks_exact(layout.k));
            each.for_each(|(record, row)| pack::record(row, record));
            records
        },
        |records| out.write_all(&records),
    )?;
    zeros(out, (layout.bounds_offset() - layout.records_offset() - layout.n * layout.record_bytes()) as u64)?;
    out.write_all(&bounds)?;
    out.write_all(&limit.to_le_bytes())
}

/// Runs `job` on runs of whole panels of a float matrix, widened to f32, in parallel, and gives `each` what they made
/// in order.
fn in_waves<T: Send>(
    tensor: &Tensor,
    n: usize,
    k: usize,
    job: impl Fn(&[f32]) -> T + Sync,
    mut each: impl FnMut(T) -> io::Result<()>,
) -> io::Result<()> {
    let elements = ROWS_PER_JOB.next_multiple_of(PANEL_ROWS) * k;
    let starts: Vec<usize> = (0..n * k).step_by(elements).collect();
    for wave in starts.chunks(rayon::current_num_threads()) {
        let end = |start: usize| (start + elements).min(n * k);
        let made: Vec<T> = wave.par_iter().map(|start| job(&tensor.floats(*start..end(*start)))).collect();
        made.into_iter().try_for_each(&mut each)?;
    }
    Ok(())
}
