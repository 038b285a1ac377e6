//! Streams the weights blob: tensor by tensor, packed as the plan says, never whole in memory.

use std::io::{self, Write};

use rayon::prelude::*;
use tcc_ir::encoding::Encoding;
use tcc_ir::plan::{Plan, WeightLayout, WeightSlot};
use tcc_ir::program::{WeightError, WeightStore};
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
    const ZEROS: [u8; 64] = [0; 64];
    let count = usize::try_from(count).expect("slots are 64-byte aligned neighbours");
    out.write_all(&ZEROS[..count])
}

fn write_tensor(tensor: &Tensor, slot: &WeightSlot, out: &mut dyn Write) -> io::Result<()> {
    match (&tensor.data, slot.layout) {
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
    for wave in jobs.chunks(rayon::current_num_threads()) {
        let packed: Vec<Vec<u8>> = wave.par_iter().map(|rows| encoding.pack(rows, rows.len() / k, k)).collect();
        packed.iter().try_for_each(|bytes| out.write_all(bytes))?;
    }
    Ok(())
}
