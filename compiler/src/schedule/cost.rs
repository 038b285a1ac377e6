//! Cost of a product in cycles, from the target's description: the larger of arithmetic and traffic.

use tcc_ir::target::MicroKernel;

use super::Machine;

/// Cycles of an m = 1 product that streams its weights from the farthest memory.
pub(super) fn decode_cycles(machine: &Machine, row: &MicroKernel, n: usize, k: usize) -> f64 {
    let arithmetic = (n * k) as f64 / f64::from(row.macs_per_cycle);
    let bandwidth = machine.desc.memories.last().map_or(f64::INFINITY, |m| f64::from(m.bytes_per_cycle));
    let traffic = row.encoding.matrix_bytes(n, k) as f64 / bandwidth;
    // Both overlap in a streaming kernel; the small sum term ranks rows that tie on the larger one.
    arithmetic.max(traffic) + 1e-3 * (arithmetic + traffic)
}
