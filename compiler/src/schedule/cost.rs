//! Cost of a product in cycles, from the target's description: the larger of arithmetic and traffic.

use tcc_ir::encoding::Encoding;
use tcc_ir::target::MicroKernel;

use super::Machine;

/// Cycles of a product of one token row whose weights come from the farthest memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// n · k multiply-accumulates at the kernel's rate.
    pub arithmetic_cycles: f64,
    /// The packed bytes at the memory's bandwidth.
    pub traffic_cycles: f64,
}

impl Cost {
    /// Of `row` over a matrix laid out as `encoding`, which is what the row reads with the sizes of the matrix.
    pub(super) fn of(machine: &Machine, row: &MicroKernel, encoding: Encoding, n: usize, k: usize) -> Cost {
        let bandwidth = machine.desc.memories.last().map_or(f64::INFINITY, |m| f64::from(m.bytes_per_cycle));
        Cost {
            arithmetic_cycles: (n * k) as f64 / f64::from(row.macs_per_cycle),
            traffic_cycles: encoding.matrix_bytes(n, k) as f64 / bandwidth,
        }
    }

    /// Both overlap in a streaming kernel; the small sum term ranks rows that tie on the larger one.
    pub fn cycles(self) -> f64 {
        self.arithmetic_cycles.max(self.traffic_cycles) + 1e-3 * (self.arithmetic_cycles + self.traffic_cycles)
    }
}
